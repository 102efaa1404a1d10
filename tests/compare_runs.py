"""Runs made by hand for the tests of comparing: invented figures with noise of their own."""

from __future__ import annotations

import hashlib
import json
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from ditbench.cli.compare import show_compare
from ditbench.harness.stats.compare import Change
from ditbench.harness.stats.intervals import jackknife_interval
from ditbench.harness.store.records import CellSpec, Failure, Provenance, Quantity, Record
from ditbench.harness.store.store import RunStore, write_json

ROOT = Path(__file__).parent.parent
QUICK = ROOT / "results" / "quick-cpu"
BLOCKS = 10


def width(change: Change) -> float:
    assert change.low is not None and change.high is not None
    return change.high - change.low


ENVIRONMENT: dict[str, Any] = {
    "device": "cpu",
    "device_name": "Some CPU",
    "cpu": "Some CPU",
    "machine": "x86_64",
    "physical_cores": 2,
    "python": "3.11.2",
    "versions": {"torch": "2.13.0+cpu"},
    "gpu": None,
    "git": "0123456789abcdef+dirty",
}
PROTOCOL = "digits-v2-0a1b2c3d@1000"
NAMES = ("base", "fast", "slow", "guided")


@dataclass(frozen=True)
class Made:
    """A made-up cell. figures: name -> pseudo-values of its blocks; baseline_ms: of the baseline in its process."""

    figures: dict[str, tuple[float, ...]] = field(default_factory=dict)
    step_ms: float = 5.0
    baseline_ms: float = 5.0
    speedup: float = 2.0
    peak: float = 30.0
    seed: int = 0
    batch: int = 8
    by_seed: bool = False
    failed: frozenset[str] = frozenset()
    detail: dict[str, Any] = field(default_factory=dict)


def blocks(seed: int, *, mean: float = 3.0, noise: float = 0.1, own: float = 0.02) -> dict[str, tuple[float, ...]]:
    """frechet and precision; what blocks have in common comes from the noise, which all sides share."""
    shared = np.random.default_rng(0).normal(0, noise, (2, BLOCKS))
    drawn = shared + np.random.default_rng(seed).normal(0, own, (2, BLOCKS))
    return {"frechet": tuple(mean + drawn[0]), "precision": tuple(0.8 + 0.1 * drawn[1])}


def made_run(seed: int) -> dict[str, Made]:
    """Four cells whose processes timed the baseline within 2 % of each other."""
    return {
        name: Made(blocks(10 * seed + place), step_ms=5.0 + place + 0.01 * seed, baseline_ms=5.0 + 0.05 * place)
        for place, name in enumerate(NAMES)
    }


def write(
    folder: Path,
    cells: dict[str, Made],
    *,
    protocol: str = PROTOCOL,
    environment: dict[str, Any] | None = None,
    threads: int = 2,
    baseline_steps: int = 50,
) -> str:
    store, found = RunStore(folder), {**ENVIRONMENT, **(environment or {})}
    planned = []
    for name, cell in cells.items():
        steps = baseline_steps if name == "base" else 25
        spec = CellSpec(cell=name, method="dit-digits", sampler="ddpm", steps=steps, dataset="digits", seed=cell.seed)
        identities = {m: hashlib.sha256(f"{name}/{m}".encode()).hexdigest() for m in measurements(name, cell)}
        planned.append({"name": name, "spec": spec.model_dump(mode="json"), "measurements": identities})
        for measurement, (values, detail) in measurements(name, cell).items():
            failed = measurement in cell.failed
            store.commit(
                Record(
                    identity=identities[measurement],
                    suite="made",
                    spec=spec,
                    measurement=measurement,
                    status="failed" if failed else "ok",
                    values={} if failed else values,
                    detail={} if failed else {**detail, **cell.detail},
                    protocol=protocol if measurement == "quality" and not failed else None,
                    failure=Failure(kind="timeout", message="stopped after 60 s") if failed else None,
                    provenance=Provenance(
                        command=f"ditbench run made --only {name}",
                        started="2026-03-01T12:00:00Z",
                        seconds=1.0,
                        seed=cell.seed,
                        device="cpu",
                        device_name=found["device_name"],
                        threads=threads,
                        versions={"python": found["python"], **found["versions"]},
                        git=found["git"],
                        weights_sha256=None,
                    ),
                )
            )
    store.write_plan({"suite": "made", "baseline": "base", "command": "ditbench run made", "cells": planned})
    write_json(folder / "environment.json", found)
    return str(folder)


def measurements(name: str, cell: Made) -> dict[str, tuple[dict[str, Quantity], dict[str, Any]]]:
    def level(median: float) -> dict[str, Any]:
        return {"step": {"median_ms": median, "rounds_ms": [[median] * 4] * 3}}

    def around(value: float, unit: str, share: float) -> Quantity:
        return Quantity(value=value, unit=unit, low=value * (1 - share), high=value * (1 + share), interval="95 %")

    own = name == "base"
    times = {"latency_ms": around(cell.step_ms, "ms", 0.005)} | (
        {} if own else {"speedup": around(cell.speedup, "1", 0.02)}
    )
    timing = {
        "batch": cell.batch,
        "levels": level(cell.baseline_ms if own else cell.step_ms),
        "baseline_levels": {} if own else level(cell.baseline_ms),
    }
    counts = {
        "gmacs_image": Quantity(value=0.25, unit="GMAC", interval="exact count"),
        "params": Quantity(value=1_060_424, unit="1", interval="exact count"),
    }
    peak = Quantity(value=cell.peak, unit="MiB", interval="peak of one pass; no interval")
    found = {
        "latency": (times, timing),
        "memory": ({"peak_mib": peak}, {"batch": cell.batch}),
        "flops": (counts, {}),
    }
    kind = "paired" if "psnr" in cell.figures else "quality"
    return found | ({kind: scored(cell)} if cell.figures else {})


def scored(cell: Made) -> tuple[dict[str, Quantity], dict[str, Any]]:
    values, without = {}, {}
    for name, each in cell.figures.items():
        full = float(np.mean(each))
        without[name] = [float(np.delete(each, block).mean()) for block in range(len(each))]
        estimate = jackknife_interval(full, without[name])
        values[name] = Quantity(value=full, unit="1", low=estimate.low, high=estimate.high, interval=estimate.method)
    by_seed = {name: list(each) for name, each in cell.figures.items()}
    return values, {"samples": 1000, **({"by_seed": by_seed} if cell.by_seed else {"leave_one_out": without})}


def changed(tmp_path: Path, cell: str, **changes: Any) -> tuple[str, str]:
    """Two runs of which one cell of B is changed."""
    other = made_run(2)
    other[cell] = replace(other[cell], **changes)
    return write(tmp_path / "a", made_run(1)), write(tmp_path / "b", other)


def outcome(runs: tuple[str, str], *fail_if: str, metrics: str | None = None) -> tuple[int, dict[str, Any]]:
    with redirect_stdout(StringIO()) as text:
        code = show_compare(*runs, fail_if, True, metrics)
    shown: dict[str, Any] = json.loads(text.getvalue())
    assert shown["exit_code"] == code
    return code, shown
