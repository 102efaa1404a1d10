"""Front membership for two costs."""

from __future__ import annotations

import random

import pytest

from ditbench.harness.stats.pareto import Point, dominates, pareto_front


def test_front_runs_from_cheapest_to_best_and_leaves_out_what_is_beaten() -> None:
    points = [Point("worse", 3, 3), Point("best", 4, 1), Point("cheap", 1, 4), Point("middle", 2, 2)]
    front = pareto_front(points)
    assert front.names == ("cheap", "middle", "best")
    assert front.dominated == (points[0],)


def test_equal_points_share_their_fate() -> None:
    twins = [Point("a", 1, 1), Point("b", 1, 1)]
    assert pareto_front(twins).names == ("a", "b")
    assert pareto_front([*twins, Point("c", 0.5, 1)]).names == ("c",)


def test_of_points_with_one_equal_coordinate_only_the_better_stays() -> None:
    assert pareto_front([Point("dear", 2, 1), Point("cheap", 1, 1)]).names == ("cheap",)
    assert pareto_front([Point("bad", 1, 2), Point("good", 1, 1)]).names == ("good",)


def test_members_and_dominated_are_the_input_and_the_order_of_the_input_does_not_matter() -> None:
    source = random.Random(3)
    points = [Point(str(i), source.randint(0, 9), source.randint(0, 9)) for i in range(60)]
    front = pareto_front(points)
    assert sorted(p.name for p in (*front.members, *front.dominated)) == sorted(p.name for p in points)
    assert not any(dominates(other, member) for other in points for member in front.members)
    assert all(any(dominates(member, lost) for member in front.members) for lost in front.dominated)
    shuffled = source.sample(points, len(points))
    assert set(pareto_front(shuffled).names) == set(front.names)


def test_front_falls_while_cost_rises() -> None:
    source = random.Random(5)
    members = pareto_front([Point(str(i), source.random(), source.random()) for i in range(80)]).members
    assert [p.x for p in members] == sorted(p.x for p in members)
    assert [p.y for p in members] == sorted((p.y for p in members), reverse=True)


def test_a_front_of_nothing_is_empty_and_of_one_point_is_that_point() -> None:
    assert pareto_front([]).names == ()
    assert pareto_front([Point("only", 7, 7)]).names == ("only",)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_coordinate_that_is_not_finite_is_refused_by_name(bad: float) -> None:
    with pytest.raises(ValueError, match="'broken'"):
        pareto_front([Point("fine", 1, 1), Point("broken", bad, 1)])
