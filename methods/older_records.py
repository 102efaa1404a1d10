"""What older versions stored of these methods, in the form that records have now. Free of torch.

Nothing is lost: a record that is of today's form already comes out as it went in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ditbench.methods.adaptation import FULL
from ditbench.methods.glossary import LAYOUTS, notes, plain
from ditbench.methods.lora.config import AdapterConfig

_SHARES = {"heads": "attention heads", "groups": "MLP channel groups", "tokens": "tokens"}
_ADAPTER = ("adapter", "recipe")


def upgrade(measurement: str, spec: Mapping[str, Any], detail: Mapping[str, Any]) -> dict[str, Any]:
    """The ``detail`` of a record of a cell with this ``spec``."""
    upgraders = {"flops": _flops, "agreement": _agreement, "latency": _latency, "training": _training}
    change = upgraders.get(measurement)
    return dict(detail) if change is None else change(spec, dict(detail))


def imposed_by(config: Mapping[str, Any]) -> str:
    """The key of a method's config that imposed its cost, in place of its routers; '' where none did."""
    return "activity" if config.get("activity") is not None else ""


def _flops(spec: Mapping[str, Any], detail: dict[str, Any]) -> dict[str, Any]:
    """``activity`` and ``schedule`` become ``facets`` and ``compute``."""
    if "facets" in detail or not {"activity", "schedule"} & detail.keys():
        return detail
    activity, schedule = detail.pop("activity", None) or {}, detail.pop("schedule", None) or {}
    shares = [
        {"name": name, "values": activity[part], **notes(name)} for part, name in _SHARES.items() if activity.get(part)
    ]
    labels = [_patches(schedule)] if schedule.get("patch") and schedule.get("sizes") else []
    detail["facets"] = None
    if shares or labels:
        timesteps = activity.get("timesteps") or schedule.get("timesteps") or []
        detail["facets"] = {"timesteps": timesteps, "shares": shares, "labels": labels}
    if labels and schedule.get("fraction") is not None:
        detail["compute"] = {
            "of": f"{_patch(schedule['sizes'][0])} throughout",
            "share": schedule["fraction"],
            "by_convention": schedule.get("fractions") or {},
        }
    return detail


def _patches(schedule: Mapping[str, Any]) -> dict[str, Any]:
    def words(sizes: Any) -> list[str] | None:
        return [str(size) for size in sizes] if sizes else None

    return {
        "name": "patch size",
        "values": words(schedule["patch"]),
        "guidance": words(schedule.get("guide")),
        "levels": words(schedule["sizes"]),
        **notes("patch size"),
    }


def _patch(size: Any) -> str:
    return f"patch size {size}"


def _agreement(spec: Mapping[str, Any], detail: dict[str, Any]) -> dict[str, Any]:
    """``powerful`` and ``sizes`` become ``reference`` and ``variants``."""
    if "powerful" in detail:
        detail["reference"] = _patch(detail.pop("powerful"))
        curves = sorted(detail.pop("sizes", {}).items(), key=lambda entry: int(entry[0]))
        detail["variants"] = {_patch(size): curve for size, curve in curves}
    return detail


def _latency(spec: Mapping[str, Any], detail: dict[str, Any]) -> dict[str, Any]:
    """``layouts_ms`` becomes ``choices_ms``."""
    if "layouts_ms" in detail:
        detail["choices_ms"] = detail.pop("layouts_ms") or {}
        if detail["choices_ms"]:
            detail["choices_about"] = plain(LAYOUTS)
    return detail


def _training(spec: Mapping[str, Any], detail: dict[str, Any]) -> dict[str, Any]:
    """A bare word for the way of training, with the adapter beside it, becomes all that is shown and compared."""
    if isinstance(detail.get("adaptation"), str):
        adapter, recipe = detail.pop("adapter", None), detail.get("recipe") or {}
        detail["adaptation"] = adaptation(spec.get("config") or {}, recipe, adapter)
    return detail


def adaptation(
    config: Mapping[str, Any], recipe: Mapping[str, Any], adapter: Mapping[str, Any] | None
) -> dict[str, Any]:
    """How a cell's weights were trained: what ``training.run.adaptation_of`` says of the same recipe today."""
    return {
        **asdict(FULL if adapter is None else AdapterConfig.parse(adapter).adaptation),
        "family": {
            "config": {name: value for name, value in config.items() if name not in _ADAPTER},
            "base": recipe.get("base"),
            "dataset": recipe.get("dataset"),
            "target": (recipe.get("dynamic") or {}).get("target"),
        },
        "course": {name: recipe.get(name) for name in ("steps", "batch", "flexible")},
    }
