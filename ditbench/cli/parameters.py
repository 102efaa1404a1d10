"""``parameters``: what a method trains, and the memory of its gradients and optimiser, beside full fine-tuning."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ditbench.cli.overrides import parse_overrides, spec_of

if TYPE_CHECKING:
    from ditbench.methods.training.accounting import Accounting

MIB = 2**20


def show_parameters(method: str, settings: list[str], as_json: bool) -> None:
    """Count on shapes alone: no weights are made. Raises InputError for an unknown method or config key."""
    from ditbench.methods.training.accounting import accounting_of, full_accounting

    spec_of(method, settings)
    config = parse_overrides(settings)
    ours, full = accounting_of(method, config), full_accounting(method, config)
    if as_json:
        print(json.dumps({"method": method, "config": config, **_figures(ours, full)}, indent=1))
        return
    print(f"{method}: {ours.parameters:,} parameters, {ours.trainable:,} of them trained ({ours.share:.3%})")
    if ours.trainable != full.trainable:
        print(f"Full fine-tuning trains {full.trainable:,}: here {_fewer(ours, full):.3%} fewer.")
    for name, mine, whole in (
        ("gradients", ours.gradient_bytes, full.gradient_bytes),
        ("AdamW's averages", ours.optimizer_bytes, full.optimizer_bytes),
    ):
        print(f"  {name:<17} {mine / MIB:10.2f} MiB   full {whole / MIB:10.2f} MiB")


def _fewer(ours: Accounting, full: Accounting) -> float:
    return 1 - ours.trainable / full.trainable


def _figures(ours: Accounting, full: Accounting) -> dict[str, Any]:
    return {
        "parameters": ours.parameters,
        "trainable": ours.trainable,
        "trainable_share": ours.share,
        "fewer_than_full_percent": 100 * _fewer(ours, full),
        "gradient_mib": ours.gradient_bytes / MIB,
        "optimizer_mib": ours.optimizer_bytes / MIB,
        "full": {
            "parameters": full.parameters,
            "trainable": full.trainable,
            "gradient_mib": full.gradient_bytes / MIB,
            "optimizer_mib": full.optimizer_bytes / MIB,
        },
    }
