"""How a loop's choices show themselves in a record: shares and labels by step, whatever method made them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ditbench.methods.plans import Facet, StepPlan

Decided = tuple[str, tuple[float, ...], str]
"""What the data decided in a step: name of the facet, mean shares by layer, what it is."""


def facets_of(steps: Sequence[tuple[StepPlan, Decided | None]]) -> dict[str, Any] | None:
    """Of a loop, in order of its steps; None where nothing is chosen.

    {"timesteps": [t], "shares": [{"name", "about", "prepares", "values": [[share a layer] a step]}],
    "labels": [{"name", "about", "prepares", "levels", "values": [label, or one a layer, a step], "guidance": the same
    or None}]}.
    A facet that some steps do not have is left out.
    """
    told = [_facets(plan, decided) for plan, decided in steps]
    guide = [
        each if plan.guidance is None else _facets(plan.branches[1], None)
        for (plan, _), each in zip(steps, told, strict=True)
    ]
    names = [name for name in told[0] if all(name in each for each in told)] if told else []
    shares, labels = [], []
    for name in names:
        first = told[0][name]
        values = [_listed(each[name]) for each in told]
        shown: dict[str, Any] = {"name": name, **_texts(first)}
        if first.is_share:
            rounded = [[round(share, 6) for share in (v if isinstance(v, list) else [v])] for v in values]
            shares.append({**shown, "values": rounded})
            continue
        other = [_listed(each.get(name, first)) for each in guide]
        labels.append(
            {**shown, "levels": list(first.levels), "values": values, "guidance": None if other == values else other}
        )
    if not shares and not labels:
        return None
    return {"timesteps": [plan.timestep for plan, _ in steps], "shares": shares, "labels": labels}


def _facets(plan: StepPlan, decided: Decided | None) -> dict[str, Facet]:
    found = {facet.name: facet for facet in plan.facets()}
    if decided is not None:
        name, shares, about = decided
        found[name] = Facet(name, shares, about=about)
    return found


def _texts(facet: Facet) -> dict[str, str]:
    return {key: text for key in ("about", "prepares") if (text := getattr(facet, key))}


def _listed(facet: Facet) -> Any:
    return list(facet.value) if isinstance(facet.value, tuple) else facet.value
