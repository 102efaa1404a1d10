"""The report on adaptation: seeds become one row, differences have the right sign, no page without records."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from ditbench.harness.store.records import CellSpec, Provenance, Quantity, Record
from ditbench.harness.store.store import RunStore, write_json
from ditbench.methods import older_records
from ditbench.report import adaptation
from ditbench.report.adaptation import difference, equal_pairs, groups_of, to_full, verdict
from ditbench.report.document import write_report
from ditbench.report.plots.adaptation import adaptation_picture
from ditbench.report.run_view import load_run
from ditbench.report.tables.adaptation import adaptation_table, equal_size_table
from ditbench.report.tables.table import Table
from ditbench.report.words.reading import reading_notes

sys.path.insert(0, str(Path(__file__).parent))
import report_fixtures as fixtures

T_TWO = 4.302652729911275  # Student's t at 97.5 %, two degrees of freedom: a published table's value
FULL = 1_000_000
LORA: dict[str, Any] = {"rank": 5, "experts": 1, "expert_factor": "up"}
TIMED: dict[str, Any] = {"rank": 2, "experts": 3, "expert_factor": "up"}


class Trained:
    """A made-up cell: a recipe's seed, what it adapts, and its Fréchet distance."""

    def __init__(self, cell: str, adapter: dict[str, Any] | None, seed: int, frechet: float | None, **more: Any):
        self.cell, self.adapter, self.seed, self.frechet = cell, adapter, seed, frechet
        self.method = more.pop("method", "dydit-digits")
        self.base = more.pop("base", "zoo:dit-digits")
        self.trainable = more.pop("trainable", FULL if adapter is None else 46_080)
        self.ratio = more.pop("ratio", (1.0 if adapter is None else 0.8) + 0.01 * seed)
        self.steps = more.pop("steps", 50)
        self.recipe = more

    @property
    def spec(self) -> CellSpec:
        config = {} if self.adapter is None else {"adapter": self.adapter}
        return CellSpec(
            cell=self.cell,
            method=self.method,
            config=config,
            weights=f"weights/{self.cell}.safetensors",
            weights_sha256=self.cell,
            sampler="ddpm",
            steps=self.steps,
            dataset="digits",
            measure=("training",) if self.frechet is None else ("training", "quality"),
        )

    def records(self, baseline: str) -> list[Record]:
        recipe = {
            "recipe": self.cell,
            "description": f"seed {self.seed}",
            "seed": self.seed,
            "config": self.spec.config,
            "base": self.base,
            "dataset": "digits",
            "steps": 4000,
            "batch": 128,
            **self.recipe,
        }
        way = older_records.adaptation(self.spec.config, recipe, self.adapter)
        detail = {"recipe": recipe, "adaptation": way, "full": {"trainable": FULL}}
        memory = self.trainable * 4 / 2**20
        values = {
            "parameters": quantity(FULL + self.trainable * (self.adapter is not None)),
            "trainable": quantity(self.trainable),
            "gradient_mib": quantity(memory, "MiB"),
            "optimizer_mib": quantity(2 * memory, "MiB"),
            "training_peak_mib": quantity(100 + 4 * memory, "MiB"),
            "training_image_ms": quantity(2.0 * self.ratio, "ms", 0.05),
        }
        if self.cell != baseline:
            values["training_ratio"] = quantity(self.ratio, "1", 0.05)
        records = [self._record("training", values, detail)]
        if self.frechet is not None:
            records.append(self._record("quality", {"frechet": quantity(self.frechet, "1", 0.1)}, {"samples": 1000}))
        return records

    def _record(self, measurement: str, values: dict[str, Quantity], detail: dict[str, Any]) -> Record:
        return Record(
            identity=fixtures.identity_of(self.cell, measurement),
            suite="adapt",
            spec=self.spec,
            measurement=measurement,
            status="ok",
            values=values,
            detail=detail,
            protocol="digits-v2" if measurement == "quality" else None,
            provenance=Provenance(
                command="ditbench run adapt",
                started="2026-03-01T12:00:00Z",
                seconds=1.0,
                seed=0,
                device="cpu",
                device_name="a CPU",
                threads=2,
                versions={"torch": "2.13.0"},
                git=None,
                weights_sha256=self.cell,
            ),
        )


