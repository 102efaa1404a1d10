"""Modifiers: what can be put around any method, in order, the first one innermost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Literal, cast

from torch import Tensor

from ditbench.methods.call import Call, Place, Run
from ditbench.methods.conditions import Conditions, of_labels
from ditbench.methods.errors import ConfigError
from ditbench.methods.memory import Memory
from ditbench.methods.plans import StepPlan
from ditbench.methods.protocols import Denoiser, in_two_calls
from ditbench.methods.work import WorkUnit

Want = Literal["output", "units", "tokens", "weights"]


class Modifier:
    """Base: override what the method needs. Everything here does nothing.

    wants        what it must be able to take hold of in a model
    remembers    it keeps something between steps: solvers that call out of order refuse it
    data_decide  the data decide what it computes: counting then needs samples, and each sample decides for itself
    """

    wants: ClassVar[tuple[Want, ...]] = ()
    remembers: ClassVar[bool] = False
    data_decide: ClassVar[bool] = False

    def refuses(self, model: Denoiser) -> str:
        """Why it cannot stand around ``model`` (which may be modified already); empty where it can."""
        return ""

    def schedule(self, plans: Sequence[StepPlan], guided: Sequence[bool]) -> list[StepPlan]:
        """The plans of a loop with its own choices in them, as far as they are known ahead."""
        return list(plans)

    def fit(self, model: Denoiser) -> None:
        """Change the model's weights or modules, once, before the first call."""

    def around(self, place: Place, x: Tensor, run: Run, call: Call) -> Tensor:
        """What runs in place of a unit: see ``Wrapper``."""
        return run(x)

    def output(self, x: Tensor, run: Run, call: Call) -> Tensor:
        """What runs in place of a whole call: x (B, C, …) -> the model's output."""
        return run(x)

    def work(self, units: list[WorkUnit], plan: StepPlan, rows: int) -> list[WorkUnit]:
        """The pieces that a call executes under ``plan``, from those that it would execute without."""
        return units


class Modified:
    """A denoiser with modifiers around it; for all else it is the denoiser itself."""

    def __init__(self, model: Denoiser, modifiers: Sequence[Modifier]) -> None:
        """Raises ConfigError, with the reason, for a modifier that cannot stand where it shall."""
        self.model, self.modifiers = model, tuple(modifiers)
        for place, modifier in enumerate(self.modifiers):
            inner = Modified(model, self.modifiers[:place]) if place else model
            name = type(modifier).__name__
            if {"units", "tokens"} & {*modifier.wants} and not inner.has_units:
                raise ConfigError(f"{name} wraps units of blocks, and {type(model).__name__} shows none")
            if reason := modifier.refuses(cast(Denoiser, inner)):
                raise ConfigError(f"{name}: {reason}")
            modifier.fit(cast(Denoiser, inner))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    @cached_property
    def wrappers(self) -> tuple[Modifier, ...]:
        return tuple(each for each in self.modifiers if {"units", "tokens"} & {*each.wants})

    @property
    def _wraps(self) -> bool:
        """Whether anything stands around calls or units: then each branch of unequal choices has a call of its own."""
        return bool(self.wrappers) or any("output" in each.wants for each in self.modifiers)

    @property
    def remembers(self) -> bool:
        return self.model.remembers or any(each.remembers for each in self.modifiers)

    @property
    def data_decide(self) -> bool:
        return self.model.data_decide or any(each.data_decide for each in self.modifiers)

    def begin(self, rows: int) -> Memory:
        return self.model.begin(rows)

    def scheduled(self, plans: Sequence[StepPlan], guided: Sequence[bool]) -> list[StepPlan]:
        made = self.model.scheduled(plans, guided)
        for modifier in self.modifiers:
            made = modifier.schedule(made, guided)
        return made

    def predict(self, x: Tensor, t: Tensor, conditions: Conditions, call: Call) -> Tensor:
        inner = Call(call.plan, call.ledger, call.memory, (*self.wrappers, *call.wrappers), call.branches)

        run: Run = lambda x: self.model.predict(x, t, conditions, inner)  # noqa: E731

        for modifier in self.modifiers:
            if "output" in modifier.wants:
                run = _around(modifier, run, inner)
        return run(x)

    def predict_pair(
        self, x: Tensor, t: Tensor, conditions: Conditions, other: Conditions, call: Call, *, tuned: bool = False
    ) -> tuple[Tensor, Tensor]:
        if not self._wraps:
            return self.model.predict_pair(x, t, conditions, other, call, tuned=tuned)
        return in_two_calls(cast(Denoiser, self), x, t, conditions, other, call)

    def tune(self, plans: Sequence[StepPlan], rows: int, same_class: bool) -> dict[str, dict[str, float]]:
        return {} if self._wraps else self.model.tune(plans, rows, same_class)

    def __call__(self, x: Tensor, t: Tensor, y: Tensor, *, call: Call | None = None, **more: Any) -> Tensor:
        """As the model's own call, for class labels."""
        call = call or Call(**more)
        return self.predict(x, t, of_labels(self.model.facts, y), call)

    def work(self, plan: StepPlan, rows: int = 1, decided: tuple[int, ...] | None = None) -> list[WorkUnit]:
        units = self.model.work(plan, rows, decided)
        for modifier in self.modifiers:
            units = modifier.work(units, plan, rows)
        return units


