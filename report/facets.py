"""What a cell's model chooses step by step, as its count of operations says: shares of a part, and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import Any

from ditbench.report.row import Row

Layers = tuple[tuple[float, ...], ...]
Label = str | tuple[str, ...]


@dataclass(frozen=True)
class Shares:
    """How much of a part is computed: ``values`` [step][layer] in [0, 1]; one layer where it is of the whole model.

    ``about`` says what it is, ``prepares`` what is made ahead for it; '' where the record does not say.
    """

    name: str
    values: Layers
    about: str = ""
    prepares: str = ""

    @property
    def mean(self) -> float:
        """Over layers and steps."""
        return fmean(share for layers in self.values for share in layers)


@dataclass(frozen=True)
class Labels:
    """Which of some ways a step runs: one label a step, or a tuple with one a layer.

    ``guidance`` is the guidance branch's, None where it is the same or there is none. ``levels`` are all that may
    occur, the fullest first.
    """

    name: str
    values: tuple[Label, ...]
    guidance: tuple[Label, ...] | None
    levels: tuple[str, ...]
    about: str = ""
    prepares: str = ""

    @property
    def reference(self) -> str:
        return self.levels[0]

    def worded(self, label: Label) -> str:
        """With the facet's name before a bare number, which says nothing alone; words stand for themselves."""
        return named(self.name, label) if isinstance(label, str) else _by_layer(self.name, label)


@dataclass(frozen=True)
class Compute:
    """Compute of the loop as a ``share`` of the same loop at the fullest choice, which ``of`` names; and by other
    conventions."""

    of: str
    share: float
    by_convention: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Facets:
    """``timesteps`` from noise to image."""

    timesteps: tuple[float, ...]
    shares: tuple[Shares, ...]
    labels: tuple[Labels, ...]

    @property
    def every(self) -> tuple[Shares | Labels, ...]:
        return (*self.shares, *self.labels)


NOTHING = Facets((), (), ())


def facets_of(row: Row) -> Facets:
    """What the cell's record says; NOTHING for a static cell. Entries that fit no step are left out."""
    stored = row.detail("flops").get("facets")
    if not isinstance(stored, Mapping):
        return NOTHING
    timesteps = tuple(float(timestep) for timestep in stored.get("timesteps") or ())
    shares = tuple(_some(_shares(entry, len(timesteps)) for entry in stored.get("shares") or ()))
    labels = tuple(_some(_labels(entry, len(timesteps)) for entry in stored.get("labels") or ()))
    return Facets(timesteps, shares, labels) if shares or labels else NOTHING


def compute_of(row: Row) -> Compute | None:
    """None where the record does not say."""
    stored = row.detail("flops").get("compute")
    if not isinstance(stored, Mapping):
        return None
    others = tuple((str(name), float(share)) for name, share in (stored.get("by_convention") or {}).items())
    return Compute(str(stored["of"]), float(stored["share"]), others)


def router_gmacs(row: Row) -> dict[str, float]:
    """Overhead that a step's compute includes, e.g. 'token routers' -> GMAC; empty where nothing is decided."""
    stored = row.detail("flops").get("parts") or {}
    return {str(name): float(gmacs) for name, gmacs in stored.items()}


def is_dynamic(row: Row) -> bool:
    """Whether the count of operations found parts that are switched, or routers that switch them."""
    return bool(facets_of(row).shares or router_gmacs(row))


def chooses(row: Row) -> bool:
    """Whether the cell runs its steps in ways that have labels."""
    return bool(facets_of(row).labels)


def weak_guidance(row: Row) -> str:
    """'conditional' or 'unconditional': what a guidance branch with other labels predicts; '' where there is none."""
    return row.spec.guidance_weak if any(labels.guidance for labels in facets_of(row).labels) else ""


def sampled_alike(row: Row, base: Row) -> bool:
    """Whether both cells sample in the same way, their choices apart."""
    a, b = row.spec, base.spec
    if weak_guidance(row) and weak_guidance(base) and a.guidance_weak != b.guidance_weak:
        return False
    names = ("sampler", "sampler_options", "steps", "guidance_scale", "guidance_interval", "guidance_channels")
    return all(getattr(a, name) == getattr(b, name) for name in names)


