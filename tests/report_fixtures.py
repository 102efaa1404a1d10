"""Believable run folders for the tests of the report: invented figures in the shapes of real runs."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ditbench.harness.store.records import CellSpec, Failure, Provenance, Quantity, Record
from ditbench.harness.store.store import RunStore, write_json
from ditbench.methods.glossary import notes

PROTOCOL = "digits-v1-3fa9c2d1"
MEASUREMENTS = ("flops", "latency", "kernels", "memory", "quality")
STEP_GMACS = 0.01427
_ROWS = (
    "755557", "262227", "717747", "717717", "557711", "747717", "747757", "711222", "757757", "757717",
)  # fmt: skip


@dataclass(frozen=True)
class Dynamic:
    """Which parts of a made-up cell are switched: width by timestep (TDW), tokens by content (SDT)."""

    width: bool = True
    tokens: bool = True


@dataclass(frozen=True)
class Flexible:
    """Patch size a step of a made-up cell, of both branches; ``agreement``: its sizes are compared too."""

    patch: tuple[int, ...]
    guide: tuple[int, ...] | None = None
    sizes: tuple[int, ...] = (2, 4)
    agreement: bool = False

    def shares(self, plain: bool = False) -> list[float]:
        """Compute of every step as a share of one at the pre-trained size; ``plain``: without what all sizes pay."""
        fixed = 0.0 if plain else 0.01

        def share(size: int) -> float:
            return fixed + (1 - fixed) * (self.sizes[0] / size) ** 2

        return [(share(a) + share(b)) / 2 for a, b in zip(self.patch, self.guide or self.patch, strict=True)]


@dataclass(frozen=True)
class Planned:
    """A cell of a made-up plan: its spec and, for measurements that fail, how."""

    spec: CellSpec
    frechet: float = 3.0
    failures: dict[str, Failure] = field(default_factory=dict)
    skip: frozenset[str] = frozenset()
    dynamic: Dynamic | None = None
    flexible: Flexible | None = None


def identity_of(cell: str, measurement: str) -> str:
    """A content address that depends on the names alone."""
    return hashlib.sha256(f"{cell}/{measurement}".encode()).hexdigest()


def digits_cells() -> list[Planned]:
    """Eight good cells, one cost-only cell, and one failure each of 'error', 'not-finite' and 'timeout'."""
    cells = []
    for sampler, steps in (("ddpm", 50), ("ddim", 50), ("ddim", 25), ("ddim", 10)):
        for guidance in (1.0, 1.5):
            name = f"{sampler}-{steps}" + ("" if guidance == 1.0 else f"-g{guidance:g}")
            frechet = 2.1 + 14 / steps + (0.35 if sampler == "ddim" else 0.0) - 0.4 * (guidance > 1)
            cells.append(Planned(spec(name, sampler, steps, guidance), frechet))
    cells.append(Planned(spec("dydit-half-ddim-25", "ddim", 25, 1.0, cost_only=True)))
    trace = 'Traceback (most recent call last):\n  File "model.py", line 9, in forward\nRuntimeError: shapes'
    broken = Failure(
        kind="error",
        message="RuntimeError: mat1 and mat2 shapes cannot be multiplied (16x48 and 64x64)",
        traceback=trace,
    )
    cells.append(Planned(spec("merged-ddim-25", "ddim", 25, 1.0), failures=dict.fromkeys(MEASUREMENTS, broken)))
    diverged = Failure(kind="not-finite", message="samples of indices 300–399 hold NaN from timestep 842 on")
    cells.append(Planned(spec("ddim-5", "ddim", 5, 1.0), failures={"quality": diverged}))
    late = Failure(kind="timeout", message="stopped after 60 s (limits.timeout_s)")
    cells.append(
        Planned(spec("ddpm-250", "ddpm", 250, 1.0), failures={"latency": late, "quality": late, "kernels": late})
    )
    return cells


def dynamic_cells() -> list[Planned]:
    """A static baseline and a static cell of fewer steps; TDW and SDT together (also guided), each alone, imposed."""
    imposed = dynamic_spec("dydit-imposed", cost_only=True, config={"activity": {"target": 0.5}})
    return [
        Planned(spec("ddpm-50", "ddpm", 50, 1.0), 2.4),
        Planned(spec("ddim-10", "ddim", 10, 1.0), 3.6),
        Planned(dynamic_spec("dydit-0.5"), 2.5, dynamic=Dynamic()),
        Planned(dynamic_spec("dydit-0.5-g1.5", guidance=1.5), 2.2, dynamic=Dynamic()),
        Planned(dynamic_spec("dydit-tdw-0.5"), 2.6, dynamic=Dynamic(tokens=False)),
        Planned(dynamic_spec("dydit-sdt-0.5"), 3.1, dynamic=Dynamic(width=False)),
        Planned(imposed, dynamic=Dynamic()),
    ]


def dynamic_spec(
    cell: str, *, guidance: float = 1.0, cost_only: bool = False, config: dict[str, Any] | None = None
) -> CellSpec:
    """A dynamic cell on the digits data, sampled as the baseline is."""
    static = spec(cell, "ddpm", 50, guidance)
    weights = None if cost_only else "zoo:dydit-digits"
    imposed = "activity" if config else ""
    changes = {"method": "dydit-digits", "weights": weights, "cost_only": cost_only, "imposed": imposed}
    return static.model_copy(update={**changes, "config": config or {}})


def flexible_cells() -> list[Planned]:
    """A static baseline; one model at five weak-first schedules, in two other orders, guided, and at ten steps."""
    cells = [Planned(spec("ddpm-50", "ddpm", 50, 1.0), 2.4)]
    for percent, weak in ((100, 0), (75, 17), (64, 24), (50, 33), (40, 40)):
        patch = (4,) * weak + (2,) * (50 - weak)
        cells.append(flexible_cell(f"flexi-{percent}", Flexible(patch, agreement=percent == 64), 2.42 + 0.004 * weak))
    mixed = tuple(4 if step % 2 == 0 and step < 48 else 2 for step in range(50))
    cells.append(flexible_cell("flexi-64-last", Flexible((2,) * 26 + (4,) * 24), 3.4))
    cells.append(flexible_cell("flexi-64-interleaved", Flexible(mixed), 2.62))
    guided = Flexible((4,) * 30 + (2,) * 20, (4,) * 45 + (2,) * 5, agreement=True)
    cells.append(flexible_cell("flexi-20-5-g1.5", guided, 2.3, guidance=1.5))
    three = Flexible((8,) * 3 + (4,) * 3 + (2,) * 4, sizes=(2, 4, 8), agreement=True)
    return [*cells, flexible_cell("flexi-8-ddim-10", three, 3.8, sampler="ddim")]


def flexible_cell(
    cell: str, flexible: Flexible, frechet: float = 3.0, *, guidance: float = 1.0, sampler: str = "ddpm", **more: Any
) -> Planned:
    """A cell of a flexible model on the digits data, with as many steps as its schedule. ``more``: of its spec."""
    measure = (*MEASUREMENTS, "agreement") if flexible.agreement else MEASUREMENTS
    changes = {"method": "flexidit-digits", "weights": "zoo:flexidit-digits", "measure": measure, **more}
    made = spec(cell, sampler, len(flexible.patch), guidance).model_copy(update=changes)
    return Planned(made, frechet, flexible=flexible)


def spec(cell: str, sampler: str, steps: int, guidance: float, cost_only: bool = False) -> CellSpec:
    """A cell on the digits data."""
    return CellSpec(
        cell=cell,
        method="dydit-digits" if cost_only else "dit-digits",
        weights=None if cost_only else "zoo:dit-digits",
        sampler=sampler,
        steps=steps,
        guidance_scale=guidance,
        dataset="digits",
        measure=MEASUREMENTS,
        cost_only=cost_only,
    )


def write_run(
    folder: Path,
    cells: list[Planned],
    *,
    title: str = "",
    description: str = "",
    baseline: str | None = "ddpm-50",
) -> Path:
    """Write a whole run's folder and return it."""
    store = RunStore(folder)
    store.write_plan(
        {
            "suite": "digits",
            "title": title or "Samplers and steps on the digits",
            "description": description
            or "One small class-conditional transformer; what fewer steps, a new sampler and guidance give.",
            "baseline": baseline,
            "command": "ditbench run digits --out results/digits",
            "cells": [
                {
                    "name": cell.spec.cell,
                    "spec": cell.spec.model_dump(mode="json"),
                    "measurements": {name: identity_of(cell.spec.cell, name) for name in cell.spec.measure},
                }
                for cell in cells
            ],
        }
    )
    write_json(folder / "environment.json", ENVIRONMENT)
    for place, cell in enumerate(cells):
        for name in cell.spec.measure:
            if name not in cell.skip:
                store.commit(_record(store, cell, name, place, baseline))
    return folder


