"""The measurements of a cell, by name: each takes resolved options and gives values, detail and protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ditbench.harness.measure.options import (
    AgreementOptions,
    DecodeOptions,
    EnergyOptions,
    FlopsOptions,
    KernelsOptions,
    LatencyOptions,
    MemoryOptions,
    TrainingOptions,
)
from ditbench.harness.quality.options import QualityOptions
from ditbench.harness.run.cells import LazyCell
from ditbench.harness.run.job import Counted, Job, Measured
from ditbench.harness.run.samples import make_samples, paired_orders, pictures_of, quality_order, shards_of


def _flops(options: dict[str, Any], cell: LazyCell, job: Job, progress: Counted) -> Measured:
    from ditbench.harness.measure.count_cell import measure_flops

    result = measure_flops(job.spec, job.weights, FlopsOptions.model_validate(options), job.maps_folder)
    return result.values(), result.detail(), None


def _latency(options: dict[str, Any], cell: LazyCell, job: Job, progress: Counted) -> Measured:
    from ditbench.harness.measure.compare_times import measure_latency

    chosen = LatencyOptions.model_validate(options)
    bound, baseline = cell.get(), cell.baseline()
    decoders = None
    if "image" in chosen.levels and job.spec.decoder is not None:
        decoders = cell.decoder(), None if baseline is None else cell.baseline_decoder()
    result = measure_latency(bound, baseline, chosen, cell.load_ms, decoders)
    return result.values, result.detail, None


def _kernels(options: dict[str, Any], cell: LazyCell, job: Job, progress: Counted) -> Measured:
    from ditbench.harness.measure.kernels import measure_kernels

    result = measure_kernels(cell.get(), KernelsOptions.model_validate(options))
    return result.values, result.detail, None


def _memory(options: dict[str, Any], cell: LazyCell, job: Job, progress: Counted) -> Measured:
    from ditbench.harness.measure.memory import measure_memory

    result = measure_memory(cell.get(), MemoryOptions.model_validate(options))
    return result.values, result.detail, None


def _training(options: dict[str, Any], cell: LazyCell, job: Job, progress: Counted) -> Measured:
    from ditbench.harness.measure.training import Trainee, measure_training

    spec, other = job.spec, job.baseline
    assert job.weights is not None, "planned only for a cell with weights"
    beside = None
    if other is not None and other.cell != spec.cell and other.device == spec.device and job.baseline_weights:
        beside = Trainee(other, job.baseline_weights)
    result = measure_training(Trainee(spec, job.weights), beside, TrainingOptions.model_validate(options))
    return result.values, result.detail, None


def _agreement(options: dict[str, Any], cell: LazyCell, job: Job, progress: Counted) -> Measured:
    from ditbench.harness.measure.agreement import measure_agreement

    result = measure_agreement(cell.get(), AgreementOptions.model_validate(options))
    return result.values, result.detail, None


def _energy(options: dict[str, Any], cell: LazyCell, job: Job, progress: Counted) -> Measured:
    from ditbench.harness.measure.energy import measure_energy

    result = measure_energy(cell.get(), EnergyOptions.model_validate(options))
    return result.values, result.detail, None


def _decode(options: dict[str, Any], cell: LazyCell, job: Job, progress: Counted) -> Measured:
    from ditbench.harness.measure.decode_time import measure_decode

    timed = DecodeOptions.model_validate({name: value for name, value in options.items() if name != "side"})
    result = measure_decode(job.spec, job.decoder_weights, timed, options["side"])
    return result.values, result.detail, None


def _quality(options: dict[str, Any], cell: LazyCell, job: Job, progress: Counted) -> Measured:
    from ditbench.harness.quality.evaluate import SeedBlock, score

    chosen = QualityOptions.model_validate(options)
    order = quality_order(job, options)
    make_samples(order, cell.get, cell, job, progress)
    blocks = [SeedBlock(each[0].spec.seed, shards_of(each), pictures_of(each)) for each in order.blocks()]
    result = score(blocks, chosen, job.features_folder, job.spec.device)
    return result.values, result.detail, result.protocol


def _paired(options: dict[str, Any], cell: LazyCell, job: Job, progress: Counted) -> Measured:
    from ditbench.harness.quality.paired import pair

    ours, theirs = paired_orders(job, options)
    make_samples(ours, cell.get, cell, job, progress)
    make_samples(theirs, cell.any_baseline, cell, job, progress)
    a, b = ours.pieces(), theirs.pieces()
    result = pair(
        shards_of(a),
        shards_of(b),
        options["samples"],
        options["lpips"],
        options["lpips_sha256"],
        job.spec.device,
        ours_pictures=pictures_of(a),
        theirs_pictures=pictures_of(b),
    )
    return result.values, result.detail, None


# Counting first, because it is sure to end and does not touch the cell's model; then the clock, so that loading,
# compiling and the first call are cold.
MEASURES: dict[str, Callable[[dict[str, Any], LazyCell, Job, Counted], Measured]] = {
    "flops": _flops,
    "latency": _latency,
    "memory": _memory,
    "kernels": _kernels,
    "energy": _energy,
    "decode": _decode,
    "training": _training,
    "agreement": _agreement,
    "quality": _quality,
    "paired": _paired,
}
ORDER = tuple(MEASURES)
