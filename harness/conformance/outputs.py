"""Checks of what single calls give: shapes, number types, rows, conditions and guidance."""

from __future__ import annotations

import torch
from torch import Tensor

from ditbench.harness.conformance.outcome import Fault, Outcome, does_not_apply, judged, ok, wrong
from ditbench.harness.conformance.places import error_place, first_line
from ditbench.harness.conformance.subject import CLOSE, ROWS, Step, Subject, off, predict
from ditbench.harness.conformance.trail import parting, row
from ditbench.harness.measure.proof import bare
from ditbench.methods.call import Call
from ditbench.methods.conditions import LABEL, Conditions
from ditbench.methods.diffusion.guidance import combine
from ditbench.methods.memory import BRANCHES

MEANT_NOTHING = "an imposed cost: the samples mean nothing"


def shape(subject: Subject) -> Outcome:
    """(B, C or 2C, …) of the facts' space, all finite, at every step of a loop."""
    facts, where = subject.model.facts, subject.place("predict", "forward")
    streams = subject.unguided.streams(range(ROWS))
    x, expected = streams.noise(), (ROWS, *facts.space.shape)
    plan = subject.unguided.plans()[0].branches[0]
    try:
        out = predict(subject.model, x, plan, streams.conditions)
    except Exception as error:
        what = f"a call with x {list(expected)} of the facts' space fails: {first_line(error)}"
        return wrong(what, error_place(error, subject.packages))
    channels = facts.space.channels
    if (
        out.dim() != x.dim()
        or out.shape[1] not in (channels, 2 * channels)
        or (len(out), *out.shape[2:])
        != (
            ROWS,
            *x.shape[2:],
        )
    ):
        what = f"x {list(x.shape)} gives {list(out.shape)}, and the facts say {channels} or {2 * channels} channels"
        return wrong(what, where)
    for number, step in enumerate(subject.walk):
        out = predict(subject.model, step.x, step.plan, subject.conditions)
        if not out.isfinite().all():
            return wrong(f"not finite at timestep {step.plan.timestep:g} (evaluation {number})", where)
        if not out.abs().max() > 0:
            return wrong(f"nothing but zeros at timestep {step.plan.timestep:g} (evaluation {number})", where)
    return ok(f"{list(out.shape)}")


def dtypes(subject: Subject) -> Outcome:
    """The same loop runs with all weights and inputs in bfloat16."""
    cell = subject.bound(subject.fresh(torch.bfloat16), subject.cell.rule.scale, "bfloat16")
    try:
        samples, _ = cell.generate(range(2))
    except Exception as error:
        what = f"with weights and inputs in bfloat16 a loop fails: {first_line(error)}"
        return wrong(what, error_place(error, subject.packages))
    if not samples.isfinite().all():
        return wrong("not finite in bfloat16", subject.place("predict", "forward"))
    return ok()


def rows(subject: Subject) -> Outcome:
    """A row gives the same alone, and beside other neighbours."""
    if subject.model.facts.imposed:
        return does_not_apply(MEANT_NOTHING)
    faults = []
    for step in subject.looked_at:
        if (fault := _rows_at(subject, step)) is not None:
            faults.append(fault)
            break
    return judged(faults)


def _rows_at(subject: Subject, step: Step) -> Fault | None:
    model, conditions, module = subject.model, subject.conditions, bare(subject.model)
    together = predict(model, step.x, step.plan, conditions)
    for index in range(ROWS):
        chosen = conditions.rows([index])

        def alone(index: int = index, chosen: Conditions = chosen) -> Tensor:
            return predict(model, step.x[index : index + 1], step.plan, chosen)

        if (by := off(alone()[0], together[index])) > CLOSE:
            place = parting(
                module,
                lambda: predict(model, step.x, step.plan, conditions),
                alone,
                row(index, ROWS),
                row(0, 1),
                CLOSE,
            )
            what = f"row {index} alone differs from itself in a batch of {ROWS} by {by:.1e} of the largest output"
            return Fault(f"{what}, at timestep {step.plan.timestep:g}", place)
    louder = torch.cat([step.x[:1], 10 * step.x[1:].flip(0)])
    others = conditions.rows([0, *range(ROWS - 1, 0, -1)])
    if (by := off(predict(model, louder, step.plan, others)[0], together[0])) > CLOSE:
        place = parting(
            module,
            lambda: predict(model, step.x, step.plan, conditions),
            lambda: predict(model, louder, step.plan, others),
            row(0, ROWS),
            row(0, ROWS),
            CLOSE,
        )
        what = f"row 0 differs by {by:.1e} of the largest output when the other rows are others"
        return Fault(f"{what}, at timestep {step.plan.timestep:g}", place)
    return None