def quantity(value: float, unit: str = "1", share: float = 0.0) -> Quantity:
    ends = {"low": value * (1 - share), "high": value * (1 + share)} if share else {}
    return Quantity(value=value, unit=unit, interval="as measured" if share else "exact count", **ends)


def written(folder: Path, cells: list[Trained], baseline: str = "full") -> Path:
    store = RunStore(folder)
    plan = [
        {
            "name": cell.cell,
            "spec": cell.spec.model_dump(mode="json"),
            "measurements": {name: fixtures.identity_of(cell.cell, name) for name in cell.spec.measure},
        }
        for cell in cells
    ]
    store.write_plan(
        {"suite": "adapt", "title": "", "description": "", "baseline": baseline, "command": "", "cells": plan}
    )
    write_json(folder / "environment.json", fixtures.ENVIRONMENT)
    for cell in cells:
        for record in cell.records(baseline):
            store.commit(record)
    return folder


def usual() -> list[Trained]:
    """One method in full, by LoRA and by TD-LoRA of the same size, three seeds each; LoRA is worse, TD-LoRA between."""
    seeds = range(3)
    names = {"full": None, "lora-5": LORA, "td-lora-2x3": TIMED}
    far = {"full": (2.0, 2.1, 2.2), "lora-5": (3.0, 3.2, 3.1), "td-lora-2x3": (2.5, 2.62, 2.58)}
    return [
        Trained(name + (f"-s{seed}" if seed else ""), adapter, seed, far[name][seed])
        for name, adapter in names.items()
        for seed in seeds
    ]


def column(table: Table | None, key: str) -> list[Any]:
    assert table is not None
    return [value.raw for value in next(column for column in table.columns if column.key == key).values]


def test_seeds_become_one_row_with_the_t_interval_over_them(tmp_path: Path) -> None:
    groups = groups_of(load_run(written(tmp_path, usual())))
    assert [(group.name, group.how, group.seeds) for group in groups] == [
        ("full", "full", (0, 1, 2)),
        ("lora-5", "LoRA r=5", (0, 1, 2)),
        ("td-lora-2x3", "TD-LoRA r=2 ×3", (0, 1, 2)),
    ]
    far, found = (3.0, 3.2, 3.1), groups[1].frechet
    half = T_TWO * stdev(far) / math.sqrt(3)
    assert found is not None and found.low is not None and found.high is not None
    assert found.value == pytest.approx(mean(far))
    assert (found.low, found.high) == (pytest.approx(mean(far) - half), pytest.approx(mean(far) + half))
    ratio = groups[1].cost("training_ratio")
    assert ratio is not None and ratio.value == pytest.approx(mean((0.8, 0.81, 0.82))) and "3 seeds" in ratio.interval


@pytest.mark.parametrize(
    "other",
    [
        {"adapter": {**LORA, "rank": 6}},
        {"adapter": LORA, "optimizer": {"rate": 0.5}},
        {"adapter": LORA, "steps": 25},
        {"adapter": LORA, "base": "zoo:other"},
        {"adapter": LORA, "method": "dit-digits"},
    ],
    ids=["rank", "learning rate", "sampling steps", "base", "method"],
)
def test_cells_that_differ_in_more_than_the_seed_are_not_merged(tmp_path: Path, other: dict[str, Any]) -> None:
    adapter = other.pop("adapter")
    cells = [Trained("lora-s0", LORA, 0, 3.0), Trained("lora-s1", adapter, 1, 3.1, **other)]
    groups = groups_of(load_run(written(tmp_path, cells, baseline="lora-s0")))
    assert [group.seeds for group in groups] == [(0,), (1,)]
    assert len({group.name for group in groups}) == 2


