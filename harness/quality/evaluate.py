"""The quality measurement of a cell: shards of samples -> figures with intervals, and a preview for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ditbench.harness.quality.build import build_extractor
from ditbench.harness.quality.definitions import Definition, definition
from ditbench.harness.quality.extractors.extractor import Extractor
from ditbench.harness.quality.features import FeatureCache, FeatureSet, block_edges, collect
from ditbench.harness.quality.figures import Figures, figures
from ditbench.harness.quality.frechet import MIN_SEEDS, frechet_from_features, frechet_of_seeds
from ditbench.harness.quality.images.decoded import DecodedImages
from ditbench.harness.quality.images.source import ImageSource, ShardImages
from ditbench.harness.quality.metrics import Measured, SampleSet, columns_of, mean_of_blocks, measured
from ditbench.harness.quality.options import QualityOptions
from ditbench.harness.quality.protocols import QualityProtocol, protocol
from ditbench.harness.quality.reference import Reference, load_reference
from ditbench.harness.stats.intervals import Estimate, mean_interval, proportion_interval
from ditbench.harness.store.arrays import read_arrays, write_npz
from ditbench.harness.store.records import Quantity

PREVIEW = 200
PREVIEW_BYTES = 4 << 20


@dataclass(frozen=True)
class SeedBlock:
    """One independent set of samples: its seed and the paths of its shards, in order.

    pictures: the decoded files of these shards, where the cell has a decoder; they are what is scored and shown.
    """

    seed: int
    shards: list[Path]
    pictures: list[Path] | None = None

    def images(self, count: int) -> ImageSource:
        """The first ``count`` images. Raises InputError: latents without pictures, files missing or damaged."""
        return ShardImages(self.shards, count) if self.pictures is None else DecodedImages(self.pictures, count)


@dataclass(frozen=True)
class QualityResult:
    """values: the figures by name; protocol: id@count, the count being that of one seed block."""

    values: dict[str, Quantity]
    detail: dict[str, Any]
    protocol: str


def score(blocks: Sequence[SeedBlock], options: QualityOptions, cache: Path | None, device: str) -> QualityResult:
    """Figures of the first ``options.samples`` samples of every block; writes preview.npz beside the first images.

    One block: intervals by a 10-block jackknife. From three on: means of the blocks with Student's t over them.
    """
    chosen, fixed = protocol(options.protocol, options.reference, options.metrics), definition(options.protocol)
    extractor = build_extractor(chosen, device)
    kept = FeatureCache(cache) if cache else None
    reference = load_reference(chosen, options.reference, extractor, batch=options.shard, cache=kept)
    scored = [_scored(block, options, fixed, extractor, reference, kept, device) for block in blocks]
    found = [each.figures for each in scored]
    values = found[0].values if len(found) == 1 else _combined(found)
    first, added = scored[0], mean_of_blocks([each.added for each in scored], MIN_SEEDS)
    return QualityResult(
        values={name: quantity_of(estimate) for name, estimate in values.items()} | added.values,
        detail={
            "samples": options.samples,
            "seeds": [block.seed for block in blocks],
            **uncertainty_detail(found, added.missing),
            **reference_detail(reference),
            "protocol": protocol_detail(chosen),
            **_columns(options, added),
            **_preview(blocks[0], first),
            **_by_class(first),
        },
        protocol=chosen.at(options.samples),
    )


def quantity_of(estimate: Estimate) -> Quantity:
    """A pure number as records hold it."""
    return Quantity(value=estimate.value, unit="1", low=estimate.low, high=estimate.high, interval=estimate.method)


def uncertainty_detail(found: Sequence[Figures], missing: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a comparison pairs: one block's leave-one-outs, or the figures of each seed; and what has no figure."""
    detail: dict[str, Any] = {"not_available": {**found[0].missing, **(missing or {})}}
    if len(found) == 1:
        return {**detail, "leave_one_out": {name: list(each) for name, each in found[0].leave_one_out.items()}}
    return {**detail, "by_seed": {name: [each.values[name].value for each in found] for name in found[0].values}}


def reference_detail(reference: Reference) -> dict[str, Any]:
    """How many images the reference has, and what distance is noise: its two halves against each other.

    Halves of few images per feature differ by their bias alone; then there is no such figure.
    """
    detail: dict[str, Any] = {"reference_samples": reference.count}
    features = reference.features
    if features is not None and len(features) >= 20 * features.shape[1]:
        detail["frechet_of_reference_halves"] = frechet_from_features(features[::2], features[1::2])
    return detail


