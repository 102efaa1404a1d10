"""A method that declares less than it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ditbench.methods.backbones.config import DiTConfig
from ditbench.methods.backbones.dit import DiT
from ditbench.methods.config import make_config
from ditbench.methods.plans import StepPlan
from ditbench.methods.work import WorkUnit


class Liar(DiT):
    """Runs all of its MLPs and declares one."""

    def work(self, plan: StepPlan, rows: int = 1, decided: tuple[int, ...] | None = None) -> list[WorkUnit]:
        return [replace(each, repeats=1) if each.unit == "mlp" else each for each in super().work(plan, rows, decided)]


def build(**config: Any) -> Liar:
    return Liar(make_config(DiTConfig, config))
