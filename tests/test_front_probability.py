"""How sure a place on the front is: against brute force, exact tests and simulated runs; and how the report says it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm, t

from ditbench.harness.stats.front_probability import (
    Uncertain,
    UncertainPoint,
    front_probability,
    of_interval,
    of_leave_one_out,
    of_repeats,
)
from ditbench.harness.stats.intervals import jackknife_interval
from ditbench.harness.stats.pareto import Point, pareto_front
from ditbench.harness.store.store import RunStore
from ditbench.report.fronts import FrontProbabilities, front_probabilities, percent, unsettled
from ditbench.report.run_view import RunView, load_run
from ditbench.report.tables.fronts import front_columns
from ditbench.report.words.fronts import about_fronts, front_certainty

sys.path.insert(0, str(Path(__file__).parent))
import report_fixtures as fixtures


def point(name: str, x: float | Uncertain, y: float | Uncertain) -> UncertainPoint:
    x = x if isinstance(x, Uncertain) else Uncertain(x)
    return UncertainPoint(name, x, y if isinstance(y, Uncertain) else Uncertain(y))


def noisy(value: float, *deviations: float, source: str | None = None) -> Uncertain:
    return Uncertain(value, deviations, source)


def within(share: float, expected: float, draws: int = 4000) -> bool:
    """Whether a share of draws agrees with a probability, to four standard errors."""
    return abs(share - expected) <= 4 * np.sqrt(max(expected * (1 - expected), 1 / draws) / draws)


def test_probabilities_are_those_of_fresh_noise_drawn_and_judged_point_by_point() -> None:
    random = np.random.default_rng(2)
    x, y = random.uniform(0, 2, 7), random.uniform(0, 2, 7)
    dx, dy = random.uniform(0, 0.4, 7), random.uniform(0.1, 0.6, 7)
    found = front_probability([point(str(i), noisy(x[i], dx[i]), noisy(y[i], dy[i])) for i in range(7)])
    counts = dict.fromkeys(found, 0)
    runs = 4000
    for _ in range(runs):
        xs, ys = x + dx * random.normal(size=7), y + dy * random.normal(size=7)
        for name in pareto_front([Point(str(i), xs[i], ys[i]) for i in range(7)]).names:
            counts[name] += 1
    for name, count in counts.items():
        assert found[name] == pytest.approx(count / runs, abs=4 * np.sqrt(2 * 0.25 / runs))
    assert len([p for p in found.values() if 0.1 < p < 0.9]) >= 3


def test_of_two_points_of_one_cost_the_probability_is_that_of_their_difference() -> None:
    found = front_probability([point("a", 1, noisy(1.0, 0.3)), point("b", 1, noisy(1.2, 0.4))])
    assert within(found["a"], float(norm.cdf(0.2 / 0.5))) and found["a"] + found["b"] == pytest.approx(1)


def test_blocks_in_common_give_the_paired_t_test() -> None:
    shared, own = np.array([2.0, -1.0, 0.5, -1.5]), np.array([-0.1, 0.3, 0.25, 0.05])
    a, b = 1 + shared, 1 + shared + own
    found = front_probability([point("a", 1, of_repeats(a, "seeds")), point("b", 1, of_repeats(b, "seeds"))])
    expected = float(t.cdf(own.mean() / (own.std(ddof=1) / np.sqrt(4)), df=3))
    assert 0.8 < expected < 0.95 and within(found["a"], expected)
    apart = front_probability([point("a", 1, of_repeats(a, "one")), point("b", 1, of_repeats(b, "other"))])
    assert abs(apart["a"] - 0.5) < abs(expected - 0.5) / 2


def test_a_fixed_gap_under_a_common_error_is_never_crossed_but_under_separate_errors_it_is() -> None:
    error = tuple(np.linspace(-3.0, 3.0, 10))
    common = [
        point("good", 1, Uncertain(1.0, error, "s", 9)),
        point("bad", 1, Uncertain(1.1, error, "s", 9)),
    ]
    assert front_probability(common) == {"good": 1.0, "bad": 0.0}
    own = [replace(each, y=replace(each.y, source=None)) for each in common]
    assert 0.4 < front_probability(own)["bad"] < 0.5


def test_exact_points_have_their_place_on_the_front_ties_included() -> None:
    random = np.random.default_rng(5)
    for _ in range(40):
        grid = random.integers(0, 5, (12, 2))
        names = pareto_front([Point(str(i), *map(float, grid[i])) for i in range(12)]).names
        found = front_probability([point(str(i), *map(float, grid[i])) for i in range(12)], draws=3)
        assert found == {str(i): float(str(i) in names) for i in range(12)}


def test_cells_that_share_their_records_share_their_place() -> None:
    x, y = of_interval(1.0, 0.8, 1.3, "time", log=True), Uncertain(1.0, (0.2, 0.1), "seeds", 1)
    rival = point("rival", noisy(0.9, 0.1), noisy(1.0, 0.1))
    found = front_probability([point("a", x, y), point("b", x, y), rival])
    alone = front_probability([point("a", x, y), rival])
    assert found["a"] == found["b"] == alone["a"] and 0.1 < found["a"] < 0.9


def test_what_is_far_from_all_others_is_sure_of_its_place() -> None:
    found = front_probability(
        [point("cheap", 1, 9), point("best", 5, noisy(1.0, 0.01)), point("bad", 6, noisy(8, 0.5))]
    )
    assert found == {"cheap": 1.0, "best": 1.0, "bad": 0.0}


def test_a_seed_fixes_the_result_and_the_order_of_points_does_not_matter() -> None:
    points = [point(str(i), noisy(i, 1.0), of_repeats([i, 2 - i, 3], "s")) for i in range(6)]
    found = front_probability(points)
    assert front_probability(points[::-1]) == found
    other = front_probability(points, seed=1)
    assert other != found and all(abs(other[name] - found[name]) < 0.05 for name in found)


def test_deviations_of_a_jackknife_give_its_own_interval_and_the_covariance_of_two_means() -> None:
    random = np.random.default_rng(7)
    samples = random.multivariate_normal([0, 0], [[1.0, 0.8], [0.8, 2.0]], size=200)
    blocks = np.arange(200).reshape(10, 20)
    pair = []
    for series in samples.T:
        without = [np.delete(series, block).mean() for block in blocks]
        pair.append(of_leave_one_out(float(series.mean()), without, "s"))
        width = float(np.linalg.norm(pair[-1].deviations)) * float(t.ppf(0.975, 9))
        interval = jackknife_interval(float(series.mean()), without)
        assert interval.high is not None and width == pytest.approx(interval.high - interval.value)
    means = samples.reshape(10, 20, 2).mean(axis=1)
    products = np.array([[np.dot(a.deviations, b.deviations) for b in pair] for a in pair])
    np.testing.assert_allclose(products, np.cov(means.T) / 10, rtol=1e-9)


@pytest.mark.parametrize("log", [False, True])
def test_draws_of_an_interval_leave_it_as_often_as_it_says(log: bool) -> None:
    value, low, high = (1.0, 0.5, 2.0) if log else (1.0, 0.7, 1.3)
    for end, share in ((low, 0.025), (high, 0.975)):
        points = [point("it", of_interval(value, low, high, log=log), 2), point("end", end, 1)]
        assert within(front_probability(points)["it"], share)


def test_an_interval_cut_at_the_range_keeps_its_longer_side() -> None:
    assert of_interval(0.1, 0.0, 0.4).deviations[0] == pytest.approx(0.3 / 1.959964)


def test_probabilities_are_right_on_average_where_differences_are_larger_than_errors() -> None:
    random = np.random.default_rng(11)
    probabilities, truly = [], []
    for _ in range(250):
        truth = 3 * random.normal(size=5)
        blocks = truth + np.sqrt(10) * random.normal(size=(10, 5))
        points = [point(str(i), i, of_repeats(blocks[:, i], "s")) for i in range(5)]
        probabilities += list(front_probability(points, draws=300).values())[1:]
        names = pareto_front([Point(str(i), i, truth[i]) for i in range(5)]).names
        truly += [str(i) in names for i in range(1, 5)]
    for least, most in ((0.0, 0.05), (0.05, 0.5), (0.5, 0.95), (0.95, 1.01)):
        chosen = [i for i, p in enumerate(probabilities) if least <= p < most]
        assert len(chosen) > 100
        assert np.mean([probabilities[i] for i in chosen]) == pytest.approx(
            np.mean([truly[i] for i in chosen]), abs=0.1
        )


def test_nothing_and_one_point_have_a_front() -> None:
    assert front_probability([]) == {}
    assert front_probability([point("only", noisy(1, 5), noisy(1, 5))]) == {"only": 1.0}


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([point("a", 1, 1), point("a", 2, 2)], "two points have the name 'a'"),
        ([point("a", 1, noisy(1, 1, source="s")), point("b", 1, noisy(1, 1, 1, source="s"))], "source 's'"),
    ],
)
def test_what_cannot_be_drawn_together_is_refused(points: Sequence[UncertainPoint], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        front_probability(points)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Uncertain(float("nan")),
        lambda: Uncertain(1.0, (float("inf"),)),
        lambda: Uncertain(0.0, log=True),
        lambda: Uncertain(1.0, (1.0,), freedom=0),
        lambda: of_interval(1.0, 2.0, 1.0),
        lambda: of_interval(1.0, 0.0, 2.0, log=True),
        lambda: of_leave_one_out(1.0, [1.0], "s"),
        lambda: front_probability([point("a", 1, 1)], draws=0),
    ],
)
def test_what_is_no_error_is_refused(make: Any) -> None:
    with pytest.raises(ValueError):
        make()


def edited(folder: Path, changes: dict[str, dict[str, Any]], interval: bool = True) -> RunView:
    """The run with details put into quality records, cell by cell; without ``interval`` their figures lose theirs."""
    store = RunStore(folder)
    for cell, detail in changes.items():
        identity = fixtures.identity_of(cell, "quality")
        record = store.load(identity)
        assert record is not None
        values = dict(record.values)
        if not interval:
            values["frechet"] = values["frechet"].model_copy(update={"low": None, "high": None})
        store.record_path(identity).unlink()
        store.commit(record.model_copy(update={"detail": record.detail | detail, "values": values}))
    return load_run(folder)


def close_cells() -> list[fixtures.Planned]:
    """Four cells of rising compute whose quality differs by far less than its interval."""
    steps = ((50, 2.40), (40, 2.41), (30, 2.43), (20, 2.42))
    return [fixtures.Planned(fixtures.spec(f"ddpm-{n}", "ddpm", n, 1.0), frechet) for n, frechet in steps]


def blocks_of(frechet: float, common: float = 0.01) -> list[float]:
    return [frechet + common * (-1) ** block * (1 + block) for block in range(10)]


def test_cells_without_blocks_are_drawn_by_their_intervals_alone(tmp_path: Path) -> None:
    view = load_run(fixtures.write_run(tmp_path, close_cells()))
    fronts = front_probabilities(view)
    assert fronts.paired == () and fronts.exact == () and fronts.exact_time == ()
    assert set(fronts.gmacs) == set(fronts.time) == {"ddpm-50", "ddpm-40", "ddpm-30", "ddpm-20"}
    assert fronts.gmacs["ddpm-20"] == 1.0 and 0.2 < fronts.gmacs["ddpm-50"] < 0.6
    assert fronts.gmacs["ddpm-30"] > 0.3, "off the measured front, yet hardly told apart"
    assert "as if no two cells shared" in about_fronts(fronts) and "err together" not in about_fronts(fronts)


def test_blocks_of_the_same_seeds_settle_what_intervals_leave_open(tmp_path: Path) -> None:
    cells = close_cells()
    changes = {c.spec.cell: {"leave_one_out": {"frechet": blocks_of(c.frechet)}} for c in cells}
    view = edited(fixtures.write_run(tmp_path, cells), changes)
    fronts = front_probabilities(view)
    assert fronts.paired == tuple(changes)
    assert fronts.gmacs == {row.cell: float(bool(row.on_front_gmacs)) for row in view.rows}
    assert "err together" in about_fronts(fronts) and "as if no two" not in about_fronts(fronts)


@pytest.mark.parametrize("other", [{"seeds": [9]}, {"samples": 500}])
def test_blocks_of_other_seeds_or_counts_are_not_paired(tmp_path: Path, other: dict[str, Any]) -> None:
    cells = close_cells()
    changes = {c.spec.cell: {"leave_one_out": {"frechet": blocks_of(c.frechet)}} for c in cells}
    changes["ddpm-20"] |= other
    fronts = front_probabilities(edited(fixtures.write_run(tmp_path, cells), changes))
    assert 0.2 < fronts.gmacs["ddpm-50"] < 0.8 and fronts.gmacs["ddpm-20"] == 1.0


def test_figures_by_seed_are_paired_by_seed(tmp_path: Path) -> None:
    cells, seeds = close_cells(), np.array([-0.3, 0.1, 0.2])
    changes = {
        c.spec.cell: {"seeds": [0, 1, 2], "by_seed": {"frechet": [float(v) for v in c.frechet + seeds]}} for c in cells
    }
    view = edited(fixtures.write_run(tmp_path, cells), changes)
    fronts = front_probabilities(view)
    assert fronts.paired == tuple(changes)
    assert fronts.gmacs == {row.cell: float(bool(row.on_front_gmacs)) for row in view.rows}


def test_without_any_interval_of_quality_no_probability_is_claimed(tmp_path: Path) -> None:
    cells = close_cells()
    two = {c.spec.cell: {"seeds": [0, 1], "by_seed": {"frechet": [c.frechet - 0.1, c.frechet + 0.1]}} for c in cells}
    view = edited(fixtures.write_run(tmp_path, cells), two, interval=False)
    fronts = front_probabilities(view)
    assert fronts.gmacs == {} and fronts.time == {} and set(fronts.exact) == {c.spec.cell for c in cells}
    (column,) = front_columns(view.rows, fronts)
    assert column.title == "On front" and column.values[0].shown == "MACs, time" and column.values[2].shown == "–"
    assert "cannot be said" in about_fronts(fronts) and front_certainty(view, fronts) == ""


def test_a_cell_without_an_interval_among_others_is_named(tmp_path: Path) -> None:
    view = edited(fixtures.write_run(tmp_path, close_cells()), {"ddpm-40": {}}, interval=False)
    fronts = front_probabilities(view)
    assert fronts.exact == ("ddpm-40",) and len(fronts.gmacs) == 4
    assert "taken as exact: the quality of ddpm-40." in about_fronts(fronts)


def test_two_rows_of_the_same_records_have_the_place_of_one(tmp_path: Path) -> None:
    view = load_run(fixtures.write_run(tmp_path, close_cells()))
    twin = replace(view.rows[2], cell="twin")
    fronts = front_probabilities(replace(view, rows=(*view.rows, twin)))
    alone = front_probabilities(view)
    assert fronts.gmacs["twin"] == fronts.gmacs["ddpm-30"] == alone.gmacs["ddpm-30"] > 0
    assert fronts.time["twin"] == fronts.time["ddpm-30"] == alone.time["ddpm-30"] > 0


def test_each_device_has_its_own_probabilities_of_time(tmp_path: Path) -> None:
    folder = fixtures.write_run(tmp_path, close_cells())
    store = RunStore(folder)
    identity = fixtures.identity_of("ddpm-30", "latency")
    record = store.load(identity)
    assert record is not None
    store.record_path(identity).unlink()
    moved = record.provenance.model_copy(update={"device_name": "another machine"})
    store.commit(record.model_copy(update={"provenance": moved}))
    fronts = front_probabilities(load_run(folder))
    assert fronts.time["ddpm-30"] == 1.0 and fronts.gmacs["ddpm-30"] < 1.0


def test_the_columns_hold_shares_and_show_percent(tmp_path: Path) -> None:
    view = load_run(fixtures.write_run(tmp_path, close_cells()))
    fronts = FrontProbabilities({"ddpm-50": 0.9982, "ddpm-40": 0.314, "ddpm-30": 0.0}, {"ddpm-50": 0.62})
    by_gmacs, by_time = front_columns(view.rows, fronts)
    assert [(value.raw, value.shown) for value in by_gmacs.values] == [
        (0.9982, ">99"), (0.314, "31"), (0.0, "0"), (None, "")
    ]  # fmt: skip
    assert [value.shown for value in by_time.values] == ["62", "", "", ""]
    assert (by_gmacs.title, by_time.title, by_gmacs.unit) == ("P(MACs)", "P(time)", "%")


def test_the_summary_names_who_is_sure_of_a_place_and_counts_who_else_may_have_one(tmp_path: Path) -> None:
    view = load_run(fixtures.write_run(tmp_path, close_cells()))
    members = {row.cell for row in view.rows if row.on_front_gmacs}
    assert members == {"ddpm-50", "ddpm-40", "ddpm-20"}
    sure = {"ddpm-50": 0.96, "ddpm-40": 0.97, "ddpm-30": 0.01, "ddpm-20": 1.0}
    assert front_certainty(view, FrontProbabilities(sure, {})) == ""
    on, maybe = "on the front of quality against compute with", "1 cell off it may belong there (more than 5 %)"
    assert front_certainty(view, FrontProbabilities(sure | {"ddpm-30": 0.06}, {})) == (
        f"ddpm-50, ddpm-40 and ddpm-20 are {on} at least 95 % probability; {maybe}."
    )
    assert front_certainty(view, FrontProbabilities(sure | {"ddpm-50": 0.4, "ddpm-40": 0.5}, {})) == (
        f"Only ddpm-20 is {on} at least 95 % probability."
    )
    lone = FrontProbabilities({}, dict.fromkeys(sure, 0.5))
    assert front_certainty(view, lone).startswith("No cell is on the front of quality against time with 95 % prob")


def test_percent_never_claims_an_end_that_was_not_reached() -> None:
    shown = [percent(p) for p in (0.0, 0.001, 0.006, 0.62, 0.994, 0.9999, 1.0)]
    assert shown == ["0 %", "<1 %", "1 %", "62 %", "99 %", ">99 %", "100 %"]


def test_a_place_is_settled_from_95_percent_on_either_side() -> None:
    assert [unsettled(True, p) for p in (0.94, 0.95)] == [True, False]
    assert [unsettled(False, p) for p in (0.05, 0.06)] == [False, True]
    assert not unsettled(None, 0.5) and not unsettled(True, None)