def alone(subject: Subject) -> Outcome:
    """A guided loop of one sample does at every evaluation what a loop of several does for it.

    Both are given the same states, those of the loop of several: what a step rounds off, the next ones magnify.
    """
    if subject.model.facts.imposed:
        return does_not_apply(MEANT_NOTHING)
    cell, trail = subject.cell, list[tuple[Tensor, Tensor]]()
    streams = cell.streams(range(ROWS))
    several = cell.denoiser(streams.conditions)

    def denoise(x: Tensor, step: int, t: float | None = None) -> Tensor:
        out = several(x, step, t)
        trail.append((x.clone(), out.clone()))
        return out

    with torch.inference_mode():
        cell.sampler.sample(denoise, streams.noise(), streams.noise)
        for index in (0, ROWS - 1):
            single = cell.denoiser(cell.streams(range(index, index + 1)).conditions)
            for step, (x, out) in enumerate(trail):
                if (by := off(single(x[index : index + 1], step)[0], out[index])) > CLOSE:
                    what = f"sample {index} alone differs from itself among {ROWS} by {by:.1e} of the largest output"
                    when = f"at evaluation {step} (timestep {several.plans[step].timestep:g})"
                    return wrong(f"{what}, {when}", subject.place("predict", "forward"))
    return ok()


def conditions(subject: Subject) -> Outcome:
    """Each condition changes the prediction; every class is taken; 'nothing' is no class."""
    model, step, given = subject.model, subject.looked_at[-1], subject.conditions
    if not given.tensors:
        return does_not_apply("the model is told nothing beside the time")
    where, faults = subject.place("predict", "forward"), []
    x = step.x[:1].expand_as(step.x)

    def told(conditions: Conditions) -> Tensor:
        return predict(model, x, step.plan, conditions)

    for name, tensor in given.tensors.items():
        different = _spread(subject, name, tensor)
        out = told(given.replaced({**given.tensors, name: different}))
        if all(torch.equal(out[0], each) for each in out[1:]):
            faults.append(Fault(f"the prediction is the same whatever '{name}' is", where))
    if model.facts.guidable and not faults:
        faults += _nothing(subject, told, where)
    return judged(faults)


def _spread(subject: Subject, name: str, tensor: Tensor) -> Tensor:
    """ROWS different values of a condition; of labels the first and the last class among them."""
    if name == LABEL:
        count = subject.model.facts.conditions[0].count
        return torch.linspace(0, count - 1, len(tensor)).round().to(tensor)
    return tensor


def _nothing(subject: Subject, told: object, where: str) -> list[Fault]:
    assert callable(told)
    given = subject.conditions
    try:
        nothing = told(given.null())
    except Exception as error:
        what = f"a call without conditions fails: {first_line(error)}"
        return [Fault(what, error_place(error, subject.packages))]
    for name, tensor in given.tensors.items():
        out = told(given.replaced({**given.tensors, name: _spread(subject, name, tensor)}))
        same = [index for index in range(ROWS) if torch.equal(out[index], nothing[index])]
        if same:
            value = f" {int(_spread(subject, name, tensor)[same[0]])}" if name == LABEL else ""
            return [Fault(f"no {name} predicts the same as {name}{value}: guidance has nothing to leave out", where)]
    return []


def guidance(subject: Subject) -> Outcome:
    """A call of both branches gives what each gives alone, so that a scale of 1 leaves the conditional prediction."""
    model = subject.model
    if not model.facts.guidable:
        return does_not_apply("there is no condition to leave out")
    if model.facts.imposed:
        return does_not_apply(MEANT_NOTHING)
    plans, given, faults = subject.cell.plans(), subject.conditions, list[Fault]()
    nothing, channels = given.null(), model.facts.space.channels
    walked = {step.plan.timestep: step for step in subject.looked_at}
    for plan in plans:
        if (step := walked.get(plan.timestep)) is None:
            continue
        first, second = plan.branches
        memory = model.begin(ROWS)
        with torch.inference_mode():
            call = Call(plan, None, memory, branches=BRANCHES)
            if plan.guidance is None:
                t = torch.full((2 * ROWS,), plan.timestep)
                out = model.predict(torch.cat([step.x, step.x]), t, given.cat(nothing), call)
                cond, other = out.chunk(2)
            else:
                cond, other = model.predict_pair(step.x, torch.full((ROWS,), plan.timestep), given, nothing, call)
        at_one = combine(cond, other, 1.0, channels)
        for what, found, branch, conditions in (
            ("guidance at scale 1 differs from the unguided prediction", at_one, first, given),
            ("the branch without conditions differs from a call of its own", other, second, nothing),
        ):
            if (by := off(found, predict(model, step.x, branch, conditions))) > CLOSE:
                where = subject.place("predict_pair" if plan.guidance is not None else "predict", "forward")
                faults.append(Fault(f"{what} by {by:.1e} of the largest, at timestep {plan.timestep:g}", where))
        if faults:
            break
    return judged(faults)
