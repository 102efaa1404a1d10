"""Checks of plans: what a method says ahead of a loop."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ditbench.harness.conformance.outcome import Fault, Outcome, does_not_apply, judged, ok, wrong
from ditbench.harness.conformance.places import place_of
from ditbench.harness.conformance.subject import CLOSE, Subject, off, predict
from ditbench.methods.errors import ConfigError
from ditbench.methods.plans import Facet, StepPlan
from ditbench.methods.protocols import Denoiser
from ditbench.methods.work import WorkUnit


def plans(subject: Subject) -> Outcome:
    """One an evaluation, at its time, the same whenever and by whichever equal model they are made."""
    model, where, faults = subject.model, subject.place("plan"), list[Fault]()
    times = [float(t) for t in subject.cell.sampler.timesteps]
    first = model.plan(times)
    if found := _misplaced(first, times):
        faults.append(Fault(f"plan({len(times)} times) {found}", where))
    twice = [t for t in times for _ in range(2)]
    if found := _misplaced(model.plan(twice, stages=2), twice):
        faults.append(Fault(f"plan({len(twice)} times, stages=2) {found}", where))
    if model.plan(times) != first:
        faults.append(Fault("the same times give other plans when they are asked for again", where))
    if subject.fresh().plan(times) != first:
        faults.append(Fault("a model with the same weights makes other plans", where))
    guided = [subject.cell.rule.guides(t) for t in times]
    scheduled = model.scheduled(first, guided)
    there = subject.place("scheduled")
    if found := _misplaced(scheduled, times):
        faults.append(Fault(f"scheduled({len(times)} plans) {found}", there))
    if model.scheduled(first, guided) != scheduled:
        faults.append(Fault("scheduled gives other plans when it is asked again", there))
    for plan in scheduled:
        try:
            hash(plan.key)
        except TypeError as error:
            kinds = ", ".join(type(choice).__name__ for choice in plan.choices)
            do = "make choices of frozen dataclasses, tuples and numbers"
            return judged([*faults, Fault(f"a plan has no hash: {error} (choices: {kinds})", where, do)])
    return judged(faults, f"{len({plan.key for plan in scheduled})} distinct of {len(scheduled)}")


def _misplaced(made: Sequence[StepPlan], times: Sequence[float]) -> str:
    if len(made) != len(times):
        return f"gives {len(made)} plans"
    wrong_ones = [index for index, plan in enumerate(made) if plan.timestep != times[index]]
    if wrong_ones:
        first = wrong_ones[0]
        return f"says timestep {made[first].timestep:g} at place {first}, where {times[first]:g} was asked"
    return ""


def single(subject: Subject) -> Outcome:
    """Of a method whose plans depend on the time alone, the same; of one that counts steps, what the ends have."""
    model, where = subject.model, subject.place("plan_at")
    times = [float(t) for t in subject.cell.sampler.timesteps]
    grid = model.plan(times)
    try:
        found = [model.plan_at(t) for t in times]
    except ConfigError as error:
        return does_not_apply(f"it refuses: {error}")
    again = [model.plan_at(t) for t in times]
    by_time = _by_time_alone(model, grid)
    for plan, other, second in zip(grid, found, again, strict=True):
        if other != second:
            return wrong(f"plan_at({plan.timestep:g}) gives another plan when it is asked again", where)
        if other.timestep != plan.timestep:
            return wrong(f"plan_at({plan.timestep:g}) says timestep {other.timestep:g}", where)
        at_an_end = plan in (grid[0], grid[-1])
        if (by_time or at_an_end) and other != plan:
            return wrong(f"plan_at({plan.timestep:g}) gives {other.choices}, and the grid has {plan.choices}", where)
    return ok() if by_time else ok("plans depend on the place in the grid: both ends were compared")


def _by_time_alone(model: Denoiser, grid: Sequence[StepPlan]) -> bool:
    try:
        return all(model.plan([plan.timestep]) == [plan] for plan in grid)
    except ConfigError:
        return False


def facets(subject: Subject) -> Outcome:
    """What records keep and reports draw of choices."""
    faults = list[Fault]()
    seen: dict[tuple[type, str], Facet] = {}
    for plan in subject.cell.plans():
        for choice in (*plan.choices, *(plan.guidance or ())):
            for facet in choice.facets():
                where = place_of(type(choice), "facets")
                first = seen.setdefault((type(choice), facet.name), facet)
                if found := _malformed(facet, first):
                    fault = Fault(f"facet '{facet.name}' {found}, at timestep {plan.timestep:g}", where)
                    faults += [fault] if all(each.where != where for each in faults) else []
    return judged(faults, ", ".join(sorted({name for _, name in seen})))


def _malformed(facet: Facet, first: Facet) -> str:
    values = facet.value if isinstance(facet.value, tuple) else (facet.value,)
    if not facet.name or not values:
        return "has no name or no value"
    if len({isinstance(value, str) for value in values}) > 1:
        return "has shares and labels at once"
    shares = [value for value in values if not isinstance(value, str)]
    if shares and not all(0.0 <= share <= 1.0 for share in shares):
        return f"has a share of {next(s for s in shares if not 0.0 <= s <= 1.0):g}, outside of 0 to 1"
    unknown = [value for value in values if isinstance(value, str) and value not in facet.levels]
    if unknown:
        return f"has the label {unknown[0]!r}, which is none of its levels {facet.levels}"
    if isinstance(facet.value, tuple) != isinstance(first.value, tuple) or facet.levels != first.levels:
        return "has another form or other levels from step to step"
    if isinstance(facet.value, tuple) and isinstance(first.value, tuple) and len(facet.value) != len(first.value):
        return f"has {len(facet.value)} layers, and {len(first.value)} at another step"
    return ""


def keys(subject: Subject) -> Outcome:
    """Plans of one key declare the same pieces, and a call takes its time from t: graphs and counts share them."""
    model, faults = subject.model, list[Fault]()
    groups: dict[StepPlan, list[StepPlan]] = defaultdict(list)
    for plan in subject.cell.plans():
        groups[plan.key].append(plan)
    shapes: dict[str, list[tuple[int, ...]]] = {}
    where = subject.place("work")
    for group in groups.values():
        first = [_told(unit) for unit in model.work(group[0], 2)]
        for plan in (group[0], group[-1]):
            units = model.work(plan, 2)
            if [_told(unit) for unit in units] != first:
                what = f"equal keys, other pieces: at timesteps {group[0].timestep:g} and {plan.timestep:g}"
                faults.append(Fault(what, where))
            for unit in units:
                made = [tuple(tensor.shape) for tensor in unit.inputs()]
                if shapes.setdefault(unit.key, made) != made:
                    what = f"two pieces are called {unit.key!r} and have inputs {shapes[unit.key]} and {made}"
                    faults.append(Fault(what, where, "name in a piece's key all that its shapes depend on"))
    by_key: dict[StepPlan, list[int]] = defaultdict(list)
    for index, step in enumerate(subject.walk):
        by_key[step.plan.key].append(index)
    for indices in by_key.values():
        a, b = subject.walk[indices[0]], subject.walk[indices[-1]]
        if a.plan.timestep == b.plan.timestep:
            continue
        own = predict(model, b.x, b.plan, subject.conditions)
        lent = predict(model, b.x, a.plan, subject.conditions, time=b.plan.timestep)
        if (by := off(lent, own)) > CLOSE:
            what = (
                f"plans of timesteps {a.plan.timestep:g} and {b.plan.timestep:g} have one key, and at the same t they "
                f"give outputs {by:.1e} apart"
            )
            faults.append(Fault(what, subject.place("predict", "forward")))
            break
    return judged(faults)


def _told(unit: WorkUnit) -> tuple[object, ...]:
    return (unit.key, unit.repeats, unit.part, unit.when, unit.unit, unit.layers)