ENVIRONMENT: dict[str, Any] = {
    "cpu": "AMD EPYC 7763 64-Core Processor",
    "cores": 2,
    "threads": 2,
    "memory_gib": 7.8,
    "gpu": None,
    "os": "Linux-6.8.0-45-generic-x86_64-with-glibc2.36",
    "python": "3.11.2",
    "versions": {
        "torch": "2.13.0+cpu",
        "numpy": "2.4.6",
        "fvcore": "0.1.5.post20221221",
        "ditbench": "0.1.0",
    },
    "git": "0f3c1e5d9a7b4c2e8f60a1b2c3d4e5f60718293a+dirty",
    "deterministic": True,
}


def _record(store: RunStore, cell: Planned, measurement: str, place: int, baseline: str | None) -> Record:
    values: dict[str, Quantity] = {}
    detail: dict[str, Any] = {}
    failure = cell.failures.get(measurement)
    if failure is None:
        values, detail = _MAKERS[measurement](store, cell, baseline)
    name = cell.spec.cell
    return Record(
        identity=identity_of(name, measurement),
        suite="digits",
        spec=cell.spec,
        measurement=measurement,
        options={"batch": 8},
        status="failed" if failure else "ok",
        values=values,
        detail=detail,
        protocol=PROTOCOL if measurement == "quality" else None,
        failure=failure,
        provenance=Provenance(
            command=f"ditbench run suites/digits.yaml --only {name} --out results/digits-reference-two-cores",
            started=f"2026-03-01T12:{place:02d}:{10 * list(_MAKERS).index(measurement):02d}Z",
            seconds=12.5,
            seed=0,
            device=cell.spec.device,
            device_name="AMD EPYC 7763 64-Core Processor",
            threads=2,
            versions={"python": "3.11.2", "torch": "2.13.0+cpu", "numpy": "2.4.6", "ditbench": "0.1.0"},
            git="0f3c1e5d9a7b4c2e8f60a1b2c3d4e5f60718293a+dirty",
            weights_sha256="ab" * 32,
        ),
    )


