"""Schedules of patch sizes: what is written is what runs and what is counted, and what cannot be is refused."""

import json
from itertools import pairwise
from typing import Any

import pytest
import torch
from dydit_models import one_line
from flexidit_models import patch_plan, sizes_of
from test_flexidit import SMALL, given

from ditbench import methods
from ditbench.harness.measure.count_cell import measure_flops
from ditbench.harness.measure.flops import WorkCounter
from ditbench.harness.sample.generate import bind, checkpoint_problem
from ditbench.harness.store.records import CellSpec
from ditbench.methods.diffusion.flow import Euler, Heun
from ditbench.methods.diffusion.guidance import combine
from ditbench.methods.errors import ConfigError
from ditbench.methods.flexidit.schedule import Schedule
from ditbench.methods.work import WorkLedger


def cell(schedule: Any = None, scale: float = 1.0, steps: int = 10, **fields: Any) -> CellSpec:
    config = {**fields.pop("config", {}), **({} if schedule is None else {"schedule": schedule})}
    named = {"cell": "c", "method": "flexidit-testing", "sampler": "ddim", "steps": steps, "guidance_scale": scale}
    return CellSpec(**{**named, "config": config, **fields})


def resolved(schedule: Any, steps: int, sizes: tuple[int, ...] = (2, 4, 8), patch: int = 2):
    with torch.device("meta"):
        shape = {**SMALL, "patch_size": patch, "patch_sizes": sizes}
        return methods.build("flexidit", **shape, schedule=schedule).resolve(steps)


def counts(sizes: tuple[int, ...]) -> dict[int, int]:
    return {size: sizes.count(size) for size in sizes}


# What is written is what is planned


@pytest.mark.parametrize(("schedule", "expected"), [
    ({"steps": {4: 3, 2: 2}}, (4, 4, 4, 2, 2)),
    ({"steps": {2: 2, 4: 3}}, (4, 4, 4, 2, 2)),
    ({"steps": {2: 1, 4: 1, 8: 3}}, (8, 8, 8, 4, 2)),
    ({"steps": {4: 3, 2: 2}, "order": "weak-last"}, (2, 2, 4, 4, 4)),
    ({"steps": {4: 3, 2: 2}, "order": "interleaved"}, (4, 2, 4, 2, 4)),
    ({"steps": {4: 0, 2: 5}}, (2, 2, 2, 2, 2)),
    ({"fractions": {4: 0.57, 2: 0.43}}, (4, 4, 4, 2, 2)),
    ({"fractions": {8: 0.5, 2: 0.5}, "order": "weak-last"}, (2, 2, 8, 8, 8)),
    ({"target": 1.0}, (2, 2, 2, 2, 2)),
    ({"target": 0.5, "sizes": [8, 2], "order": "weak-last"}, (2, 2, 8, 8, 8)),
    (None, (2, 2, 2, 2, 2)),
], ids=str)  # fmt: skip
def test_a_schedule_gives_every_step_its_size(schedule, expected):
    found = resolved(schedule, 5)
    assert found.patch == found.guide == expected
    model = methods.build("flexidit", **SMALL, patch_sizes=[2, 4, 8], schedule=json.loads(json.dumps(schedule)))
    plans = model.plan([9.0, 7.0, 5.0, 3.0, 1.0])
    assert [(plan.timestep, sizes_of(plan)) for plan in plans] == [
        (t, (size, None)) for t, size in zip((9.0, 7.0, 5.0, 3.0, 1.0), expected, strict=True)
    ], "keys are strings once JSON was in between"