def _around(modifier: Modifier, run: Run, call: Call) -> Run:
    return lambda x: modifier.output(x, run, call)


def without_units(units: Sequence[WorkUnit], left_out: Mapping[int, Sequence[str]]) -> list[WorkUnit]:
    """The pieces without these units (layer -> names); a layer whose 'block' is left out keeps none of its pieces.

    For the ``work`` of modifiers that do not compute some units. Raises ConfigError where no piece says that it belongs
    to such a layer: what is left out is then in a count that cannot be divided.
    """
    if lost := left_out.keys() - {layer for piece in units if piece.unit for layer in piece.layers}:
        raise ConfigError(f"no piece of work is told by unit and layer in layer {min(lost)}: it cannot be left out")
    kept = []
    for piece in units:
        if not piece.unit:
            kept.append(piece)
            continue
        layers = tuple(layer for layer in piece.layers if not {piece.unit, "block"} & {*left_out.get(layer, ())})
        if layers:
            kept.append(fewer(piece, layers))
    return kept


def fewer(piece: WorkUnit, layers: tuple[int, ...]) -> WorkUnit:
    """The piece in these of its layers only. Work that is told a token (repeats not one a layer) is scaled by layer."""

    share = piece.repeats // len(piece.layers)
    return replace(piece, layers=layers, repeats=share * len(layers))


def made_modifiers(wanted: Sequence[Mapping[str, Any]]) -> list[Modifier]:
    """From what users write: [{fora: {interval: 3}}, {tome: {ratio: 0.3}}]. Raises ConfigError, UnknownNameError."""
    from ditbench.methods.registry import modifiers

    made = []
    for each in wanted:
        if not isinstance(each, Mapping) or len(each) != 1:
            raise ConfigError(f"a modifier is written as NAME: {{options}}, not {each!r}")
        ((name, options),) = each.items()
        entry = modifiers()[str(name)]
        try:
            found = entry.load()(**{**entry.preset, **(options or {})})
        except TypeError as error:
            raise ConfigError(f"modifier {name}: {error}") from None
        if not isinstance(found, Modifier):
            raise ConfigError(f"modifier {name}: {entry.target} makes a {type(found).__name__}, which is none")
        made.append(found)
    return made


def modified(model: Denoiser, wanted: Sequence[Mapping[str, Any]]) -> Denoiser:
    """``model`` with modifiers, made from what users write; the model itself where there are none."""
    return cast(Denoiser, Modified(model, made_modifiers(wanted))) if wanted else model
