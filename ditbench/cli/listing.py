"""``list``: what can be named in a suite. Never imports torch."""

from __future__ import annotations

import json
from typing import Any

from ditbench.harness.errors import InputError, did_you_mean


def show_list(kind: str, as_json: bool) -> None:
    """Print names with one line each. Raises InputError for an unknown kind."""
    kinds = (
        "methods",
        "modifiers",
        "samplers",
        "datasets",
        "conditions",
        "metrics",
        "protocols",
        "suites",
        "published",
    )
    if kind not in kinds:
        raise InputError(f"cannot list {kind!r}{did_you_mean(kind, kinds) or ' (' + ', '.join(kinds) + ')'}")
    rows = _rows(kind)
    if as_json:
        print(json.dumps([{"name": name, "summary": summary} for name, summary in rows], indent=1, ensure_ascii=False))
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, summary in rows:
        print(f"{name:<{width}}  {summary}")


def _rows(kind: str) -> list[tuple[str, str]]:
    if kind == "metrics":
        from ditbench.harness.measurements.registry import measurements
        from ditbench.harness.quality.metrics import metrics

        shipped = [(each.name, each.summary) for each in measurements()]
        return shipped + [(each.name, f"a figure of quality, {each.summary}") for each in metrics()]
    if kind == "protocols":
        from ditbench.harness.quality.definitions import definitions

        return [*definitions().summaries()]
    if kind == "published":
        from ditbench.harness.published.load import library, summary

        return [(key, summary(row)) for key, row in library().items()]
    if kind == "suites":
        from ditbench.harness.suite.load import load_suite, shipped_suites

        return [(name, load_suite(path).suite.title) for name, path in shipped_suites().items()]
    from ditbench.methods import registry
    from ditbench.methods.entries import Registry

    listed: dict[str, Registry[Any]] = {
        "methods": registry.methods(),
        "modifiers": registry.modifiers(),
        "samplers": registry.samplers(),
        "datasets": registry.datasets(),
        "conditions": registry.conditions(),
    }
    return [(entry.name, entry.summary) for entry in listed[kind]]