def test_a_seed_that_comes_twice_counts_once(tmp_path: Path) -> None:
    cells = [Trained("lora-s0", LORA, 0, 3.0), Trained("again", LORA, 0, 3.0), Trained("lora-s1", LORA, 1, 3.4)]
    (group,) = groups_of(load_run(written(tmp_path, cells, baseline="lora-s0")))
    assert [row.cell for row in group.rows] == ["lora-s0", "lora-s1"] and group.draws == {0: 3.0, 1: 3.4}


def test_a_lone_seed_has_no_interval_of_training(tmp_path: Path) -> None:
    view = load_run(written(tmp_path, [Trained("full", None, 0, 2.0), Trained("lora", LORA, 0, 3.0)]))
    frechet, ratio = groups_of(view)[1].frechet, groups_of(view)[1].cost("training_ratio")
    assert frechet is not None and frechet.low is None
    assert ratio is not None and ratio.low == pytest.approx(0.8 * 0.95), "but the timing's own"
    table = adaptation_table(view)
    assert table is not None and any("One seed" in note and "lora" in note for note in table.notes)


def test_differences_are_ours_less_the_others_and_paired_by_seed(tmp_path: Path) -> None:
    groups = groups_of(load_run(written(tmp_path, usual())))
    full, lora, timed = groups
    change = to_full(lora, groups)
    assert change is not None and change.value == pytest.approx(1.0) and verdict(change) == "worse"
    steps = (0.5, 0.58, 0.52)  # LoRA's distance less TD-LoRA's, seed by seed
    found = difference(lora, timed)
    assert found is not None and found.low is not None and found.high is not None
    half = T_TWO * stdev(steps) / math.sqrt(3)
    assert (found.value, found.low) == (pytest.approx(-mean(steps)), pytest.approx(-mean(steps) - half))
    assert verdict(found) == "better"
    back = difference(timed, lora)
    assert back is not None and back.value == -found.value and verdict(back) == "worse"
    assert to_full(full, groups) is None


def test_sides_of_other_seeds_are_compared_by_welch(tmp_path: Path) -> None:
    cells = [Trained(f"full-s{seed}", None, seed, 2.0 + 0.1 * seed) for seed in range(3)]
    cells += [Trained(f"lora-s{seed}", LORA, seed, 2.6 + 0.1 * (seed % 2)) for seed in (5, 6)]
    groups = groups_of(load_run(written(tmp_path, cells, baseline="full-s0")))
    change = to_full(groups[1], groups)
    assert change is not None and "Welch" in change.method and change.value == pytest.approx(0.55)


def test_nothing_is_called_different_without_an_interval_or_when_it_holds_zero(tmp_path: Path) -> None:
    cells = [Trained("full", None, 0, 2.0), Trained("lora", LORA, 0, 3.0)]
    groups = groups_of(load_run(written(tmp_path / "one", cells)))
    change = to_full(groups[1], groups)
    assert change is not None and change.low is None and verdict(change) == "not tested"
    noisy = [Trained(f"full-s{s}", None, s, far) for s, far in enumerate((2.0, 2.5, 2.2))]
    noisy += [Trained(f"lora-s{s}", LORA, s, far) for s, far in enumerate((2.4, 2.1, 2.5))]
    groups = groups_of(load_run(written(tmp_path / "three", noisy, baseline="full-s0")))
    change = to_full(groups[1], groups)
    assert change is not None and verdict(change) == "no difference shown"


def test_full_fine_tuning_is_looked_for_among_the_same_method_and_base(tmp_path: Path) -> None:
    cells = [
        Trained("full", None, 0, 2.0),
        Trained("other", None, 0, 1.0, method="dit-digits"),
        Trained("scratch", None, 0, 1.5, base=None),
        Trained("lora", LORA, 0, 3.0),
    ]
    groups = groups_of(load_run(written(tmp_path / "a", cells)))
    change = to_full(groups[3], groups)
    assert change is not None and change.value == pytest.approx(1.0)
    assert groups[2].how == "from scratch"
    twice = [*cells, Trained("full-longer", None, 0, 1.9, weight_decay=0.1)]
    groups = groups_of(load_run(written(tmp_path / "b", twice)))
    assert to_full(groups[3], groups) is None, "two could be meant"


