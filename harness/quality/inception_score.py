"""Inception score: exp of the mean KL divergence between p(class | image) and p(class).

Source: Salimans et al. 2016, Improved Techniques for Training GANs, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, logsumexp

from ditbench.harness.quality.statistics import as_features
from ditbench.harness.stats.intervals import Estimate, jackknife_interval

SHUFFLE_SEED = 2020  # torch-fidelity's


@dataclass(frozen=True)
class InceptionScore:
    """The score of n samples in splits.

    estimate       mean over the splits, in [1, classes], with an interval where there are two splits or more
    leave_one_out  the mean without each split, or empty
    std            population standard deviation over the splits, as published; not the error of the mean
    """

    estimate: Estimate
    leave_one_out: tuple[float, ...]
    std: float
    splits: int


def inception_score(logits: ArrayLike, splits: int = 10, shuffle_seed: int | None = None) -> InceptionScore:
    """The inception score of (n, classes) unnormalised class logits.

    The splits are contiguous and equal to within one sample, in the order given (the ADM protocol: 5,000 a split); with
    ``shuffle_seed`` the samples are permuted first by RandomState(shuffle_seed), as torch-fidelity does with 2020. The
    score depends on the split size: it is biased low for few samples. The interval is the jackknife over the splits: it
    says where the mean at this split size would lie for other samples. Logits stay as they are but for one split.
    ValueError if n < splits.
    """
    array = np.asarray(logits)
    n = len(array)
    if not 1 <= splits <= n:
        raise ValueError(f"{n} samples cannot make {splits} splits")
    order = np.arange(n) if shuffle_seed is None else np.random.RandomState(shuffle_seed).permutation(n)
    scores = np.array(
        [_score(as_features(array[order[i * n // splits : (i + 1) * n // splits]])) for i in range(splits)]
    )
    mean, std = float(scores.mean()), float(scores.std())
    if splits == 1:
        return InceptionScore(Estimate(mean, None, None, "no interval: one split"), (), std, splits)
    rest = (scores.sum() - scores) / (splits - 1)
    estimate = jackknife_interval(mean, rest, lower=1.0, upper=float(array.shape[1]))
    return InceptionScore(estimate, tuple(rest.tolist()), std, splits)


def _score(logits: NDArray[np.float64]) -> float:
    log_p = log_softmax(logits, axis=1)
    log_marginal = logsumexp(log_p, axis=0) - np.log(len(log_p))
    return float(np.exp(np.mean(np.sum(np.exp(log_p) * (log_p - log_marginal), axis=1))))
