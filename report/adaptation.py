"""What it took to train each model and what quality came of it: cells of several seeds as one, and their differences.

A group is the cells of one recipe that differ in its seed alone. Its quality is the mean over the seeds with Student's
t interval, n − 1 degrees of freedom.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from ditbench.harness.stats.compare import Change, Draws, paired, unpaired
from ditbench.harness.stats.intervals import mean_interval
from ditbench.harness.store.records import Quantity
from ditbench.report.row import Row
from ditbench.report.run_view import RunView

MEASUREMENT = "training"
FULL = "full"
EQUAL = 0.01  # trainable parameters that differ by less are called equal
_NOT_IN_RECIPE = ("recipe", "seed", "description")
# A cell's fields that are its name, or follow from the seed of its training.
_NOT_IN_SPEC = {"cell", "variant", "weights", "weights_sha256", "measure", "timeout_s", "cost_only"}


@dataclass(frozen=True)
class Group:
    """Cells that differ in the training seed alone, one a seed, in the order of the seeds."""

    name: str
    rows: tuple[Row, ...]

    @property
    def detail(self) -> dict[str, Any]:
        return self.rows[0].detail(MEASUREMENT)

    @property
    def recipe(self) -> dict[str, Any]:
        found: dict[str, Any] = self.detail["recipe"]
        return found

    @property
    def method(self) -> str:
        return self.rows[0].spec.method

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(map(_seed, self.rows))

    @property
    def is_baseline(self) -> bool:
        return any(row.is_baseline for row in self.rows)

    @property
    def way(self) -> dict[str, Any]:
        """How the weights were trained, as the record says: kind, size, refines, about, family, course."""
        found: dict[str, Any] = self.detail["adaptation"]
        return found

    @property
    def kind(self) -> str:
        """FULL where all weights were trained, else the name of what was."""
        return str(self.way["kind"])

    @property
    def size(self) -> str:
        """What stands behind the kind: 'r=5'; '' where there is nothing to say."""
        return str(self.way.get("size") or "")

    @property
    def about(self) -> str:
        return str(self.way.get("about") or "")

    @property
    def how(self) -> str:
        """'full', 'from scratch', or the kind with its size."""
        if self.kind == FULL:
            return "full" if self.recipe.get("base") else "from scratch"
        return f"{self.kind} {self.size}".strip()

    @property
    def trainable(self) -> float | None:
        return self.rows[0].value(MEASUREMENT, "trainable")

    @property
    def share_of_full(self) -> float | None:
        """Trainable parameters as a share of those that full fine-tuning of the method trains."""
        full = (self.detail.get("full") or {}).get("trainable")
        return self.trainable / full if full and self.trainable is not None else None

    def cost(self, name: str) -> Quantity | None:
        """A figure of the training: of one seed as it was measured, of more their mean with its t interval."""
        if name == "training_ratio" and self.is_baseline:
            return Quantity(value=1.0, unit="1", interval="the baseline itself")
        found = [quantity for row in self.rows if (quantity := row.quantity(MEASUREMENT, name)) is not None]
        return found[0] if len(found) == 1 else _mean(found)

    @property
    def draws(self) -> dict[int, float]:
        """Seed -> Fréchet distance, of the cells that have one."""
        found = ((_seed(row), row.value("quality", "frechet")) for row in self.rows)
        return {seed: value for seed, value in found if value is not None}

    @property
    def frechet(self) -> Quantity | None:
        """Mean over the seeds with the t interval; a lone seed has none: its own is of its samples, not of training."""
        found = [Quantity(value=value, unit="1", interval="") for value in self.draws.values()]
        return _mean(found)


def groups_of(view: RunView) -> tuple[Group, ...]:
    """The cells with a training record, by recipe, in the plan's order. Of two cells of one seed the first counts."""
    found: dict[str, dict[int, Row]] = {}
    for row in view.rows:
        if all(isinstance(row.detail(MEASUREMENT).get(part), Mapping) for part in ("recipe", "adaptation")):
            found.setdefault(_key(row), {}).setdefault(_seed(row), row)
    members = [tuple(rows[seed] for seed in sorted(rows)) for rows in found.values()]
    names = [_shared_name([row.cell for row in rows]) for rows in members]
    return tuple(
        Group(name if names.count(name) == 1 else rows[0].cell, rows) for name, rows in zip(names, members, strict=True)
    )