@pytest.mark.parametrize(("schedule", "sizes", "patch", "guide"), [
    ("4/2", (2, 4), (4, 4, 2, 2, 2, 2), (4, 4, 4, 4, 2, 2)),
    (" 3 / 0 ", (2, 4, 8), (4, 4, 4, 2, 2, 2), (4,) * 6),
    ("4/4", (2, 4), (4, 4, 2, 2, 2, 2), (4, 4, 2, 2, 2, 2)),
    ({"fractions": {2: 1}, "guidance": {"steps": {4: 5, 2: 1}}}, (2, 4), (2,) * 6, (4, 4, 4, 4, 4, 2)),
    ({"steps": {4: 6}, "guidance": {"steps": {8: 6}}}, (2, 4, 8), (4,) * 6, (8,) * 6),
    ({"target": 1.0, "guidance": 0.25}, (2, 4), (2,) * 6, (4,) * 6),
], ids=str)  # fmt: skip
def test_the_guidance_branch_has_its_own_sizes(schedule, sizes, patch, guide):
    assert (resolved(schedule, 6, sizes).patch, resolved(schedule, 6, sizes).guide) == (patch, guide)
    plans = methods.build("flexidit", **SMALL, patch_sizes=sizes, schedule=schedule).plan(range(6))
    assert [sizes_of(plan)[1] for plan in plans] == [g if g != p else None for p, g in zip(patch, guide, strict=True)]


@pytest.mark.parametrize("steps", [1, 2, 7, 50, 250])
@pytest.mark.parametrize("shares", [{4: 1 / 3, 2: 2 / 3}, {8: 0.1, 4: 0.2, 2: 0.7}, {8: 1 / 3, 4: 1 / 3, 2: 1 / 3}])
def test_fractions_become_whole_steps_that_add_up(shares, steps):
    found = resolved({"fractions": shares}, steps).patch
    assert len(found) == steps
    assert all(abs(found.count(size) - share * steps) < 1 for size, share in shares.items())
    assert found == tuple(sorted(found, reverse=True)), "coarse sizes first"


@pytest.mark.parametrize("amounts", [{4: 20, 2: 30}, {4: 1, 2: 6}, {8: 5, 4: 10, 2: 15}])
def test_interleaved_sizes_are_spread_evenly(amounts):
    steps = sum(amounts.values())
    found = resolved({"steps": amounts, "order": "interleaved"}, steps).patch
    assert counts(found) == amounts
    for size, amount in amounts.items():
        for k in range(steps + 1):
            assert abs(found[:k].count(size) - amount * k / steps) <= 1


@pytest.mark.parametrize("steps", [1, 3, 10, 50, 250])
@pytest.mark.parametrize(("sizes", "patch"), [((2, 4), 2), ((2, 4, 8), 2), ((2, 8), 2), ((2, 4), 4)])
def test_a_target_is_met_as_nearly_as_whole_steps_can(sizes, patch, steps):
    with torch.device("meta"):
        model = methods.build("flexidit", **{**SMALL, "patch_size": patch, "patch_sizes": sizes})
    share = {size: closed_formula(model.config, size) / closed_formula(model.config, patch) for size in sizes}
    floor, most = min(share.values()), max(share.values())
    for k in range(21):
        target = floor + (most - floor) * k / 20
        found = resolved(target, steps, sizes, patch).patch
        between = [size for size in sizes if size in found]
        assert len(between) <= 2 and found == tuple(sorted(found, reverse=True))
        enclosing = [pair for pair in pairwise(sizes) if share[pair[1]] - 1e-9 <= target <= share[pair[0]] + 1e-9]
        assert any(set(between) <= set(pair) for pair in enclosing), "the two sizes that enclose the target"
        step = max(share[fine] - share[coarse] for fine, coarse in enclosing) / steps
        assert abs(sum(share[size] for size in found) / steps - target) <= step / 2 + 1e-9


def test_a_schedule_may_be_given_as_a_value():
    written = {"steps": {4: 3, 2: 2}, "guidance": {"steps": {4: 4, 2: 1}}}
    assert resolved(Schedule.parse(written, (2, 4, 8)), 5) == resolved(written, 5)


