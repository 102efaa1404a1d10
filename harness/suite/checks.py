"""What a cell may not ask for, each fault at the place where the suite says it."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from ditbench.harness.errors import InputError, Position, did_you_mean
from ditbench.harness.measurements.measurement import Asked
from ditbench.harness.measurements.registry import measurements
from ditbench.harness.published.load import fault_of
from ditbench.harness.suite.expand import Settings
from ditbench.harness.suite.positions import Node
from ditbench.harness.suite.schema import Suite
from ditbench.methods import registry
from ditbench.methods.entries import Registry
from ditbench.methods.facts import Facts

GRID = 1000  # timesteps of the training grid


def check(settings: Settings, facts: Facts, node: Node, suite: Suite, device: str) -> None:
    """Raise InputError for unknown names and for settings that contradict each other.

    ``facts``: the method's. ``node``: the cell's merged fields with their places. ``device``: where the cell really
    runs, whatever it says.
    """
    _check_names(settings, node)
    _check_sampler(settings, facts, node)
    _check_guidance(settings, facts, node)
    _check_decoder(settings, facts, node)
    _check_measurements(settings, facts, node, suite)
    _check_execution(settings, node, device)
    _check_published(settings, node)


def _place(node: Node, *path: str | int) -> Position:
    return node.nearest(path).position


def _key_place(node: Node, *path: str | int) -> Position:
    found = node.nearest(path)
    return found.key or found.position


def _check_names(settings: Settings, node: Node) -> None:
    wanted: list[tuple[Registry[Any], str, Position]] = [
        (registry.samplers(), str(settings.sampler.name), _place(node, "sampler", "name"))
    ]
    for number, each in enumerate(settings.modifiers):
        wanted += [(registry.modifiers(), name, _place(node, "modifiers", number)) for name in each]
    if settings.conditions:
        wanted.append((registry.conditions(), settings.conditions["name"], _place(node, "conditions", "name")))
    if settings.dataset is not None:
        wanted.append((registry.datasets(), settings.dataset, _place(node, "dataset")))
    for known, name, place in wanted:
        try:
            known[name]
        except registry.UnknownNameError as error:
            raise InputError(str(error), place) from None


def _check_sampler(settings: Settings, facts: Facts, node: Node) -> None:
    sampler, steps = settings.sampler, settings.steps
    samplers = registry.samplers()
    entry, predicted = samplers[str(sampler.name)], facts.predicts
    if entry.predicts != predicted:
        fitting = ", ".join(each.name for each in samplers if each.predicts == predicted)
        raise InputError(
            f"sampler: {entry.name} needs a model that predicts {entry.predicts}, and {settings.method} predicts "
            f"{predicted} (its samplers: {fitting})",
            _place(node, "sampler", "name"),
        )
    for option in sampler.model_dump(exclude={"name"}, exclude_defaults=True):
        if option not in entry.options:
            known = [*entry.options, *(name for name in type(sampler).model_fields if name not in entry.options)]
            if option in (sampler.model_extra or {}):
                hint = did_you_mean(option, known) or f" (known: {', '.join(known)})"
                raise InputError(f"unknown key {option!r}{hint}", _key_place(node, "sampler", option))
            owners = ", ".join(each.name for each in samplers if option in each.options)
            raise InputError(
                f"{option} is an option of {owners}, and the sampler is {entry.name}", _place(node, "sampler", option)
            )
    if sampler.spacing == "ddim" and steps not in ddim_step_counts():
        lower = [count for count in ddim_step_counts() if count < steps][-1:]
        higher = [count for count in ddim_step_counts() if count > steps][:1]
        raise InputError(
            f"steps: spacing 'ddim' cannot make {steps} steps with one stride: "
            f"take {' or '.join(map(str, lower + higher))}, or spacing 'even'",
            _place(node, "steps"),
        )


def _check_guidance(settings: Settings, facts: Facts, node: Node) -> None:
    channels, interval = settings.guidance.channels, settings.guidance.interval
    if interval is not None:
        whole = all(isinstance(end, int) for end in interval)
        if facts.predicts == "noise" and not whole:
            raise InputError(
                f"guidance.interval: timesteps of {settings.method} are whole numbers, 0 to 999",
                _place(node, "guidance", "interval"),
            )
        if facts.predicts == "velocity" and interval[1] > 1:
            raise InputError(
                f"guidance.interval: the time of {settings.method} runs from 0, noise, to 1, data",
                _place(node, "guidance", "interval"),
            )
    if channels is not None and channels > facts.space.channels:
        raise InputError(
            f"guidance.channels: {channels} is more than the {facts.space.channels} channels of {settings.method}",
            _place(node, "guidance", "channels"),
        )


def _check_published(settings: Settings, node: Node) -> None:
    for place, key in enumerate(settings.published):
        if fault := fault_of(key):
            raise InputError(f"published: {fault}", _place(node, "published", place))


def _check_execution(settings: Settings, node: Node, device: str) -> None:
    if device == "cpu":
        for field, values, has in (
            ("dtype", ("tf32",), "rounds float32 on a GPU only: a CPU has float32"),
            ("mode", ("graph",), "captures CUDA graphs: a CPU has eager and compiled"),
            ("attention", ("efficient", "cudnn"), "is a GPU's kernel: a CPU has auto, math and flash"),
        ):
            value = getattr(settings, field)
            if value in values:
                raise InputError(f"{field}: {value} {has}", _place(node, field))
    if settings.mode == "compiled" and settings.attention != "auto":
        raise InputError(
            f"attention: {settings.attention} with mode compiled: torch gives compiled code to every model of the same "
            "shape, whatever kernel that asks for; take mode eager or graph, or attention auto",
            _place(node, "attention"),
        )


def _check_decoder(settings: Settings, facts: Facts, node: Node) -> None:
    channels = facts.space.channels
    if settings.decoder is not None and facts.space.scale == 1:
        raise InputError(
            f"decoder: {settings.method} makes pictures of {channels} channel{'s' * (channels != 1)}, not latents: "
            "there is nothing to decode",
            _place(node, "decoder"),
        )


def _check_measurements(settings: Settings, facts: Facts, node: Node, suite: Suite) -> None:
    for kind in measurements():
        if kind.name in settings.measure:
            asked: Asked[Any] = Asked(
                method=settings.method,
                facts=facts,
                weights=settings.weights,
                dataset=settings.dataset,
                decodes=settings.decoder is not None,
                decoder_weights=settings.decoder.weights if settings.decoder else None,
                options=suite.options(kind.name),
                here=_place(node, "measure", settings.measure.index(kind.name)),
                place=partial(_place, node),
            )
            kind.check(asked)


@cache
def ddim_step_counts() -> tuple[int, ...]:
    """Step counts that the reference's 'ddim' spacing can make: one stride from 1 to 999. Ascending."""
    return tuple(sorted({len(range(0, GRID, stride)) for stride in range(1, GRID)}))