def to_full(group: Group, groups: Sequence[Group]) -> Change | None:
    """Fréchet distance less that of full fine-tuning of the same method from the same base.

    None where the group is that, where there is no quality, and where not exactly one group is the full one.
    """
    if group.kind == FULL:
        return None
    full = [other for other in groups if other.kind == FULL and _family(other) == _family(group)]
    return difference(full[0], group) if len(full) == 1 else None


def equal_pairs(groups: Sequence[Group]) -> tuple[tuple[Group, Group], ...]:
    """(a kind, one that refines it) of the same method and training length, with as many trainable parameters."""
    return tuple(
        (plain, refined)
        for refined in groups
        for plain in groups
        if refined.way.get("refines") == plain.kind and _course(plain) == _course(refined) and _equal(plain, refined)
    )


def difference(a: Group, b: Group) -> Change | None:
    """Fréchet distance of B − A: paired where both have the same seeds, else Welch's; None without quality."""
    if not a.draws or not b.draws:
        return None
    if a.draws.keys() == b.draws.keys() and len(a.draws) > 1:
        return paired(_drawn(a), _drawn(b), "seeds")
    return unpaired(_drawn(a), _drawn(b), "seeds")


def verdict(change: Change) -> str:
    """Of a difference of distances, where less is better."""
    if change.identical:
        return "no difference shown"
    if change.low is None or change.high is None:
        return "not tested"
    return "better" if change.high < 0 else "worse" if change.low > 0 else "no difference shown"


def _drawn(group: Group) -> Draws:
    values = tuple(group.draws[seed] for seed in sorted(group.draws))
    return Draws(sum(values) / len(values), values)


def _mean(found: Sequence[Quantity]) -> Quantity | None:
    if not found:
        return None
    mean = mean_interval([quantity.value for quantity in found])
    how = mean.method.replace("samples", "seeds").replace("sample", "seed")
    return Quantity(value=mean.value, unit=found[0].unit, low=mean.low, high=mean.high, interval=how)


def _seed(row: Row) -> int:
    return int(row.detail(MEASUREMENT)["recipe"]["seed"])


def _key(row: Row) -> str:
    recipe = {name: value for name, value in row.detail(MEASUREMENT)["recipe"].items() if name not in _NOT_IN_RECIPE}
    return _text([recipe, row.spec.model_dump(mode="json", exclude=_NOT_IN_SPEC)])


def _family(group: Group) -> str:
    """What must be alike for full fine-tuning to be the reference of another way of training."""
    sampled = group.rows[0].spec.model_dump(mode="json", exclude={*_NOT_IN_SPEC, "config"})
    return _text([sampled, group.way.get("family")])


def _course(group: Group) -> str:
    """What must be alike, besides, for two ways of training to be set side by side."""
    return _text([_family(group), group.way.get("course")])


def _equal(a: Group, b: Group) -> bool:
    return bool(a.trainable and b.trainable and abs(a.trainable - b.trainable) <= EQUAL * max(a.trainable, b.trainable))


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _shared_name(cells: Sequence[str]) -> str:
    """What the names of a group's cells have in common, without a hanging '-s' of the seeds; else the first name."""
    if len(cells) == 1:
        return cells[0]
    alike = takewhile(lambda letters: len({*letters}) == 1, zip(*cells, strict=False))
    return re.sub(r"[-_.+]+(s|seed|seed[-_.])?$", "", "".join(letters[0] for letters in alike)) or cells[0]
