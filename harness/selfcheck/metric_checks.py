"""Self-check of what judges: quality metrics on made-up features, pixels, and the published figures of ADM's samples.

Features are made of raw PCG64 words, which numpy promises never to change, so that everybody checks the same numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ditbench.harness.selfcheck.checks import Case, Outcome, SkippedError, Vector, cases_of, exactly, near, vectors

if TYPE_CHECKING:
    from ditbench.harness.assets import Entry

Floats = NDArray[np.float64]

FAR = 4096.0  # features on a grid of 1/1024 stay exact in float32 when this is added
INCEPTION, REFERENCE, SAMPLES = "inception-2015", "imagenet-256", "admnet-guided-upsampled-imagenet-256"


def features(count: int, dim: int, seed: int, spread: float = 1.0, shift: float = 0.0) -> Floats:
    """(count, dim) correlated numbers about ``shift``, of standard deviation 0.73 ``spread``, on a grid of 1/1024."""
    words = np.asarray(np.random.PCG64(seed).random_raw(2 * count * dim), dtype=np.uint64)
    one, two = ((words >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(2, count, dim)
    bells = 1.6 * (one + two - 1.0)
    mixed = bells + 0.5 * np.roll(bells, 1, axis=1)
    on_grid: Floats = np.round((spread * mixed + shift) * 1024.0) / 1024.0
    return on_grid


def generated_and_real() -> tuple[Floats, Floats]:
    """The two sets that the stored values are about: (400, 16) and (350, 16)."""
    return features(400, 16, seed=1, spread=0.9, shift=0.15), features(350, 16, seed=2)


def logits() -> Floats:
    """(500, 10) class logits for the inception score."""
    return features(500, 10, seed=3, spread=3.0)


def metrics() -> list[Case]:
    """Each metric against a closed form or against torch-fidelity's value."""
    checks: dict[str, Callable[[Vector], Outcome]] = {
        "frechet_closed": _frechet_closed,
        "frechet": _frechet,
        "frechet_far": partial(_frechet, offset=FAR),
        "kid": _kid,
        "inception_score": _inception_score,
        "precision_recall": _precision_recall,
        "quantisation": _quantisation,
        "digits": _digits,
        "psnr": _psnr,
        "ssim": _ssim,
    }
    return cases_of("metrics", checks)


def _frechet_closed(vector: Vector) -> Outcome:
    """Deviations 1..8 against 2..9, means half a unit apart, both turned by the same reflection."""
    from ditbench.harness.quality.frechet import frechet_distance

    deviations = np.arange(1.0, 9.0)
    mirror = np.eye(8) - 2.0 * np.outer(deviations, deviations) / (deviations @ deviations)
    one, two = (mirror * d**2 @ mirror for d in (deviations, deviations + 1.0))
    measured = frechet_distance(mirror @ np.full(8, 0.5), one, np.zeros(8), two)
    return near([measured], [vector["expected"]], vector["tolerance"])


def _frechet(vector: Vector, offset: float = 0.0) -> Outcome:
    """From features as extractors give them, float32; adding the same number to all must change nothing."""
    from ditbench.harness.quality.frechet import frechet_from_features

    one, two = (each + offset for each in generated_and_real())
    measured = frechet_from_features(one.astype(np.float32), two.astype(np.float32))
    return near([measured], [vector["expected"]], vector["tolerance"], relative=True)


def _kid(vector: Vector) -> Outcome:
    from ditbench.harness.quality.kernel import kernel_distance

    found = kernel_distance(*generated_and_real(), subsets=vector["subsets"], subset_size=vector["subset_size"])
    return near([found.estimate.value, found.subset_std], vector["expected"], vector["tolerance"], relative=True)


def _inception_score(vector: Vector) -> Outcome:
    from ditbench.harness.quality.inception_score import inception_score

    found = inception_score(logits(), splits=vector["splits"])
    return near([found.estimate.value, found.std], vector["expected"], vector["tolerance"], relative=True)


def _precision_recall(vector: Vector) -> Outcome:
    from ditbench.harness.quality.neighbours import neighbour_metrics

    found = neighbour_metrics(*generated_and_real())
    return near([found.precision.value, found.recall.value], vector["expected"], vector["tolerance"])