def protocol_detail(chosen: QualityProtocol) -> dict[str, Any]:
    """The protocol in words, for a reader of the record."""
    return {
        "extractor": chosen.extractor,
        "extractor_sha256": chosen.extractor_sha256,
        "resize": chosen.resize,
        "quantisation": chosen.quantisation,
        "reference": chosen.reference,
        "reference_sha256": chosen.reference_sha256,
        "estimators": chosen.estimators,
        **({"metrics": list(chosen.metrics)} if chosen.metrics else {}),
    }


def _columns(options: QualityOptions, added: Measured) -> dict[str, Any]:
    columns = [each.model_dump() for each in columns_of(options.metrics, added)]
    return {"columns": columns} if columns else {}


@dataclass(frozen=True)
class _Scored:
    figures: Figures
    features: FeatureSet
    labels: NDArray[np.int64]
    added: Measured

    @property
    def predicted(self) -> NDArray[np.int64] | None:
        logits = self.features.arrays.get("logits")
        return None if logits is None else logits.argmax(axis=1)


def _scored(
    block: SeedBlock,
    options: QualityOptions,
    fixed: Definition,
    extractor: Extractor,
    reference: Reference,
    cache: FeatureCache | None,
    device: str,
) -> _Scored:
    images = block.images(options.samples)
    features = collect(images, extractor, count=options.samples, batch=options.shard, cache=cache)
    found = figures(features, reference, published=fixed.subsets, device=device)
    labels = np.concatenate([read_arrays(path, ["labels"])["labels"] for path in block.shards])[: options.samples]
    given = SampleSet(
        features=features.arrays["features"],
        labels=labels,
        images=images,
        reference_features=reference.features,
        reference_images=reference.images,
        without=reference.without,
        device=device,
    )
    taken = [*found.values, *found.missing, "accuracy"]
    scored = _Scored(found, features, labels, measured([*dict.fromkeys(options.metrics)], given, taken))
    if fixed.recognises and scored.predicted is not None:
        _add_accuracy(found, scored.predicted == labels)
    return scored


def _add_accuracy(found: Figures, correct: NDArray[np.bool_]) -> None:
    edges = block_edges(len(correct))
    without = [np.delete(correct, slice(start, stop)).mean() for start, stop in pairwise(edges)]
    found.add("accuracy", proportion_interval(int(correct.sum()), len(correct)), tuple(map(float, without)))


def _combined(found: Sequence[Figures]) -> dict[str, Estimate]:
    """Means over seed blocks; none of them has an interval with fewer than three."""
    distance, limit = frechet_of_seeds([each.distance for each in found if each.distance is not None])
    combined = {"frechet": distance, "frechet_infinity": limit}
    for name in found[0].values:
        if name in combined:
            continue
        mean = mean_interval([each.values[name].value for each in found])
        if len(found) < MIN_SEEDS:
            why = f"no interval: {len(found)} seeds, Student's t needs {MIN_SEEDS}"
            mean = Estimate(mean.value, None, None, why)
        combined[name] = mean
    return {
        name: replace(each, method=each.method.replace("samples", "seed blocks")) for name, each in combined.items()
    }


def _preview(block: SeedBlock, scored: _Scored) -> dict[str, Any]:
    """The first images of a block, few enough for a file of 4 MiB. Latents may have pictures by several decoders: the
    file lies beside its own."""
    height, width, channels = (source := block.images(scored.features.count)).shape
    shown = max(1, min(PREVIEW, scored.features.count, PREVIEW_BYTES // (height * width * channels)))
    images = next(source.batches(shown, shown))
    samples = block.shards[0].parent
    path = (block.pictures or block.shards)[0].parent / "preview.npz"
    arrays: dict[str, NDArray[Any]] = {"images": images, "labels": scored.labels[:shown]}
    if scored.predicted is not None and "accuracy" in scored.figures.values:
        arrays["predicted"] = scored.predicted[:shown]
    name = path.relative_to(samples.parent).as_posix()
    return {"preview": f"samples/{name}", "preview_sha256": write_npz(path, **arrays)}


def _by_class(scored: _Scored) -> Mapping[str, Any]:
    if "accuracy" not in scored.figures.values:
        return {}
    assert scored.predicted is not None
    correct = scored.predicted == scored.labels
    classes = sorted(set(scored.labels.tolist()))
    return {"accuracy_by_class": [float(correct[scored.labels == label].mean()) for label in classes]}