# What is planned is what runs


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm-solver++"])
@pytest.mark.parametrize("order", ["weak-first", "interleaved"])
def test_every_sampler_runs_the_sizes_of_the_plan_across_the_switch(sampler, order):
    schedule = {"steps": {4: 3, 2: 4}, "order": order}
    bound, ledger = bind(cell(schedule, 2.0, 7, sampler=sampler), None), WorkLedger()
    samples, labels = bound.generate(range(3), ledger)
    plans = bound.model.plan(bound.sampler.timesteps)
    assert [(entry.plan, entry.rows) for entry in ledger.entries] == [(plan, 6) for plan in plans]
    streams = bound.streams(range(3))

    def by_hand(x, step):
        t = torch.full((6,), bound.sampler.timesteps[step])
        both = torch.cat([labels, torch.full_like(labels, 10)])
        cond, uncond = bound.model(torch.cat([x, x]), t, both, patch_size=sizes_of(plans[step])[0]).chunk(2)
        return combine(cond, uncond, 2.0, 1)

    with torch.inference_mode():
        assert torch.equal(samples, bound.sampler.sample(by_hand, streams.noise(), streams.noise))
    assert not torch.allclose(samples, bind(cell(None, 2.0, 7, sampler=sampler), None).generate(range(3))[0])


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm-solver++"])
def test_where_all_sizes_predict_the_same_a_schedule_changes_nothing(sampler):
    samples = []
    for schedule in (None, {"fractions": {4: 0.4, 2: 0.6}, "order": "interleaved"}):
        bound = bind(cell(schedule, 1.5, sampler=sampler), None)
        real, model = bound.model.forward, bound.model
        model.forward = lambda x, t, y, real=real, **plan: real(x, t, y, patch_size=2)
        samples.append(bound.generate(range(2))[0])
    assert torch.equal(*samples)


# Flows: a step of several evaluations, and times that are not known ahead

WEAK_FIRST = {"fractions": {4: 0.4, 2: 0.6}}


def flexisit(schedule: Any):
    return methods.build("flexisit", **SMALL, patch_sizes=[2, 4, 8], schedule=schedule)


@pytest.mark.parametrize("schedule", [
    WEAK_FIRST, {**WEAK_FIRST, "order": "interleaved"}, {"steps": {4: 3, 2: 7}}, 0.6,
    {"fractions": {2: 1}, "guidance": {"fractions": {4: 0.7, 2: 0.3}}},
], ids=str)  # fmt: skip
def test_all_evaluations_of_a_step_have_its_sizes(schedule):
    model, expected = flexisit(schedule), resolved(schedule, 10)
    euler, heun = Euler(10).plans(model), Heun(10).plans(model)
    sizes = [(patch, guide or patch) for patch, guide in map(sizes_of, euler)]
    assert sizes == [*zip(expected.patch, expected.guide, strict=True)]
    assert len({plan.key for plan in euler}) > 1, "sizes change on the way"
    assert [plan.timestep for plan in heun] == [t / 10 for k in range(10) for t in (k, k + 1)]
    assert [plan.key for plan in heun[::2]] == [plan.key for plan in heun[1::2]] == [plan.key for plan in euler]


@pytest.mark.parametrize("order", ["weak-first", "weak-last"])
def test_by_itself_a_time_has_the_size_that_a_fine_grid_gives_it(order):
    model = flexisit({**WEAK_FIRST, "order": order})
    for t in (0.0, 0.2, 0.399, 0.401, 0.599, 0.601, 0.9, 1.0, 1.05):
        weak = t < 0.4 if order == "weak-first" else t > 0.6
        assert sizes_of(model.plan_at(t))[0] == (4 if weak else 2), t
    for plan in Euler(1000).plans(model)[::7]:
        middle = plan.timestep + 0.0005  # on the edge of two steps rounding decides
        assert model.plan_at(middle).key == plan.key and model.plan_at(middle).timestep == middle