def _exact(value: float, unit: str) -> Quantity:
    return Quantity(value=value, unit=unit, interval="exact count")


def _around(value: float, unit: str, share: float, how: str) -> Quantity:
    return Quantity(value=value, unit=unit, low=value * (1 - share), high=value * (1 + 1.4 * share), interval=how)


LAYERS, HEADS = 6, 6
ROUTER_SHARE = 0.012


def shares_of(cell: Planned) -> dict[str, list[list[float]]]:
    """Part -> shares by step and layer: little is on in noise, more towards the image; middle layers close first."""
    if cell.dynamic is None:
        return {}
    steps = cell.spec.steps

    def shares(least: float, most: float, levels: int) -> list[list[float]]:
        grid = []
        for step in range(steps):
            ramp = least + (most - least) * step / max(steps - 1, 1)
            layers = [ramp + 0.16 * math.cos(2 * math.pi * layer / (LAYERS - 1)) for layer in range(LAYERS)]
            grid.append([min(max(math.ceil(levels * share), 1), levels) / levels for share in layers])
        return grid

    width = {"attention heads": shares(0.15, 0.85, HEADS), "MLP channel groups": shares(0.3, 0.9, 8)}
    return (width if cell.dynamic.width else {}) | ({"tokens": shares(0.45, 0.95, 1000)} if cell.dynamic.tokens else {})


