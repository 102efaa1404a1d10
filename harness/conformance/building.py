"""Checks of how a method is built, on the CPU and on ``meta``, and of what its state dict holds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ditbench import methods
from ditbench.harness.conformance.outcome import Outcome, ok, wrong
from ditbench.harness.conformance.places import class_place, error_place, first_line, place_of
from ditbench.harness.conformance.subject import ROWS, Subject, predict
from ditbench.harness.measure.proof import bare
from ditbench.methods.conditions import zeros
from ditbench.methods.diffusion.guidance import loop_plans
from ditbench.methods.protocols import Denoiser
from ditbench.methods.weights import save_state

SHOWN = 3


def builds(subject: Subject) -> Outcome:
    """A module that has what a denoiser has, with weights in it and modifiers around it."""
    made = subject.module
    if not isinstance(made, nn.Module):
        return wrong(f"it builds a {type(made).__name__}, which is no torch.nn.Module", subject.entry.target)
    names = [name for name in dir(Denoiser) if not name.startswith("_")]
    if lacking := [name for name in names if not hasattr(made, name)]:
        return wrong(f"a denoiser has {', '.join(lacking)}, and this has not", class_place(type(made)))
    count = sum(parameter.numel() for parameter in subject.module.parameters())
    return ok(f"{type(bare(subject.model)).__name__}, {count:,} parameters")


def on_meta(subject: Subject) -> Outcome:
    """It takes no memory when it is built for planning."""
    try:
        model = subject.meta
    except Exception as error:
        what = f"it cannot be built without memory: {first_line(error)}"
        return wrong(what, error_place(error, subject.packages))
    module = bare(model)
    if real := [name for name, tensor, _ in tensors_of(module) if not tensor.is_meta]:
        owner = module.get_submodule(real[0].rpartition(".")[0])
        what = f"built on meta, {_listed(real)} lie{'s' if len(real) == 1 else ''} in memory all the same"
        return wrong(what, place_of(type(owner), "__init__"))
    return ok()


def runs_on_meta(subject: Subject) -> Outcome:
    """A call runs on shapes alone."""
    model = subject.meta
    plan = loop_plans(model, subject.bound(model, 1.0).sampler, subject.unguided.rule)[0].branches[0]
    x = torch.empty(ROWS, *model.facts.space.shape, device="meta")
    try:
        with torch.device("meta"):
            predict(model, x, plan, zeros(model.facts, ROWS, "meta"))
    except Exception as error:
        what = f"a call on shapes alone fails: {first_line(error)}"
        return wrong(what, error_place(error, subject.packages))
    return ok()


def saved(subject: Subject) -> Outcome:
    """Weights written to a file and read into another model, new or used, give the same bits."""
    first = bare(subject.fresh())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        try:
            save_state(file, first.state_dict(), {})
        except RuntimeError as error:
            return wrong(f"its state dict cannot be written: {first_line(error)}", class_place(type(first)))
        second = methods.load_weights(subject.built(seed=1), file)
        expected, found = _outputs(subject, first), _outputs(subject, second)
        if not _same(expected, found):
            return wrong("loaded into a new model, the saved weights predict something else", _lost(first, second))
        if not _same(expected, _outputs(subject, first)):
            return ok("only of new models: one that has run predicts otherwise when it runs again")
        used = subject.built(seed=2)
        _outputs(subject, used)
        methods.load_weights(used, file)
    if not _same(expected, _outputs(subject, used)):
        what = "loaded into a model that has run before, the saved weights predict something else"
        return wrong(what, _lost(first, used), "drop what was made of weights when they change, or key it by them")
    return ok()


def _same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def _outputs(subject: Subject, model: nn.Module) -> list[Tensor]:
    """At the plans that the model itself makes, so that what plans depend on is in them."""
    denoiser = cast(Denoiser, model)
    cell = subject.bound(denoiser, 1.0)
    plans = [plan.branches[0] for plan in loop_plans(denoiser, cell.sampler, cell.rule)]
    steps = zip(plans, subject.walk, strict=True)
    return [predict(denoiser, step.x, plan, subject.conditions) for plan, step in list(steps)[:: len(plans) - 1 or 1]]


def _lost(first: nn.Module, other: nn.Module) -> str:
    """Which tensors differ that no state dict carried."""
    theirs = {name: tensor for name, tensor, _ in tensors_of(other)}
    differing = [
        (name, kind)
        for name, tensor, kind in tensors_of(first)
        if name not in theirs or tensor.shape != theirs[name].shape or not torch.equal(tensor, theirs[name])
    ]
    if not differing:
        return f"no tensor of a module: something else that {class_place(type(first))} makes or keeps"
    name, kind = differing[0]
    owner = first.get_submodule(name.rpartition(".")[0])
    return f"{_listed([each for each, _ in differing])}: {kind}, {place_of(type(owner), '__init__')}"


def tensors_of(module: nn.Module) -> Iterator[tuple[str, Tensor, str]]:
    """Every tensor of every module: its name, itself, and what it is."""
    for prefix, each in module.named_modules():
        dot = f"{prefix}." if prefix else ""
        for name, parameter in each.named_parameters(recurse=False):
            yield dot + name, parameter, "a parameter"
        for name, buffer in each.named_buffers(recurse=False):
            lasting = name not in each._non_persistent_buffers_set
            yield dot + name, buffer, "a buffer" if lasting else "a buffer that is not in the state dict"
        for name, value in vars(each).items():
            if isinstance(value, Tensor):
                yield dot + name, value, "a plain attribute that is not in the state dict"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
