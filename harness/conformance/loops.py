"""Checks of what lives longer than a call: memory, what modules keep, and what is prepared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ditbench.harness.conformance.outcome import Fault, Outcome, does_not_apply, judged, ok, wrong
from ditbench.harness.conformance.places import class_place, place_of
from ditbench.harness.conformance.subject import CLOSE, ROWS, Subject, around_of, off, predict
from ditbench.harness.measure.proof import bare
from ditbench.harness.sample.generate import BoundCell
from ditbench.methods.diffusion.guidance import GuidedDenoiser
from ditbench.methods.protocols import Denoiser

See = Callable[[Tensor, int], None]


def empty(subject: Subject) -> Outcome:
    """Loops on the same noise give the same, one after the other, one inside the other, and in a new model."""
    model = subject.fresh()
    first, second = model.begin(ROWS), model.begin(ROWS)
    begin, faults = subject.place("begin"), list[Fault]()
    if first is second:
        faults.append(Fault("begin() gives the same memory twice", begin))
    if len(first) or first.rows != ROWS:
        what = f"begin({ROWS}) gives a memory of {first.rows} rows with {len(first)} tensors in it"
        faults.append(Fault(what, begin))
    cell = subject.bound(model, subject.cell.rule.scale)
    before = _kept(model)
    expected = _loop(cell)

    def between(x: Tensor, step: int) -> None:
        if step == max(1, subject.steps // 2):
            _loop(cell, range(ROWS, 2 * ROWS))

    for how, found in (
        ("a second loop on the same noise", _loop(cell)),
        ("a loop with another one inside of it", _loop(cell, see=between)),
        ("the same loop of a new model", _loop(subject.bound(subject.fresh(), cell.rule.scale))),
    ):
        parted = next((k for k, (a, b) in enumerate(zip(found, expected, strict=True)) if not torch.equal(a, b)), None)
        if parted is not None:
            what = f"{how} differs from evaluation {max(parted - 1, 0)} on, by {off(found[-1], expected[-1]):.1e}"
            faults.append(Fault(what, _keeper(model, before)))
            break
    return judged(faults)


def remembers(subject: Subject) -> Outcome:
    """A call after others of its loop gives what it gives alone, unless the method says that it remembers."""
    model = subject.model
    given = subject.conditions
    worst, where = 0.0, 0.0
    guided = GuidedDenoiser(model, given, [step.plan for step in subject.walk], subject.unguided.rule)
    with torch.inference_mode():
        for number, step in enumerate(subject.walk):
            in_order = guided(step.x, number)
            alone = predict(model, step.x, step.plan, given)
            if not torch.equal(in_order, alone) and off(in_order, alone) > worst:
                worst, where = off(in_order, alone), step.plan.timestep
    if worst and not model.remembers:
        what = f"a call at timestep {where:g} after earlier ones differs from it alone by {worst:.1e}"
        return wrong(f"{what}, and remembers is False", subject.place("remembers"))
    if model.remembers and not worst:
        return ok("it says that it remembers, and no call of this loop depended on it")
    return ok("remembers" if model.remembers else "")


def repeats(subject: Subject) -> Outcome:
    """A step timed again and again does the same each time."""
    model = subject.model
    if not model.remembers:
        return does_not_apply("nothing is remembered")
    size = 0
    for cell in (subject.cell, subject.unguided):
        guided = cell.denoiser(subject.conditions)
        for number, step in enumerate(subject.walk):
            before = guided.memory.snapshot()
            with torch.inference_mode():
                first = guided(step.x, number).clone()
                after = guided.memory.snapshot()
                guided.memory.restore(before)
                again = guided(step.x, number)
            if not torch.equal(first, again):
                what = f"evaluation {number} from the same memory differs by {off(again, first):.1e} the second time"
                return wrong(what, subject.place("predict", "forward"))
            guided.memory.restore(after)
            size = max(size, guided.memory.bytes)
    return ok(f"{size / 2**20:.2f} MiB kept for {ROWS} images")


def prepared(subject: Subject) -> Outcome:
    """Prepared, prepared for all plans at once, forgotten or tuned: the outputs are the same."""
    model, faults = subject.fresh(), list[Fault]()
    steps = subject.looked_at
    expected = [predict(subject.fresh(), step.x, step.plan, subject.conditions) for step in steps]
    plans, tuned = subject.cell.plans(), dict[str, Any]()

    def prepare() -> None:
        for plan in plans:
            model.prepare(plan)

    def tune() -> None:
        tuned.update(model.tune([plan for plan in plans if subject.cell.rule.guides(plan.timestep)], ROWS, True))

    for name, act in (("prepare", prepare), ("forget", model.forget), ("tune", tune)):
        act()
        for step, output in zip(steps, expected, strict=True):
            found = predict(model, step.x, step.plan, subject.conditions)
            if not torch.equal(found, output):
                what = f"after {name}() the output differs by {off(found, output):.1e}"
                return wrong(f"{what}, at timestep {step.plan.timestep:g}", subject.place(name))
    if tuned and (by := _tuned_off(subject, model)) > CLOSE:
        faults.append(Fault(f"as tune found fastest, outputs differ by {by:.1e}", subject.place("tune")))
    model.forget()
    if not faults and model.prepared_bytes:
        what = f"after forget() {model.prepared_bytes} bytes are still prepared"
        faults.append(Fault(what, subject.place("forget")))
    return judged(faults)


def _tuned_off(subject: Subject, model: Denoiser) -> float:
    """How far both branches in the fastest way are from them in the usual one."""
    cell, given, worst = subject.cell, subject.conditions, 0.0
    with torch.inference_mode():
        for number, step in enumerate(subject.walk):
            usual, fast = (
                GuidedDenoiser(model, given, cell.plans(), cell.rule, tuned=tuned)(step.x, number)
                for tuned in (False, True)
            )
            worst = max(worst, off(fast, usual))
    return worst


def _loop(cell: BoundCell, indices: range = range(ROWS), see: See | None = None) -> list[Tensor]:
    """What each evaluation is given, and the samples."""
    states: list[Tensor] = []

    def note(x: Tensor, step: int) -> None:
        states.append(x.clone())
        if see is not None:
            see(x, step)

    streams = cell.streams(indices)
    samples = cell.loop(cell.denoiser(streams.conditions), streams.noise(), streams.noise, note)
    return [*states, samples]


def _keeper(model: Denoiser, before: dict[str, Any]) -> str:
    """Attributes that changed since ``before``, and who makes them."""
    after, module = _kept(model), bare(model)
    changed = [name for name in after if name not in before or before[name] != after[name]]
    if not changed:
        return f"no attribute of a module changed: a global, a cache or a closure of {class_place(type(module))}"
    owners = {type(each).__name__: type(each) for each in around_of(model)}
    name = changed[0].rpartition(".")[0]
    kind = owners.get(name) or type(module.get_submodule(name))
    return f"{', '.join(changed[:3])} changed in the loop, {place_of(kind, 'forward', 'output', 'around', 'predict')}"


def _kept(model: Denoiser) -> dict[str, Any]:
    """Name -> what shows a change, of every attribute of every module, and of modifiers around it."""
    holders: list[tuple[str, Iterable[tuple[str, Any]]]] = [
        (prefix, _attributes(each)) for prefix, each in bare(model).named_modules()
    ]
    holders += [(type(each).__name__, vars(each).items()) for each in around_of(model)]
    return {
        f"{prefix}.{name}" if prefix else name: _digest(value)
        for prefix, attributes in holders
        for name, value in attributes
    }


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)
    for name, value in vars(module).items():
        if not (name.startswith(("_parameters", "_buffers", "_modules")) or "_hooks" in name or name == "training"):
            yield name, value


def _digest(value: Any, depth: int = 0) -> Any:
    if isinstance(value, Tensor):
        return (tuple(value.shape), hash(value.detach().float().numpy().tobytes()))
    if isinstance(value, str | int | float | bool | None):
        return value
    if depth < 3 and isinstance(value, dict):
        return [(str(key), _digest(each, depth + 1)) for key, each in value.items()]
    if depth < 3 and isinstance(value, list | tuple):
        return [_digest(each, depth + 1) for each in value]
    return type(value).__name__