def _step_shares(cell: Planned) -> list[float]:
    """Compute of every step as a share of the static model's."""
    if cell.flexible is not None:
        return cell.flexible.shares()
    stored = shares_of(cell)
    if not stored:
        return [1.0] * cell.spec.steps
    means = [
        [sum(layers) / LAYERS for layers in stored[part]] if part in stored else [1.0] * cell.spec.steps
        for part in ("attention heads", "MLP channel groups", "tokens")
    ]
    shares = zip(*means, strict=True)
    return [0.08 + 0.3 * heads + 0.61 * groups * tokens + ROUTER_SHARE for heads, groups, tokens in shares]


def _step_gmacs(cell: Planned) -> float:
    if cell.dynamic is not None or cell.flexible is not None:
        return STEP_GMACS * sum(_step_shares(cell)) / cell.spec.steps
    return STEP_GMACS * (0.55 if cell.spec.cost_only else 1.0)


def _rows(cell: Planned) -> int:
    return 2 if cell.spec.guidance_scale != 1.0 else 1


def _flops(store: RunStore, cell: Planned, baseline: str | None) -> tuple[dict[str, Quantity], dict[str, Any]]:
    steps, rows, one = cell.spec.steps, _rows(cell), _step_gmacs(cell)
    profile = []
    for step in range(steps):
        bend = 1 + 0.35 * math.cos(math.pi * step / max(steps - 1, 1)) if cell.spec.cost_only else 1.0
        timestep = _timesteps(steps)[step]
        if cell.dynamic is not None or cell.flexible is not None:
            bend = STEP_GMACS * _step_shares(cell)[step] / one
        profile.append({"step": step, "timestep": timestep, "gmacs": one * rows * bend, "rows": rows})
    values = {
        "gmacs_step": _exact(one, "GMAC"),
        "gmacs_image": _exact(sum(entry["gmacs"] for entry in profile), "GMAC"),
        "params": _exact(1_237_504, "1"),
    }
    shares = {"linear": 0.92, "attention": 0.06, "conv": 0.005, "layer_norm": 0.015}
    detail = {
        "convention": "fvcore on what runs, fused attention counted by its two products.",
        "by_operator": {name: share * one for name, share in shares.items()},
        "profile": profile,
        "distinct_plans": 1,
    }
    if cell.dynamic is not None:
        names = ["width routers"] * cell.dynamic.width + ["token routers"] * cell.dynamic.tokens
        detail |= {
            "facets": {
                "timesteps": _timesteps(steps),
                "shares": [{"name": name, "values": values, **notes(name)} for name, values in shares_of(cell).items()],
                "labels": [],
            },
            "parts": {name: STEP_GMACS * ROUTER_SHARE / len(names) for name in names},
        }
        if cell.dynamic.tokens:
            how = "95 % t interval over 100 samples"
            values |= {name: _around(values[name].value, "GMAC", 0.002, how) for name in ("gmacs_step", "gmacs_image")}
            detail |= {"probe": {"samples": 100}, "token_maps": _token_maps(store, cell)}
    if cell.flexible is not None:
        detail |= _sizes(cell.flexible)
    return values, detail


def _timesteps(steps: int) -> list[int]:
    return [round(999 * (steps - 1 - step) / max(steps - 1, 1)) for step in range(steps)]


def _sizes(flexible: Flexible) -> dict[str, Any]:
    """A patch size a step, and the compute that it leaves."""
    steps = len(flexible.patch)
    labels = {
        "name": "patch size",
        "values": [str(size) for size in flexible.patch],
        "guidance": [str(size) for size in flexible.guide] if flexible.guide else None,
        "levels": [str(size) for size in flexible.sizes],
        **notes("patch size"),
    }
    compute = {
        "of": f"patch size {flexible.sizes[0]} throughout",
        "share": sum(flexible.shares()) / steps,
        "by_convention": {"adaLN excluded, as in arXiv 2502.20126": sum(flexible.shares(plain=True)) / steps},
    }
    return {"facets": {"timesteps": _timesteps(steps), "shares": [], "labels": [labels]}, "compute": compute}


