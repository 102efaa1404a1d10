"""Inception score: exp of the mean KL divergence between p(class | image) and p(class).

Source: Salimans et al. 2016, Improved Techniques for Training GANs, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax, logsumexp

from harness.quality.statistics import as_features

SHUFFLE_SEED = 2020  # torch-fidelity's


@dataclass(frozen=True)
class InceptionScore:
    """Mean and (population) standard deviation over the splits; each split's score lies in [1, classes].

    The std says how much splits of this size differ. It is not an interval of the mean.
    """

    mean: float
    std: float
    splits: int


def inception_score(logits: ArrayLike, splits: int = 10, shuffle_seed: int | None = None) -> InceptionScore:
    """The inception score of (n, classes) unnormalised class logits.

    The splits are contiguous and equal to within one sample, in the order given (the ADM protocol); with
    ``shuffle_seed`` the samples are permuted first by RandomState(shuffle_seed), as torch-fidelity does
    with 2020. The score depends on the split size: it is biased low for few samples. ValueError if n <
    splits.
    """
    array = as_features(logits)
    n = len(array)
    if not 1 <= splits <= n:
        raise ValueError(f"{n} samples cannot make {splits} splits")
    if shuffle_seed is not None:
        rng = np.random.RandomState(shuffle_seed)
        array = array[rng.permutation(n)]
    log_p = log_softmax(array, axis=1)
    scores = np.empty(splits)
    for split in range(splits):
        part = log_p[split * n // splits : (split + 1) * n // splits]
        log_marginal = logsumexp(part, axis=0) - np.log(len(part))
        scores[split] = np.exp(np.mean(np.sum(np.exp(part) * (part - log_marginal), axis=1)))
    return InceptionScore(float(scores.mean()), float(scores.std()), splits)