def test_only_equal_sizes_and_equal_lengths_of_training_are_paired(tmp_path: Path) -> None:
    def pairs(folder: str, **more: Any) -> list[tuple[str, str]]:
        cells = [Trained("lora", LORA, 0, 3.0), Trained("td", TIMED, 0, 2.6, **more)]
        groups = groups_of(load_run(written(tmp_path / folder, cells, baseline="lora")))
        return [(a.name, b.name) for a, b in equal_pairs(groups)]

    assert pairs("same") == [("lora", "td")]
    assert pairs("near", trainable=round(46_080 * 1.009)) == [("lora", "td")]
    assert pairs("larger", trainable=round(46_080 * 1.02)) == []
    assert pairs("method", method="flexidit-digits") == []
    assert pairs("batch", batch=64) == []


def test_the_tables_say_what_the_records_do(tmp_path: Path) -> None:
    view = load_run(written(tmp_path, usual()))
    table = adaptation_table(view)
    assert column(table, "cells") == ["full", "lora-5", "td-lora-2x3"]
    assert column(table, "trainable") == [FULL, 46_080, 46_080]
    assert column(table, "share") == pytest.approx([100, 4.608, 4.608])
    assert column(table, "gradients_optimizer") == pytest.approx([12 * n / 2**20 for n in (FULL, 46_080, 46_080)])
    assert column(table, "training_ratio") == pytest.approx([1.0, 0.81, 0.81])
    assert column(table, "seeds") == [3, 3, 3]
    assert column(table, "to_full") == [None, pytest.approx(1.0), pytest.approx(mean((2.5, 2.62, 2.58)) - 2.1)]
    both = equal_size_table(view)
    assert column(both, "difference") == [pytest.approx(mean((2.5, 2.62, 2.58)) - 3.1)]
    assert column(both, "verdict") == ["better"] and column(both, "trainable") == [46_080]


def test_a_seed_without_quality_is_told(tmp_path: Path) -> None:
    cells = usual()
    cells[4].frechet = None
    view = load_run(written(tmp_path, cells))
    table = adaptation_table(view)
    assert column(table, "seeds") == [3, 2, 3]
    assert table is not None and any("lora-5 2 of 3" in note for note in table.notes)


def test_the_report_has_the_page_its_figure_and_its_notes(tmp_path: Path) -> None:
    files = write_report(written(tmp_path, usual()))
    text = files.markdown.read_text()
    page = text[text.index("## Adaptation") :]
    assert "TD-LoRA r=2 ×3" in page and "better" in page and "adaptation" in page
    assert re.search(r"\| lora-5 .*\[", page), "the interval stands in the table"
    assert {path.name for path in files.figures} >= {"adaptation.svg", "adaptation.png"}
    assert "Adaptation" in dict(reading_notes(load_run(tmp_path)))
    drawn = adaptation_picture(load_run(tmp_path))
    assert drawn is not None and "46,080 trained parameters" in drawn.alt


def test_a_run_without_training_records_has_no_page(tmp_path: Path) -> None:
    fixtures.write_run(tmp_path, fixtures.digits_cells()[:2])
    view = load_run(tmp_path)
    assert groups_of(view) == () and adaptation_table(view) is None and equal_size_table(view) is None
    assert adaptation_picture(view) is None and "Adaptation" not in dict(reading_notes(view))
    assert "## Adaptation" not in write_report(tmp_path).markdown.read_text()


def test_cells_of_other_methods_stay_out_of_the_page(tmp_path: Path) -> None:
    view = load_run(written(tmp_path, usual()))
    row = view.rows[0]
    assert adaptation.MEASUREMENT == "training" and row.records["training"].status == "ok"
    bare = [cell for cell in usual() if cell.adapter is None]
    folder = written(tmp_path / "bare", bare)
    store = RunStore(folder)
    store.record_path(fixtures.identity_of("full-s2", "training")).unlink()
    (group,) = groups_of(load_run(folder))
    assert group.seeds == (0, 1)
