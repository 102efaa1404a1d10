"""Where two runs of one model part: the first module whose input or output differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from ditbench.harness.conformance.places import place_of
from ditbench.harness.conformance.subject import off

Pick = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True)
class Event:
    """A module was entered, or left, with these tensors."""

    name: str
    left: bool
    tensors: tuple[Tensor, ...]


@contextmanager
def recorded(model: nn.Module) -> Iterator[list[Event]]:
    """What goes in and out of every module meanwhile."""
    events: list[Event] = []

    def note(name: str, left: bool, values: Any) -> None:
        tensors = tuple(value.detach().clone() for value in tree_iter(values) if isinstance(value, Tensor))
        events.append(Event(name, left, tensors))

    def enter(name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        note(name, False, (args, {key: value for key, value in kwargs.items() if isinstance(value, Tensor)}))

    def leave(name: str, module: nn.Module, args: Any, out: Any) -> None:
        note(name, True, out)

    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(partial(enter, name), with_kwargs=True))
        hooks.append(module.register_forward_hook(partial(leave, name)))
    try:
        yield events
    finally:
        for hook in hooks:
            hook.remove()


def parting(
    model: nn.Module, run: Callable[[], Any], again: Callable[[], Any], pick: Pick, pick_again: Pick, close: float = 0.0
) -> str:
    """The place where two runs part by more than ``close``, relative; ``pick``s give what must be equal of a tensor.

    'blocks.1 (Mixing.forward), my/model.py:31'; of a model whose modules agree, its own function.
    """
    with recorded(model) as first:
        run()
    with recorded(model) as second:
        again()
    for a, b in zip(first, second, strict=False):
        if (a.name, a.left) != (b.name, b.left):
            return f"{_named(model, a.name)}: the runs part ways before it"
        for one, other in zip(a.tensors, b.tensors, strict=False):
            ours, theirs = pick(one), pick_again(other)
            if ours is None or theirs is None or ours.shape != theirs.shape or not ours.is_floating_point():
                continue
            if not _near(ours, theirs, close):
                return _told(model, a)
    return f"outside of all modules, in {place_of(type(model), 'predict', 'forward')}"


def row(index: int, rows: int) -> Pick:
    """One row of tensors that have so many, first axis."""

    def pick(tensor: Tensor) -> Tensor | None:
        return tensor[index] if tensor.dim() > 1 and len(tensor) == rows else None

    return pick


def whole(tensor: Tensor) -> Tensor | None:
    return tensor


def _near(a: Tensor, b: Tensor, close: float) -> bool:
    return torch.equal(a, b) if close == 0.0 else off(a, b) <= close


def _told(model: nn.Module, event: Event) -> str:
    if event.left:
        return f"inside {_named(model, event.name)}"
    if not event.name:
        return f"before the model's own call, in {place_of(type(model), 'predict')}"
    parent, _, child = event.name.rpartition(".")
    while parent and isinstance(model.get_submodule(parent), nn.ModuleList | nn.ModuleDict):
        parent, _, above = parent.rpartition(".")
        child = f"{above}.{child}"
    return f"inside {_named(model, parent)}, before {child}"


def _named(model: nn.Module, name: str) -> str:
    return f"{name or 'the model'}, {place_of(type(model.get_submodule(name)), 'forward')}"