def test_by_itself_a_time_has_the_guidance_branch_s_size_too():
    model = flexisit({"fractions": {4: 0.3, 2: 0.7}, "guidance": {"fractions": {4: 0.8, 2: 0.2}}})
    plans = [model.plan_at(t) for t in (0.1, 0.5, 0.9)]
    assert [sizes_of(plan) for plan in plans] == [(4, None), (2, 4), (2, None)]


# Compute


def closed_formula(config, size: int) -> int:
    """Of one sequence, without layer norms."""
    d, n, side = config.hidden_size, (config.input_size // size) ** 2, config.input_size
    block = 12 * n * d * d + 2 * n * n * d + 6 * d * d
    return config.depth * block + side * side * (config.in_channels + config.head_channels) * d + 3 * d * d + 256 * d


@pytest.mark.parametrize(
    ("name", "side"),
    [("flexidit-s-2", 32), ("flexisit-s-2", 32), ("flexidit-b-2", 32), ("flexidit-xl-2", 32), ("flexidit-xl-2", 64)],
)
def test_every_size_costs_what_the_closed_formula_says(name, side):
    with torch.device("meta"):
        model = methods.build(name, input_size=side, patch_sizes=[2, 4, 8])
    counter, c = WorkCounter(model), model.config
    for size in (2, 4, 8):
        counted = counter.call(patch_plan(0.0, size))
        norms = counted.pop("layer_norm")
        assert norms == 4 * (2 * c.depth + 1) * (side // size) ** 2 * c.hidden_size
        assert counted.total() == pytest.approx(closed_formula(c, size), rel=1e-9)
        assert c.macs_at(size) == closed_formula(c, size), "what targets are solved with"


@pytest.mark.parametrize(("schedule", "scale", "percent"), [
    *(({"steps": {4: weak, 2: 250 - weak}}, 1.0, percent)
      for weak, percent in ((50, "84.9"), (100, "69.7"), (150, "54.6"), (200, "39.5"))),
    ("130/130", 1.5, "63.7"), ("70/70", 1.5, "45.5"), ("30/0", 1.5, "28.9"),
], ids=str)  # fmt: skip
def test_the_published_percentages_come_out_without_adaln(schedule, scale, percent):
    spec = cell(schedule, scale, 250, method="flexidit-xl-2", sampler="ddpm")
    found = measure_flops(spec).extra["compute"]
    (share,) = found["by_convention"].values()
    assert f"{share:.1%}" == f"{percent}%"
    assert share < found["share"] < share + 0.002, "ours, with adaLN, is beside it"


def test_a_model_of_one_size_has_no_schedule():
    found = measure_flops(cell(method="dit-testing")).detail()
    assert "compute" not in found and found["facets"] is None


# What cannot be


REFUSED: list[tuple[Any, float, list[str]]] = [
    (0.1, 1.0, ["below the floor", "0.2854", "0.286 or more works", "size 8"]),
    (1.2, 1.0, ["1.2", "above", "the most"]),
    (-0.5, 1.0, ["compute share such as 0.64"]),
    (True, 1.0, ["compute share such as 0.64"]),
    ("half", 1.0, ["'x/y'", "'half'"]),
    ({"steps": {4: 3, 2: 4}}, 1.0, ["add up to 7", "takes 10", "{4: 4, 2: 6} would do"]),
    ({"steps": {4: 2.5, 2: 7.5}}, 1.0, ["size 4", "2.5"]),
    ({"steps": {4: -1, 2: 11}}, 1.0, ["size 4", "-1"]),
    ({"steps": {"four": 10}}, 1.0, ["four"]),
    ({"fractions": {4: 0.5, "4": 0.5}}, 1.0, ["size 4", "twice"]),
    ({"steps": []}, 1.0, ["{4: 30, 2: 20}"]),
    ({"fractions": {4: 0.5, 2: 0.4}}, 1.0, ["0.9", "must add up to 1"]),
    ({"target": 0.5, "steps": {4: 5, 2: 5}}, 1.0, ["exactly one of target, steps and fractions"]),
    ({"order": "weak-first"}, 1.0, ["exactly one of target, steps and fractions"]),
    ({"stps": {4: 10}}, 1.0, ["'stps'", "known: target, steps, fractions"]),
    ({"target": 0.6, "order": "strong-first"}, 1.0, ["weak-first, weak-last, interleaved", "'strong-first'"]),
    ({"steps": {8: 5, 2: 5}}, 1.0, ["patch size 8", "2, 4", "[2, 4, 8]"]),
    ({"target": 0.6, "sizes": [2, 8]}, 1.0, ["patch size 8", "[2, 4, 8]"]),
    ({"target": 0.6, "sizes": [2]}, 1.0, ["two or more"]),
    ({"steps": {4: 5, 2: 5}, "sizes": [2, 4]}, 1.0, ["sizes belong to a target"]),
    ({"target": 0.6, "guidance": "3/2"}, 1.5, ["guidance takes a target"]),
    ("3/5", 1.5, ["finer than the conditional", "y at most x"]),
    ("30/5", 1.5, ["30", "10"]),
    ({"target": 0.6, "guidance": 0.9}, 1.5, ["finer than the conditional", "as much compute at most"]),
    ("5/3", 1.0, ["not guided", "guidance scale", "one schedule for both"]),
]  # fmt: skip


@pytest.mark.parametrize(("schedule", "scale", "words"), REFUSED, ids=str)
def test_an_impossible_schedule_is_refused_in_one_line_that_says_what_would_work(schedule, scale, words):
    found = checkpoint_problem(cell(schedule, scale), None)
    assert found is not None and found.field == "config.schedule"
    assert all(word in found.message for word in words), found.message
    assert "\n" not in found.message and found.message.startswith("flexidit-testing: ")


@pytest.mark.parametrize(("config", "words"), [
    ({"patch_sizes": [4, 8]}, ["pre-trained", "patch_size 2"]),
    ({"patch_sizes": [2, 3]}, ["3", "does not divide", "1, 2, 4, 8, 16"]),
    ({"patch_sizes": 4}, ["[2, 4]"]),
    ({"patch_sizes": [2, 4.0]}, ["[2, 4]"]),
    ({"recipe": "loras"}, ["shared, lora"]),
    ({"positions": "middle"}, ["centre, corner"]),
    ({"layout": "pack"}, ["auto, separate, padded, joined, packed"]),
    ({"layout": "packed", "recipe": "lora"}, ["packed", "lora", "auto"]),
    ({"underlying_size": 1}, ["underlying_size 1", "patch_size 2"]),
    ({"underlying_size": "4"}, ["underlying_size", "whole number"]),
    ({"recipe": "lora", "adapter": {"rank": 0}}, ["adapter: rank", "at least 1"]),
    ({"layout": "joined", "adapter": {"experts": 2, "folded": False}}, ["joined", "timestep", "auto"]),
    ({"patchsizes": [2, 4]}, ["did you mean 'patch_sizes'"]),
], ids=str)  # fmt: skip
def test_an_impossible_config_is_refused_in_one_line_that_says_what_would_work(config, words):
    with pytest.raises(ConfigError) as caught:
        methods.build("flexidit", **{**SMALL, **config})
    assert all(word in one_line(caught.value) for word in words), caught.value


def test_a_size_that_the_model_lacks_is_refused_when_it_is_called():
    model = methods.build("flexidit", **SMALL)
    with pytest.raises(ConfigError, match=r"2, 4 and not 8 .*\[2, 4, 8\]") as caught:
        model(*given(model), patch_size=8)
    one_line(caught.value)


def test_a_model_of_one_size_can_be_asked_for_all_of_its_compute():
    assert resolved(1.0, 5, (2,)).patch == (2,) * 5
