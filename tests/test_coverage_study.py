"""The coverage study in small: the intervals hold, what they replaced does not, and the document is the script's."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ditbench.harness.quality.frechet import frechet_distance
from ditbench.harness.stats.intervals import Estimate
from studies import coverage, distances, laws
from studies.coverage import BAND, BEGIN, GROUPS, HEADER, Coverage, cover, written
from studies.distances import distance
from studies.latencies import Timing, ratio
from studies.scenario import Scenario

DOCUMENT = Path(__file__).parent.parent / "docs" / "coverage.md"
REPETITIONS = 200


def within_band(row: Coverage) -> bool:
    return row.printed >= 50 and BAND[0] <= row.covered / row.printed <= BAND[1]


def small(n: int = 300, seeds: int = 0, repetitions: int = 1, **move: float) -> Scenario:
    base = laws.decaying(6)
    return distance("small", lambda: laws.gaussian(*laws.moved(base, **move)), base, n, repetitions, seeds)


@pytest.mark.parametrize("move", [{"mean": 0.6}, {"scale": 0.2}, {"turn": 0.8}])
def test_intervals_around_the_limit_hold(move: dict[str, float]) -> None:
    row = cover(small(**move), REPETITIONS)
    assert row.printed >= 0.95 * REPETITIONS
    assert within_band(row), row


def test_intervals_around_the_mean_limit_of_seeds_hold() -> None:
    assert within_band(cover(small(n=200, seeds=4, mean=0.6), REPETITIONS))


def test_at_no_distance_intervals_are_rare_and_hold() -> None:
    row = cover(small(repetitions=4), REPETITIONS)
    assert row.printed < 0.25 * row.repetitions
    assert within_band(row), row


def test_with_few_samples_nothing_is_printed() -> None:
    base = laws.flat(32)
    law = laws.gaussian(*laws.moved(base, mean=0.2))
    curved, singular = (cover(distance("few", lambda: law, base, n), 30) for n in (100, 60))
    assert curved.printed == singular.printed == 0
    assert curved.bias < -0.1, "what such an interval would hide"


@pytest.mark.parametrize("rounds", [3, 6])
@pytest.mark.parametrize("change", [0.0, 1.0])
def test_intervals_around_a_latency_ratio_hold(rounds: int, change: float) -> None:
    assert within_band(cover(ratio(Timing(rounds, 4, change)), REPETITIONS))


# What was, or might have been, used instead ------------------------------------------------------------


def test_an_interval_around_the_plain_distance_misses_the_limit() -> None:
    base = laws.flat(12)
    law = laws.gaussian(*laws.moved(base, mean=0.5))
    plain = distances.at_own_count("plain", law, base, 200)
    truth = frechet_distance(law.mean, law.covariance, np.zeros(12), base)
    row = cover(Scenario("plain", lambda: truth, plain.estimate), REPETITIONS)
    assert row.covered < 0.5 * row.printed


def test_a_bootstrap_of_few_rounds_misses_a_ratio_that_changes() -> None:
    timing = Timing(3, 4, 3.0)

    def naive(rng: np.random.Generator) -> Estimate:
        a, b = timing.draw(rng, 1.4)
        picked = rng.integers(3, size=(300, 3))
        drawn = np.median(a[picked].reshape(300, -1), axis=1) / np.median(b[picked].reshape(300, -1), axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        return Estimate(float(np.median(drawn)), float(low), float(high), "naive")

    row = cover(Scenario("naive", lambda: 1.4, naive), REPETITIONS)
    assert row.covered < 0.85 * row.printed
    assert within_band(cover(ratio(timing), REPETITIONS))


# The script and its document ---------------------------------------------------------------------------


def test_moments_of_every_law_are_those_of_its_draws() -> None:
    rng, base = np.random.default_rng(0), laws.decaying(4)
    moved = laws.moved(base, mean=0.5, scale=0.2, turn=0.5)
    made = [
        laws.gaussian(*moved),
        laws.student(*moved),
        laws.lognormal(*moved),
        laws.mixture(*laws.clusters(4, 3, seed=1)),
    ]
    rows = laws.atoms(rng.exponential(size=(50, 4)), rng.random(50))
    for law in [*made, rows, laws.rectified(made[0], np.eye(4), draws=400_000)]:
        x = law.draw(rng, 200_000)
        np.testing.assert_allclose(x.mean(axis=0), law.mean, atol=0.02)
        np.testing.assert_allclose(np.cov(x, rowvar=False), law.covariance, atol=0.1)


def test_the_document_has_the_tables_that_the_script_would_write() -> None:
    names = {group: [scenario.name for scenario in make()] for group, make in GROUPS.items()}
    tables = DOCUMENT.read_text().partition(BEGIN)[2]
    found: dict[str, list[list[str]]] = {}
    for line in tables.splitlines():
        if line.startswith("### "):
            group = found.setdefault(line[4:], [])
        elif line.startswith("|"):
            group.append([cell.strip() for cell in line.strip("|").split("|")])
    assert list(found) == list(names)
    for title, rows in found.items():
        assert tuple(rows[0]) == HEADER
        assert [row[0] for row in rows[2:]] == names[title]
        assert title == coverage.LIMITS or not any("outside" in cell for row in rows for cell in row)
    every = [name for listed in names.values() for name in listed]
    assert len(set(every)) == len(every), "a scenario's random numbers hang on its name"


def test_the_document_gives_scenarios_at_least_two_hundred_repetitions() -> None:
    counts = [int(count) for count in re.findall(r"\| \d+ of (\d+) \|", DOCUMENT.read_text())]
    assert len(counts) > 100 and min(counts) >= 200


def test_the_tables_replace_what_was_between_the_marks_and_nothing_else() -> None:
    text = written(f"before\n{BEGIN}\nold\n{coverage.END}\nafter\n", "new")
    assert text == f"before\n{BEGIN}\n\nnew\n\n{coverage.END}\nafter\n"
    with pytest.raises(ValueError, match="no place"):
        written("nothing here", "new")