def _token_maps(store: RunStore, cell: Planned) -> str:
    """Twelve finished digits and six timesteps; tokens on the strokes are kept more often. Path inside the run."""
    identity = identity_of(cell.spec.cell, "flops")
    path = store.samples_folder(identity) / "token_maps.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(int(identity[:8], 16))
    labels = np.arange(12) % 10
    images = np.stack([_digit(int(label), random, 12.0) for label in labels])
    bright = images[..., 0].reshape(12, 4, 2, 4, 2).mean(axis=(2, 4)) / 255
    timesteps = np.array([999.0, 799.0, 599.0, 400.0, 200.0, 0.0])
    kept = [
        np.clip(0.3 + 0.1 * place + 0.16 * place * bright + random.normal(0, 0.1, bright.shape), 0, 1)
        for place in range(len(timesteps))
    ]
    shares = (np.stack(kept) * LAYERS).round().astype(np.float32) / LAYERS
    np.savez(path, images=images, labels=labels, timesteps=timesteps, kept=shares)
    return str(path.relative_to(store.folder))


def _call_ms(cell: Planned) -> float:
    if cell.dynamic is not None:
        # Half of the promise arrives, and tokens cost more to pick than channels to slice.
        share = sum(_step_shares(cell)) / cell.spec.steps
        return 9.3 * (1 + 0.82 * (_rows(cell) - 1)) * (share + 0.12 + 0.2 * cell.dynamic.tokens)
    if cell.flexible is not None:
        return 9.3 * (1 + 0.82 * (_rows(cell) - 1)) * (sum(_step_shares(cell)) / cell.spec.steps + 0.05)
    return 9.3 * (1 + 0.82 * (_rows(cell) - 1)) * (0.71 if cell.spec.cost_only else 1.0)


def _latency(store: RunStore, cell: Planned, baseline: str | None) -> tuple[dict[str, Quantity], dict[str, Any]]:
    call = _call_ms(cell)
    prepare = 14.2 if cell.dynamic is not None and cell.dynamic.width else 0.0
    prepare = 0.9 * len(cell.flexible.sizes) if cell.flexible is not None else prepare
    layouts = _layouts(cell, call)
    sample = call * cell.spec.steps + 3.1 + prepare
    how = "order statistics of the median"
    values = {
        "latency_ms": _around(call, "ms", 0.008, how),
        "sample_ms": _around(sample, "ms", 0.012, how),
        "image_ms": _around(sample / 8, "ms", 0.012, how),
        "images_per_s": _around(8000 / sample, "images/s", 0.012, how),
    }
    if cell.dynamic is not None or cell.flexible is not None:
        values["prepare_ms"] = _around(prepare, "ms", 0.05, how)
    if baseline is not None and cell.spec.cell != baseline:
        values["speedup"] = _around((9.3 * 50 + 3.1) / sample, "1", 0.015, "95% t interval over rounds' ratios")

    def level(median: float, n: int) -> dict[str, Any]:
        ends = {"low_ms": median * 0.992, "high_ms": median * 1.011}
        spread = {"q1_ms": median * 0.985, "q3_ms": median * 1.03, "minimum_ms": median * 0.97}
        p90 = median * 1.08 if n >= 64 else None
        common = {"rows": 8 * _rows(cell), "guided": _rows(cell) == 2, "n": n}
        return common | {"median_ms": median} | ends | spread | {"p90_ms": p90}

    detail = {
        "batch": 8,
        "baseline": baseline,
        "order": "A B B A",
        "speedup_level": "sample",
        "levels": {"step": level(call, 240), "sample": level(sample, 12)},
        "cold": {"load_ms": 41.5, "first_call_ms": None if layouts else 66.0 + call},
        "choices_ms": layouts,
        "choices_about": "The counted MACs are those of separate." if layouts else "",
        "gap_share": 0.27 if cell.spec.cost_only else 0.06,
        "launch_bound": cell.spec.cost_only,
        "conditions": {"attention": "math", "tf32": False, "warmup_s": 1.0},
    }
    return values, detail


