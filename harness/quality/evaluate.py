"""The quality measurement: shards of samples -> features -> figures with intervals, and a preview for the report."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.quality.extractors.digits import Extracted, Images, extract, quantise, reference_images
from harness.quality.frechet import frechet_from_features, frechet_jackknife
from harness.quality.kernel import kernel_jackknife
from harness.quality.precision_recall import precision_recall
from harness.quality.protocols import protocol
from harness.quality.statistics import FeatureStatistics
from harness.sample.generate import read_samples
from harness.stats.intervals import Estimate, proportion_interval
from harness.store.arrays import write_npz
from harness.store.records import Quantity
from harness.suite.schema import QualityOptions

PREVIEW = 200


@dataclass(frozen=True)
class QualityResult:
    """values: frechet, kid, precision, recall, accuracy; protocol: id@count."""

    values: dict[str, Quantity]
    detail: dict[str, Any]
    protocol: str


def score(shards: list[Path], options: QualityOptions) -> QualityResult:
    """Figures of the first ``options.samples`` samples in ``shards``; writes preview.npz beside them."""
    chosen = protocol(options.protocol)
    shard = read_samples(shards, options.samples)
    images = quantise(shard.samples)
    found, reference = extract(images), _reference(chosen.reference_sha256)
    moments = FeatureStatistics.of(reference.features).moments()
    neighbours = precision_recall(found.features, reference.features)
    correct = found.predicted == shard.labels
    classes = sorted(set(shard.labels.tolist()))
    preview = shards[0].parent / "preview.npz"
    return QualityResult(
        values={
            "frechet": _quantity(frechet_jackknife(found.features, moments.mean, moments.covariance)),
            "kid": _quantity(kernel_jackknife(found.features, reference.features)),
            "precision": _quantity(neighbours.precision),
            "recall": _quantity(neighbours.recall),
            "accuracy": _quantity(proportion_interval(int(correct.sum()), len(correct))),
        },
        detail={
            "samples": options.samples,
            "reference_samples": len(reference.features),
            # what distance is noise: the two halves of the reference against each other
            "frechet_of_reference_halves": frechet_from_features(reference.features[::2], reference.features[1::2]),
            "preview": f"samples/{preview.parent.name}/{preview.name}",
            "preview_sha256": _write_preview(preview, images, shard.labels, found.predicted),
            "accuracy_by_class": [float(correct[shard.labels == label].mean()) for label in classes],
        },
        protocol=f"{chosen.id}@{options.samples}",
    )


@cache
def _reference(sha256: str) -> Extracted:
    return extract(reference_images(sha256))


def _write_preview(path: Path, images: Images, labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> str:
    shown = slice(PREVIEW)
    return write_npz(path, images=images[shown].transpose(0, 2, 3, 1), labels=labels[shown], predicted=predicted[shown])


def _quantity(estimate: Estimate) -> Quantity:
    return Quantity(value=estimate.value, unit="1", low=estimate.low, high=estimate.high, interval=estimate.method)
