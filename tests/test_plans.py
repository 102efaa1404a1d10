"""Plans as values: choices by kind, branches, and which plans are equal work."""

import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest

from ditbench.harness.measure.facets import facets_of
from ditbench.methods.plans import Choice, Facet, StepPlan


@dataclass(frozen=True)
class Depth(Choice):
    layers: int

    def facets(self) -> tuple[Facet, ...]:
        return (Facet("depth", str(self.layers), ("4", "2"), "How deep."),)


@dataclass(frozen=True)
class Share(Choice):
    shares: tuple[float, ...]

    def facets(self) -> tuple[Facet, ...]:
        return (Facet("share", self.shares),)


@dataclass(frozen=True)
class Weights(Choice):
    same_work: ClassVar[bool] = True
    name: str


PLAN = StepPlan(5.0, (Depth(4), Share((1.0, 0.5))))


def test_choices_are_found_by_kind():
    assert PLAN.get(Depth) == Depth(4) and PLAN.get(Weights) is None and StepPlan(1.0).get(Depth) is None


def test_a_new_choice_takes_the_place_of_its_kind_in_both_branches():
    both = StepPlan(5.0, PLAN.choices, (Depth(2),))
    assert PLAN.having(Depth(2)).choices == (Depth(2), Share((1.0, 0.5)))
    assert both.having(Weights("a")).guidance == (Depth(2), Weights("a"))
    assert both.having(Depth(3)) == StepPlan(5.0, (Depth(3), Share((1.0, 0.5))), (Depth(3),))
    assert PLAN.having(*PLAN.choices) == PLAN.having(Depth(4)) == PLAN == PLAN.having(), "what is there makes no other"
    assert both.without(Depth) == StepPlan(5.0, (Share((1.0, 0.5)),), ())
    assert both.without() == both


def test_branches_are_plans_by_themselves():
    both = StepPlan(5.0, (Depth(4),), (Depth(2),))
    assert both.branches == (StepPlan(5.0, (Depth(4),)), StepPlan(5.0, (Depth(2),)))
    assert PLAN.branches == (PLAN, PLAN)
    assert StepPlan(5.0, (Depth(4),), ()).branches[1] == StepPlan(5.0), "the other branch chooses nothing"


def test_equal_keys_are_equal_work_whatever_the_time():
    later = StepPlan(6.0, PLAN.choices)
    assert later != PLAN and later.key == PLAN.key and hash(later.key) == hash(PLAN.key)
    assert PLAN.key != PLAN.having(Depth(2)).key and PLAN.key != StepPlan(5.0, PLAN.choices, PLAN.choices).key


def test_choices_of_weights_alone_change_the_key_and_not_the_work():
    first, second = PLAN.having(Weights("a")), PLAN.having(Weights("b"))
    assert first.key != second.key and first.work_key == second.work_key == PLAN.key
    assert StepPlan(5.0, (Depth(4),), (Depth(2), Weights("a"))).work_key == StepPlan(-1.0, (Depth(4),), (Depth(2),))


def test_facets_are_told_by_step_whatever_makes_them():
    guided = StepPlan(4.0, PLAN.choices, (Depth(2), *PLAN.choices[1:]))
    told = facets_of([(PLAN, None), (guided, None)])
    assert told == {
        "timesteps": [5.0, 4.0],
        "shares": [{"name": "share", "values": [[1.0, 0.5]] * 2}],
        "labels": [
            {
                "name": "depth",
                "about": "How deep.",
                "levels": ["4", "2"],
                "values": ["4", "4"],
                "guidance": ["4", "2"],
            }
        ],
    }
    assert facets_of([(PLAN, None)] * 2)["labels"][0]["guidance"] is None
    assert facets_of([(StepPlan(1.0), None)]) is None is facets_of([])


def test_what_the_data_decided_is_a_facet_of_its_step_and_what_some_steps_lack_is_left_out():
    decided = ("tokens", (0.25, 0.75), "which pass")
    told = facets_of([(PLAN, decided), (PLAN.without(Depth), decided)])
    assert [shown["name"] for shown in told["shares"]] == ["share", "tokens"] and told["labels"] == []
    assert told["shares"][1]["values"] == [[0.25, 0.75]] * 2
    assert [shown["name"] for shown in facets_of([(PLAN, decided), (PLAN, None)])["shares"]] == ["share"]


@pytest.mark.parametrize(
    "module", ["plans", "facts", "space", "entries", "registry", "dydit.choices", "flexidit.choices"]
)
def test_values_of_the_contract_import_no_torch(module):
    code = f"import sys, ditbench.methods.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