def _quantisation(vector: Vector) -> Outcome:
    from ditbench.harness.sample.quantise import quantise

    measured = quantise(np.array(vector["samples"], dtype=np.float32)).tolist()
    return exactly(measured, vector["expected"])


def _digits(vector: Vector) -> Outcome:
    from ditbench.harness.quality.extractors.digits import reference_images

    images = reference_images(vector["expected"])
    return exactly(hashlib.sha256(images.tobytes()).hexdigest(), vector["expected"])


def _psnr(vector: Vector) -> Outcome:
    from ditbench.harness.quality.perceptual import psnr

    return near(psnr(*_shifted_images()).tolist(), [vector["expected"]], vector["tolerance"])


def _ssim(vector: Vector) -> Outcome:
    from ditbench.harness.quality.perceptual import ssim

    return near(ssim(*_shifted_images()).tolist(), [vector["expected"]], vector["tolerance"])


def _shifted_images() -> tuple[torch.Tensor, torch.Tensor]:
    """One even grey picture of 250, and it 16 levels darker: wrapping 8-bit arithmetic makes a difference of 240."""
    light = torch.full((1, 16, 16, 3), 250, dtype=torch.uint8)
    return light - 16, light


def published() -> list[Case]:
    """ADM's published figures of its own samples, each within its tolerance, where the public files are configured."""
    stored = vectors()["published"]
    if missing := [name for name, entry in _configured().items() if entry is None]:
        text = f"needs {', '.join(missing)} in ditbench.toml (see `ditbench doctor`)"
        return [Case("ADM's samples", stored["source"], partial(_skip, text))]
    once = _Once(_scored)
    figures = [Case(v["name"], stored["source"], partial(_figure, v, once)) for v in stored["figures"]]
    return [
        Case("digests of the public files", "ditbench.toml, and what ditbench knows of the published files", _verified),
        *figures,
    ]


def published_adm(samples: Path) -> Mapping[str, float]:
    """frechet, sfid, inception_score, precision, recall of ADM's 50,000 samples, by what ``ditbench score`` calls.

    Raises InputError: files absent, changed or unreadable.
    """
    # The one call into the scoring of files: adapt it here if that changes.
    from ditbench.harness.quality.score import score_images

    device = "cuda" if torch.cuda.is_available() else "cpu"
    # features of 50,000 images take hours on a CPU: a second check reads the first one's
    scored = score_images(samples, "adm", REFERENCE, device=device, cache=Path("runs/features"))
    return {name: quantity.value for name, quantity in scored.values.items()}


def _configured() -> dict[str, Entry | None]:
    from ditbench.harness.assets import load_assets

    assets = load_assets()
    return {INCEPTION: assets.find(INCEPTION)} | {name: assets.reference(name) for name in (REFERENCE, SAMPLES)}


def _verified() -> Outcome:
    from ditbench.harness.assets import require, verified

    for name in (INCEPTION, REFERENCE, SAMPLES):
        verified(require(name, "the self-check"))
    return replace(exactly(3, 3), note="scoring 50,000 images now: minutes on a GPU, hours on a CPU")


def _scored() -> Mapping[str, float]:
    from ditbench.harness.assets import require

    return published_adm(require(SAMPLES, "the self-check").path)


def _figure(vector: Vector, figures: Callable[[], Mapping[str, float]]) -> Outcome:
    measured = figures().get(vector["figure"], math.nan)
    return near([measured], [vector["expected"]], vector["tolerance"])


def _skip(text: str) -> Outcome:
    raise SkippedError("needs public files", text)


class _Once:
    """Calls a function at most once, also if it fails: five figures need one scoring of 50,000 images."""

    def __init__(self, function: Callable[[], Mapping[str, float]]) -> None:
        self._function = function
        self._found: Mapping[str, float] | Exception | None = None

    def __call__(self) -> Mapping[str, float]:
        if self._found is None:
            try:
                self._found = self._function()
            except Exception as error:
                self._found = error
        if isinstance(self._found, Exception):
            raise self._found
        return self._found
