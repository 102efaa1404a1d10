"""Energy by a device's counter, its windows, and what the report says of heat and power."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from device_cells import spec
from torch import Tensor

from ditbench.harness.measure.energy import PackageCounter, measure_energy
from ditbench.harness.measure.nvml import NotAvailableError
from ditbench.harness.measure.options import EnergyOptions
from ditbench.harness.sample.generate import bind
from ditbench.harness.store.records import Provenance, Quantity, Record
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.energy import energy_table
from ditbench.report.tables.table import Table
from ditbench.report.tables.timing import timing_table

# Energy


class Clock:
    """Time that passes only in loops and sleep; a meter that takes 100 W while loops run and 20 W when idle."""

    counts = "a fake board"

    def __init__(self, loop_s: float = 3.0) -> None:
        self.now, self.spent, self.loop_s = 0.0, 1e6, loop_s

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.spent += 20 * seconds

    def joules(self) -> float:
        return self.spent


def energy(clock: Clock, monkeypatch, watts=lambda loop: 100.0, **options: float):
    loops: list[int] = []

    def call(index: int) -> Tensor:
        loops.append(index)
        clock.now += clock.loop_s
        clock.spent += watts(len(loops)) * clock.loop_s
        return torch.zeros(1)

    monkeypatch.setattr("ditbench.harness.measure.energy.sample_call", lambda cell, batch: call)
    chosen = EnergyOptions(batch=4, **options)
    return measure_energy(bind(spec(), None), chosen, lambda device: clock, clock, clock.sleep), loops


def test_energy_of_an_image_and_what_of_it_is_above_idle(monkeypatch):
    result, _ = energy(Clock(), monkeypatch)
    values = {name: (quantity.value, quantity.unit) for name, quantity in result.values.items()}
    assert values["energy_image_j"] == (pytest.approx(100 * 3 / 4), "J")
    assert values["energy_above_idle_j"] == (pytest.approx(80 * 3 / 4), "J")
    assert values["power_w"] == (pytest.approx(100), "W") and values["idle_w"] == (pytest.approx(20), "W")


def test_windows_hold_whole_loops_and_are_no_shorter_than_asked(monkeypatch):
    result, loops = energy(Clock(), monkeypatch, window_s=20.0)
    windows = result.detail["windows"]
    assert [window["loops"] for window in windows] == [7, 7, 7]
    assert all(window["seconds"] >= 20 for window in windows) and len(loops) == 22, "one before the windows"


def test_the_spread_of_windows_makes_the_interval(monkeypatch):
    result, _ = energy(Clock(), monkeypatch, watts=lambda loop: 100.0 + loop)
    image = result.values["energy_image_j"]
    assert image.low < image.value < image.high and "t interval over 3 windows" in image.interval
    equal = energy(Clock(), monkeypatch)[0].values["energy_image_j"]
    assert equal.low is None and "equal" in equal.interval


def test_energy_that_no_device_counts_is_a_record_with_the_reason():
    def none(device: str):
        raise NotAvailableError("this machine counts nothing")

    result = measure_energy(bind(spec(), None), EnergyOptions(), none)
    assert not result.values and result.detail["not_available"] == "this machine counts nothing"


def zone(root: Path, name: str, label: str, microjoules: int, wrap: int = 1_000_000) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(label + "\n")
    (folder / "max_energy_range_uj").write_text(f"{wrap}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder


def test_packages_add_up_and_a_counter_that_begins_anew_loses_nothing(tmp_path):
    first = zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 100_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 5)
    zone(tmp_path, "intel-rapl:2", "psys", 5)
    counter = PackageCounter(tmp_path)
    assert counter.joules() == 0 and "2 CPU packages" in counter.counts
    (first / "energy_uj").write_text("200000")
    (second / "energy_uj").write_text("150000")
    assert counter.joules() == pytest.approx(0.3 + 0.05)
    assert counter.joules() == pytest.approx(0.35)


def test_packages_that_nobody_may_read_are_not_available(tmp_path):
    with pytest.raises(NotAvailableError, match="no CPU package counts its energy"):
        PackageCounter(tmp_path / "nothing")
    (zone(tmp_path, "intel-rapl:0", "package-0", 1) / "energy_uj").unlink()
    with pytest.raises(NotAvailableError, match="energy_uj cannot be read"):
        PackageCounter(tmp_path)


# The report


def record(measurement: str, values: dict[str, Quantity], detail: dict[str, object]) -> Record:
    made = Provenance(
        command="", started="2026-01-01T00:00:00Z", seconds=1.0, seed=0, device="cuda", device_name="GPU", threads=1,
        versions={}, git=None, weights_sha256=None,
    )  # fmt: skip
    return Record(
        identity="0" * 64, suite="s", spec=spec(), measurement=measurement, status="ok", values=values, detail=detail,
        provenance=made,
    )  # fmt: skip


def view_of(**records: Record) -> RunView:
    return RunView(Path(), "s", "", "", "", None, (Row("c", spec(), tuple(records), records),))


def shown(table: Table | None, key: str) -> list[str]:
    assert table is not None
    return next([value.shown for value in column.values] for column in table.columns if column.key == key)


def test_the_energy_table_has_figures_or_the_reason_why_there_are_none(monkeypatch):
    measured, _ = energy(Clock(), monkeypatch, watts=lambda loop: 100.0 + loop)
    table = energy_table(view_of(energy=record("energy", measured.values, measured.detail)))
    assert shown(table, "idle_w") == ["20.0"] and "Counted: a fake board." in table.notes[0]
    assert "not_available" not in {column.key for column in table.columns}
    table = energy_table(view_of(energy=record("energy", {}, {"batch": 8, "not_available": "no counter here"})))
    assert shown(table, "not_available") == ["no counter here"]
    assert energy_table(view_of()) is None


def test_the_timing_table_marks_what_heat_and_launching_did_and_says_what_to_try():
    level = {"rows": 16, "n": 20, "median_ms": 5.0}
    detail = {
        "batch": 8,
        "levels": {"step": level, "image": level},
        "cold": {"load_ms": 1.0, "capture_ms": 12.5},
        "gap_share": 0.4,
        "launch_bound": True,
        "throttled": True,
    }
    values = {"speedup_total": Quantity(value=1.25, unit="1", interval="")}
    counts = {
        "kernels": Quantity(value=560, unit="1", interval=""),
        "kernel_ms": Quantity(value=0.01, unit="ms", interval=""),
    }
    rows = {"latency": record("latency", values, detail), "kernels": record("kernels", counts, {})}
    table = timing_table(view_of(**rows))
    assert table is not None and "launch-bound, throttled" in table.columns[0].values[0].tag
    notes = " ".join(table.notes)
    assert "mode: graph" in notes and "cool device" in notes and "the decoding of its latents" in notes
    assert shown(table, "kernels") == ["560", ""] and shown(table, "speedup_total") == ["", "1.25"]
    assert shown(table, "capture_ms") == ["12.5", ""]
    cool = {**detail, "launch_bound": False, "throttled": False}
    quiet = timing_table(view_of(latency=record("latency", {}, cool)))
    assert quiet is not None and "Throttled" not in " ".join(quiet.notes)