def named(facet: str, label: str) -> str:
    """A label with the facet's name before it, if it is a bare number."""
    return f"{facet} {label}" if label.replace(".", "", 1).isdigit() else label


def in_words(labels: Labels, values: Sequence[Label]) -> str:
    """'24 × few, then 26 × all'; with many changes 'interleaved: 24 × few, 26 × all', the cheapest first."""
    runs = [(label, len(list(steps))) for label, steps in groupby(values)]
    if len(runs) <= max(3, len(set(values))):
        return ", then ".join(f"{count} × {labels.worded(label)}" for label, count in runs)
    cheapest_first = sorted(Counter(values).items(), key=lambda entry: rank(labels, entry[0]), reverse=True)
    return "interleaved: " + ", ".join(f"{count} × {labels.worded(label)}" for label, count in cheapest_first)


def rank(labels: Labels, label: Label) -> float:
    """How cheap a step with this label is: its place among the levels, or the mean place of its layers."""
    each = (label,) if isinstance(label, str) else label
    return fmean(labels.levels.index(one) if one in labels.levels else len(labels.levels) for one in each)


def levels_of(rows: Iterable[Row]) -> dict[str, tuple[str, ...]]:
    """Facet -> every label of these cells, the fullest first, so that a label has one place in all figures."""
    found: dict[str, list[str]] = {}
    for labels in (labels for row in rows for labels in facets_of(row).labels):
        known = found.setdefault(labels.name, [])
        for place, level in enumerate(each := _every(labels)):
            if level not in known:
                before = [known.index(one) for one in each[:place] if one in known]
                known.insert(max(before, default=-1) + 1, level)
    return {name: _sorted(levels) for name, levels in found.items()}


def _every(labels: Labels) -> list[str]:
    """The levels, and behind them what occurs without being one."""
    used = (label for label in (*labels.values, *(labels.guidance or ())))
    return list(dict.fromkeys([*labels.levels, *(one for u in used for one in ((u,) if isinstance(u, str) else u))]))


def _sorted(levels: Sequence[str]) -> tuple[str, ...]:
    """Numbers by size, in the direction in which the first two stand: cells may name different ones of them."""
    if len(levels) < 2 or not all(level.replace(".", "", 1).isdigit() for level in levels):
        return tuple(levels)
    return tuple(sorted(levels, key=float, reverse=float(levels[0]) > float(levels[1])))


def _by_layer(facet: str, layers: Sequence[str]) -> str:
    counts = Counter(layers)
    if len(counts) == 1:
        return named(facet, layers[0])
    parts = (f"{named(facet, one)} in {count} layer{'s' * (count > 1)}" for one, count in counts.items())
    return f"({', '.join(parts)})"


def _shares(entry: Any, steps: int) -> Shares | None:
    """None where there is nothing, or not a rectangle of ``steps`` rows."""
    values = tuple(tuple(float(share) for share in layers) for layers in entry.get("values") or ())
    whole = len(values) == steps and len({len(layers) for layers in values}) == 1
    return Shares(str(entry["name"]), values, *_texts(entry)) if whole and values[0] else None


def _labels(entry: Any, steps: int) -> Labels | None:
    values, guidance = _each(entry.get("values")), _each(entry.get("guidance"))
    levels = tuple(str(level) for level in entry.get("levels") or ())
    if not levels or not values or len(values) != steps or len(guidance) not in (0, steps):
        return None
    return Labels(str(entry["name"]), values, None if guidance in ((), values) else guidance, levels, *_texts(entry))


def _texts(entry: Mapping[str, Any]) -> tuple[str, str]:
    return str(entry.get("about") or ""), str(entry.get("prepares") or "")


def _each(stored: Any) -> tuple[Label, ...]:
    return tuple(
        str(label) if isinstance(label, str | int | float) else tuple(map(str, label)) for label in stored or ()
    )


def _some(entries: Iterable[Any]) -> Iterator[Any]:
    return (entry for entry in entries if entry is not None)