def _layouts(cell: Planned, call: float) -> dict[str, dict[str, float]]:
    """Milliseconds of a guided step for every pair of unequal sizes; packing the coarse sequences is the fastest."""
    flexible = cell.flexible
    if flexible is None or flexible.guide is None:
        return {}
    pairs = dict.fromkeys((a, b) for a, b in zip(flexible.patch, flexible.guide, strict=True) if a != b)
    shares = {"separate": 1.45, "padded": 1.6, "joined": 1.12, "packed": 1.04}
    return {
        f"patch {a}, guidance {b}": {name: call * share * (1 + 0.1 * (b == 8)) for name, share in shares.items()}
        for a, b in pairs
    }


def _kernels(store: RunStore, cell: Planned, baseline: str | None) -> tuple[dict[str, Quantity], dict[str, Any]]:
    wall = _call_ms(cell) * 1.07
    gap = 0.27 if cell.spec.cost_only else 0.06
    shares = {
        "linear": 0.58,
        "attention": 0.14,
        "norm": 0.07,
        "elementwise": 0.13,
        "conv": 0.01,
        "copy": 0.04,
    }
    if cell.dynamic is not None:
        shares = {"linear": 0.5, "attention": 0.12, "norm": 0.07, "elementwise": 0.13, "conv": 0.01, "copy": 0.04}
        shares |= {"router": 0.04, "gather": 0.06} if cell.dynamic.tokens else {"norm": 0.17}
    classes = [
        {"class": name, "ms": wall * share * (1 - gap) / 0.97, "share": share * (1 - gap) / 0.97, "calls": 24}
        for name, share in shares.items()
    ]
    classes.append({"class": "gap", "ms": wall * gap, "share": gap, "calls": 0})
    values = {
        "gap_share": _exact(gap, "1"),
        "device_ms": _exact(wall * (1 - gap), "ms"),
        "wall_ms": _exact(wall, "ms"),
    }
    top = [{"name": "aten::addmm", "class": "linear", "ms": wall * 0.5, "calls": 24}]
    return values, {"batch": 8, "rows": 8 * _rows(cell), "calls": 8, "classes": classes, "top": top}


def _memory(store: RunStore, cell: Planned, baseline: str | None) -> tuple[dict[str, Quantity], dict[str, Any]]:
    peak = 31.4 + 9.1 * _rows(cell)
    prepared = {} if cell.dynamic is None else {"prepared_mib": _exact(3.3 * cell.dynamic.width, "MiB")}
    if cell.flexible is not None:
        prepared = {"prepared_mib": _exact(0.2 * len(cell.flexible.sizes), "MiB")}
    return {
        **prepared,
        "peak_mib": _exact(peak, "MiB"),
        "weights_mib": _exact(4.7, "MiB"),
        "activations_mib": _exact(peak - 4.7, "MiB"),
    }, {"batch": 8}


def _quality(store: RunStore, cell: Planned, baseline: str | None) -> tuple[dict[str, Quantity], dict[str, Any]]:
    far = cell.frechet
    how = "10-block jackknife"
    values = {
        "frechet": _around(far, "1", 0.04, how),
        "kid": Quantity(value=0.0004 * far - 0.0007, unit="1", interval="no interval: one subset"),
        "precision": _around(0.98 - 0.03 * far, "1", 0.01, how),
        "recall": _around(0.9 - 0.02 * far, "1", 0.01, how),
        "accuracy": _around(0.99 - 0.01 * far, "1", 0.005, how),
    }
    identity = identity_of(cell.spec.cell, "quality")
    preview = store.samples_folder(identity) / "preview.npz"
    preview.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(int(identity[:8], 16))
    labels = np.arange(40) % 10
    predicted = np.where(random.random(40) < 0.02 * far, (labels + 3) % 10, labels)
    images = np.stack([_digit(int(label), random, 6.0 * far) for label in labels])
    np.savez(preview, images=images, labels=labels, predicted=predicted)
    detail = {
        "samples": 1000,
        "reference_samples": 1797,
        "preview": str(preview.relative_to(store.folder)),
        "accuracy_by_class": [round(0.99 - 0.004 * far * (digit % 4), 4) for digit in range(10)],
    }
    return values, detail


