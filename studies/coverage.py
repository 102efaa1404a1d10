"""How often the 95 % intervals hold the truth: simulated where the truth is known.

python -m studies.coverage [--repetitions 200] [--write docs/coverage.md]

``--write`` replaces the tables in that file and keeps the words around them.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ditbench.harness.stats.intervals import proportion_interval
from studies import distances, latencies
from studies.scenario import Scenario

SEED = 0
BAND = (0.90, 0.99)
JUDGED = 100  # fewer printed intervals say too little about their coverage
HEADER = ("scenario", "truth", "printed", "covered", "95 % of that", "mean width", "mean bias")
LIMITS = "Where they do not hold, or only just"
GROUPS: dict[str, Callable[[], list[Scenario]]] = {
    "Limit of the Fréchet distance, one set in ten blocks": distances.distances,
    "Limit of the Fréchet distance, independent seeds": distances.seed_blocks,
    "Fréchet distance at its own number of samples": distances.own_counts,
    "Ratio of latencies": latencies.ratios,
    "Median latency": latencies.medians,
    LIMITS: lambda: [*distances.limits(), *latencies.limits()],
}
BEGIN, END = "<!-- tables: python -m studies.coverage --write docs/coverage.md -->", "<!-- end of tables -->"


@dataclass(frozen=True)
class Coverage:
    """What the repetitions of one scenario gave; mean width of the intervals, mean bias of the values."""

    name: str
    truth: float
    repetitions: int
    printed: int
    covered: int
    width: float
    bias: float

    @property
    def outside(self) -> bool:
        """Whether the coverage of enough printed intervals is not in the band."""
        return self.printed >= JUDGED and not BAND[0] <= self.covered / self.printed <= BAND[1]

    def cells(self) -> tuple[str, ...]:
        """A row of the table."""
        row, bias = (self.name, f"{self.truth:.4g}", f"{self.printed} of {self.repetitions}"), f"{self.bias:+.2g}"
        if not self.printed:
            return (*row, "", "", "", bias)
        within = proportion_interval(self.covered, self.printed)
        assert within.low is not None and within.high is not None
        share = f"{100 * within.value:.1f} %" + (" outside" if self.outside else "")
        return (*row, share, f"{100 * within.low:.0f}–{100 * within.high:.0f} %", f"{self.width:.3g}", bias)


def cover(scenario: Scenario, repetitions: int, seed: int = SEED) -> Coverage:
    """Repeat a scenario; its random numbers depend on the seed and its name only."""
    rng = np.random.default_rng([seed, zlib.crc32(scenario.name.encode())])
    truth = scenario.truth()
    count = repetitions * scenario.repetitions
    found = [scenario.estimate(rng) for _ in range(count)]
    ends = [(each.low, each.high) for each in found if each.low is not None and each.high is not None]
    return Coverage(
        name=scenario.name,
        truth=truth,
        repetitions=count,
        printed=len(ends),
        covered=sum(low <= truth <= high for low, high in ends),
        width=float(np.mean([high - low for low, high in ends])) if ends else 0.0,
        bias=float(np.mean([each.value for each in found])) - truth,
    )


def tables(rows: dict[str, list[Coverage]]) -> str:
    """One Markdown table a group."""
    parts = []
    for group, found in rows.items():
        lines = [f"### {group}", "", _line(HEADER), _line(["---"] + ["--:"] * (len(HEADER) - 1))]
        parts.append("\n".join([*lines, *(_line(row.cells()) for row in found)]))
    return "\n\n".join(parts)


def written(text: str, body: str) -> str:
    """``text`` with what stands between the marks replaced. ValueError without the marks."""
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"no place for the tables: {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{body}\n\n{END}{after}"


def main(arguments: list[str] | None = None) -> int:
    """Run every scenario; 1 if one with enough printed intervals is outside the band."""
    parser = argparse.ArgumentParser(prog="python -m studies.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=200, help="at least this many a scenario (200)")
    parser.add_argument("--write", type=Path, help="put the tables into this file")
    options = parser.parse_args(arguments)
    if options.write:
        written(options.write.read_text(), "")  # says so now, and not after minutes
    scenarios = [(group, scenario) for group, make in GROUPS.items() for scenario in make()]
    rows: dict[str, list[Coverage]] = {group: [] for group in GROUPS}
    for group, scenario in tqdm(scenarios, unit="scenario"):
        rows[group].append(cover(scenario, options.repetitions))
    body = tables(rows)
    print(body)
    if options.write:
        options.write.write_text(written(options.write.read_text(), body))
    outside = [row.name for group, found in rows.items() if group != LIMITS for row in found if row.outside]
    print(f"\noutside {BAND[0]:.0%} to {BAND[1]:.0%}: {'; '.join(outside) or 'none'}")
    return 1 if outside else 0


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
