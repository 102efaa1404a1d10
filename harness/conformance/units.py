"""Check of the units of blocks, which modifiers wrap."""

from __future__ import annotations

import torch
from torch import Tensor

from ditbench.harness.conformance.outcome import Fault, Outcome, does_not_apply, judged
from ditbench.harness.conformance.subject import Step, Subject, around_of, off, predict
from ditbench.methods.call import Call, Place, Run

BLOCK = "block"


class _Watch:
    """Runs every unit as it is, and notes where it was; and which gave another shape than it was given."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.misshapen: list[str] = []

    def around(self, place: Place, x: Tensor, run: Run, call: Call) -> Tensor:
        self.places.append(place)
        out = run(x)
        if x.dim() != 3 or out.shape != x.shape:
            self.misshapen.append(f"{place.unit} of layer {place.layer}: x {list(x.shape)}, output {list(out.shape)}")
        return out


def wrapped(subject: Subject) -> Outcome:
    """With a wrapper that changes nothing: the same bits, every layer in order, and pieces for all that it met."""
    model = subject.model
    if not model.has_units:
        return does_not_apply("has_units is False: modifiers of units cannot stand around it")
    faults, visited = list[Fault](), dict[str, None]()
    for step in subject.looked_at:
        watch = _Watch()
        found = predict(model, step.x, step.plan, subject.conditions, wrappers=(watch,))
        visited.update(dict.fromkeys(place.unit for place in watch.places))
        where = subject.place("through", "predict", "forward")
        expected = predict(model, step.x, step.plan, subject.conditions)
        if not torch.equal(found, expected):
            what = f"a wrapper that changes nothing changes the output by {off(found, expected):.1e}"
            faults.append(Fault(what, where, "run the unit in both cases by the same operators"))
        if watch.misshapen:
            faults.append(Fault(f"units take and give (B, N, C): {watch.misshapen[0]}", where))
        faults += [Fault(text, where) for text in _disorder(watch.places, bool(around_of(model)))]
        if not around_of(model):
            faults += _unnamed(subject, step, watch.places)
        if faults:
            break
    return judged(faults, ", ".join(visited))


def _disorder(places: list[Place], around: bool) -> list[str]:
    """What is wrong with the order of visits; modifiers may leave units out."""
    if not places:
        return [] if around else ["no unit was met: nothing runs through call.unit"]
    layers = [place.layer for place in places]
    if len({place.depth for place in places}) > 1 or places[0].depth < 1:
        return [f"units tell depths {sorted({place.depth for place in places})}"]
    depth = places[0].depth
    if layers != sorted(layers) or not {*layers} <= {*range(depth)}:
        return [f"layers are met in the order {layers}"]
    blocks = [place.layer for place in places if place.unit == BLOCK]
    if not around and blocks != list(range(depth)):
        return [f"of {depth} layers these blocks were met: {blocks}"]
    each = [[place.unit for place in places if place.layer == layer] for layer in range(depth)]
    if double := [(layer, names) for layer, names in enumerate(each) if len({*names}) < len(names)]:
        return [f"layer {double[0][0]} meets a unit twice: {', '.join(double[0][1])}"]
    return []


def _unnamed(subject: Subject, step: Step, places: list[Place]) -> list[Fault]:
    """Units that no piece of work names, so that leaving them out cannot be counted."""
    declared = {(piece.unit, layer) for piece in subject.model.work(step.plan, 1) for layer in piece.layers}
    met = {(place.unit, place.layer) for place in places if place.unit != BLOCK}
    if missing := sorted(met - declared, key=lambda each: (each[1], each[0])):
        unit, layer = missing[0]
        what = f"no piece of work is called '{unit}' of layer {layer}, and {len(missing) - 1} more like it"
        return [Fault(what, subject.place("work"))]
    return []