def _agreement(store: RunStore, cell: Planned, baseline: str | None) -> tuple[dict[str, Quantity], dict[str, Any]]:
    """Sizes differ little in noise and more towards the image; the coarser, the more."""
    assert cell.flexible is not None
    steps = len(cell.flexible.patch)
    powerful, *weak = cell.flexible.sizes
    curves = {}
    for size in weak:
        mean = [0.004 * size * (1 + 12 * (step / max(steps - 1, 1)) ** 3) for step in range(steps)]
        curves[f"patch size {size}"] = {
            "mean": mean,
            "low": [figure * 0.92 for figure in mean],
            "high": [figure * 1.1 for figure in mean],
        }
    every = [figure for curve in curves.values() for figure in curve["mean"]]
    values = {"difference": _around(sum(every) / len(every), "1", 0.03, "95 % bootstrap over 64 samples")}
    reference = f"patch size {powerful}"
    return values, {"timesteps": _timesteps(steps), "reference": reference, "samples": 64, "variants": curves}


def _digit(label: int, random: np.random.Generator, noise: float) -> np.ndarray[Any, Any]:
    """An 8 x 8 x 1 uint8 picture of a digit, from a 3 x 6 glyph (one octal digit a line)."""
    canvas = np.zeros((8, 8))
    for line, bits in enumerate(_ROWS[label]):
        for place, bit in enumerate(f"{int(bits):03b}"):
            canvas[1 + line, 2 + place] = 235.0 * int(bit)
    canvas += random.normal(0, noise, canvas.shape)
    return np.clip(canvas, 0, 255).astype(np.uint8)[..., None]


_MAKERS = {
    **{"flops": _flops, "latency": _latency, "kernels": _kernels, "memory": _memory, "quality": _quality},
    "agreement": _agreement,
}

_SIZES = (
    ("dit-s-2", 6.06), ("dit-b-2", 23.02), ("dit-l-2", 80.73), ("dit-xl-2", 118.6887),
    ("dit-s-4", 1.41), ("dit-b-4", 5.56), ("dit-l-4", 19.70), ("dit-xl-4", 29.05),
    ("dit-xl-8", 7.39), ("sit-xl-2", 118.6887), ("dydit-xl-2", 57.88),
    ("flexidit-xl-2", 76.12), ("latte-xl-2", 5572.7),
)  # fmt: skip


def write_flops_run(folder: Path) -> Path:
    """Thirteen full-size cells that are only counted: no times, no quality, no baseline."""
    cells = [
        CellSpec(cell=name, method=name, sampler="ddpm", steps=250, measure=("flops",), cost_only=True)
        for name, _ in _SIZES
    ]
    write_run(
        folder,
        [Planned(cell) for cell in cells],
        title="Multiply–accumulates of the full-size models",
        description="Counts only: random weights, one forward each.",
        baseline=None,
    )
    store = RunStore(folder)
    for cell, (name, gmacs) in zip(cells, _SIZES, strict=True):
        path = store.record_path(identity_of(name, "flops"))
        record = store.load(identity_of(name, "flops"))
        assert record is not None
        path.unlink()
        share = gmacs / (STEP_GMACS * 0.55)
        values = {
            key: quantity if key == "params" else _exact(gmacs if key == "gmacs_step" else gmacs * cell.steps, "GMAC")
            for key, quantity in record.values.items()
        }
        profile = [entry | {"gmacs": gmacs} for entry in record.detail["profile"]]
        operators = {key: value * share for key, value in record.detail["by_operator"].items()}
        detail = record.detail | {"profile": profile, "by_operator": operators}
        store.commit(record.model_copy(update={"values": values, "detail": detail}))
    return folder


def write_failed_run(folder: Path) -> Path:
    """Three cells, every measurement of which failed."""
    kinds = ("error", "out-of-memory", "crash")
    cells = [
        Planned(
            spec(f"ddim-{steps}", "ddim", steps, 1.0),
            failures=dict.fromkeys(
                MEASUREMENTS,
                Failure(kind=kind, message="model.safetensors lacks key 'blocks.0.attn.qkv.weight'"),
            ),
        )
        for steps, kind in zip((50, 25, 10), kinds, strict=True)
    ]
    return write_run(folder, cells, title="A run in which nothing worked", baseline="ddim-50")
