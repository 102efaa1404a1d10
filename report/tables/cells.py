"""``cells.csv``: every cell of the plan with all its figures, in stored units and full precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ditbench.harness.store.records import Quantity
from ditbench.report.fronts import front_probabilities
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.more import more_figures
from ditbench.report.tables.rows import marks_of, whole
from ditbench.report.tables.table import Column, Raw, Table, Value

PAIRED_FIGURES = ("psnr", "ssim", "lpips", "latent_error")
MORE_QUALITY = ("frechet_infinity", "sfid", "inception_score", "rbf_mmd", "density", "coverage")


TRAINING_FIGURES = ("trainable", "training_peak_mib", "training_image_ms", "training_ratio")


def cells_table(view: RunView) -> Table:
    """One row a cell of the plan, also failed and not yet run ones; stored units, full precision."""
    fronts = front_probabilities(view)
    readers: dict[str, Callable[[Row], Raw]] = {
        "cell": lambda row: row.cell,
        "method": lambda row: row.spec.method,
        "variant": lambda row: row.spec.variant,
        "sampler": lambda row: row.spec.sampler,
        "steps": lambda row: row.spec.steps,
        "guidance": lambda row: row.spec.guidance_scale,
        "device": lambda row: row.spec.device,
        "dtype": lambda row: row.spec.dtype,
        "batch": lambda row: row.batch,
        "params": lambda row: whole(row.value("flops", "params")),
        "gmacs_step": lambda row: row.value("flops", "gmacs_step"),
        "gmacs_image": lambda row: row.value("flops", "gmacs_image"),
        "flops_ratio": lambda row: row.flops_ratio,
        "latency_ms": lambda row: row.value("latency", "latency_ms"),
        "latency_low": lambda row: _low(row.quantity("latency", "latency_ms")),
        "latency_high": lambda row: _high(row.quantity("latency", "latency_ms")),
        "images_per_s": lambda row: row.value("latency", "images_per_s"),
        "speedup": lambda row: row.speedup.value if row.speedup else None,
        "speedup_low": lambda row: _low(row.speedup),
        "speedup_high": lambda row: _high(row.speedup),
        "realised": lambda row: row.realised,
        "frechet": lambda row: row.value("quality", "frechet"),
        "frechet_low": lambda row: _low(row.quantity("quality", "frechet")),
        "frechet_high": lambda row: _high(row.quantity("quality", "frechet")),
        "frechet_delta": lambda row: row.value("paired", "frechet_delta"),
        "frechet_delta_low": lambda row: _low(row.quantity("paired", "frechet_delta")),
        "frechet_delta_high": lambda row: _high(row.quantity("paired", "frechet_delta")),
        "kid": lambda row: row.value("quality", "kid"),
        "precision": lambda row: row.value("quality", "precision"),
        "recall": lambda row: row.value("quality", "recall"),
        "protocol": lambda row: view.protocol if row.has_quality else None,
        "status": lambda row: row.status,
        "accuracy": lambda row: row.value("quality", "accuracy"),
        "image_ms": lambda row: row.value("latency", "image_ms"),
        "image_ms_low": lambda row: _low(row.quantity("latency", "image_ms")),
        "image_ms_high": lambda row: _high(row.quantity("latency", "image_ms")),
        "peak_mib": lambda row: row.value("memory", "peak_mib"),
        "on_front_gmacs": lambda row: row.on_front_gmacs,
        "on_front_time": lambda row: row.on_front_time,
        "cost_only": lambda row: row.spec.cost_only,
        "imposed": lambda row: row.spec.imposed or None,
        "reason": lambda row: row.reason,
        "front_probability_gmacs": lambda row: fronts.gmacs.get(row.cell),
        "front_probability_time": lambda row: fronts.time.get(row.cell),
        **{name: partial(_figure, "quality", name) for name in MORE_QUALITY},
        "frechet_infinity_low": lambda row: _low(row.quantity("quality", "frechet_infinity")),
        "frechet_infinity_high": lambda row: _high(row.quantity("quality", "frechet_infinity")),
        **{name: partial(_figure, "paired", name) for name in PAIRED_FIGURES},
        "evaluations": lambda row: row.evaluations or None,
        **{name: partial(_figure, "training", name) for name in TRAINING_FIGURES},
    }
    for figure in more_figures(view, taken=readers):
        readers[figure.key] = partial(_figure, figure.measurement, figure.name)
    columns = tuple(Column(key, key, tuple(Value(read(row), "") for row in view.rows)) for key, read in readers.items())
    return Table("cells", "Every cell of the plan", columns, marks_of(view.rows))


def _figure(measurement: str, name: str, row: Row) -> float | None:
    return row.value(measurement, name)


def _low(quantity: Quantity | None) -> float | None:
    return None if quantity is None else quantity.low


def _high(quantity: Quantity | None) -> float | None:
    return None if quantity is None else quantity.high
