"""``ditbench check``: what ships conforms, and every planted fault is found, by its check, with its place."""

import json
import re

import faulty_methods as faulty
import pytest
from commands import ditbench
from faulty_methods import LABELS, planted

from ditbench.cli.check import lines_of, show_check
from ditbench.harness.conformance.checks import CHECKS, run
from ditbench.harness.conformance.subject import Subject
from ditbench.harness.errors import InputError
from ditbench.methods.facts import Facts
from ditbench.methods.registry import methods, modifiers
from ditbench.methods.space import Space

SPLIT = {"fractions": {4: 0.5, 2: 0.5}, "guidance": {"fractions": {4: 1}}}
TIMED = {"adapter": {"rank": 2, "experts": 3}}
SHIPPED = [
    *((name, {}) for name in methods().names() if name.endswith("-testing")),
    ("dydit-testing", {"activity": 0.5}),
    ("flexidit-testing", {"schedule": SPLIT}),
    ("flexidit-testing", {"schedule": SPLIT, "layout": "packed"}),
    ("dit-testing", TIMED),
    ("flexidit-testing", {"schedule": 0.64, **TIMED}),
]
MEMORY, ROWS = "an empty memory at each loop's start", "batch independence"
ALONE, GUIDED = "one sample alone equals the same in a batch", "guidance at 1 equals none"
PIECES = "pieces equal the whole"
FORGETS = {"steps repeat from a snapshot"}


def results(name, config=None, around=()):
    return {result.check.name: result for result in run(Subject(name, config, around))}


def told(found):
    """All that is wrong, for an assertion's message."""
    return "\n".join("\n".join(lines_of(result)) for result in found.values() if result.status == "wrong")


def wrong(found):
    return {name for name, result in found.items() if result.status == "wrong"}


def left_out(found):
    return {name for name, result in found.items() if result.status not in ("ok", "wrong")}


@pytest.mark.parametrize(("name", "config"), SHIPPED, ids=[f"{name} {','.join(config)}" for name, config in SHIPPED])
def test_what_ships_conforms(name, config):
    found = results(name, config)
    assert [*found] == [check.name for check in CHECKS]
    assert not wrong(found), told(found)
    # samples of an imposed cost mean nothing
    assert left_out(found) == FORGETS | ({ROWS, ALONE, GUIDED} if "activity" in config else set())


@pytest.mark.parametrize(
    ("kind", "apart"),
    [
        (faulty.Tiny, {"wrapped units", *FORGETS}),
        (faulty.Deeper, {"wrapped units", *FORGETS}),
        (faulty.Recalls, {"wrapped units"}),
        (faulty.Unconditional, {"wrapped units", "conditions matter", GUIDED, *FORGETS}),
    ],
)
def test_sound_methods_of_others_conform(monkeypatch, kind, apart):
    found = results(planted(monkeypatch, methods(), kind))
    assert not wrong(found), told(found)
    assert left_out(found) - {"facts without torch"} == apart


OTHER = Facts(Space(1, (8, 4)), "velocity", LABELS)
PLANTED = [
    # the class; the check that must find it; what its text must name; other checks that see it too
    (faulty.Undeclared, PIECES, r"linear: .* declared.*Undeclared\.work", set()),
    (faulty.Misrecorded, "plan equals ledger", r"evaluation 0 .*count=1.*count=2.*Misrecorded\.predict", {PIECES}),
    (faulty.Mixed, ROWS, r"row 0 alone.*inside middle, .*Mixing\.forward", {ALONE, GUIDED}),
    (faulty.Keeping, MEMORY, r"second loop .*middle\.last changed in the loop.*Keeper\.forward", set()),
    (faulty.Reading, "meta build", r"cannot be built without memory.*in Reading\.__init__", set()),
    (faulty.Losing, "save and load", r"middle\.gain: a buffer that is not in the state dict.*Scaled\.__init__", set()),
    (faulty.Deaf, "conditions matter", r"no label predicts the same as label 2.*Deaf\.forward", set()),
    (faulty.SelfGuided, GUIDED, r"scale 1 differs .*SelfGuided\.predict", set()),
    (faulty.OtherFacts, "facts equal the model's", r"space: .*8, 4.*predicts: the entry says velocity", set()),
    (faulty.OtherProcess, "facts equal the model's", r"predicts velocity, and its process noise.*OtherProcess", set()),
    (faulty.OtherSpace, "output", r"x \[4, 2, 4, 4\] of the facts' space fails.*in Tiny\.forward", set()),
]
MORE = [
    (faulty.Lacking, "build", r"has alternatives, .*predict, .*Lacking.*StaticWork", set()),
    (faulty.Growing, "output", r"not finite at timestep 999.*Growing\.forward", set()),
    (faulty.Fixed, "float32 and bfloat16", r"RuntimeError.*in Tiny\.forward", set()),
    (faulty.Wavering, "plans", r"other plans.*Wavering\.plan\)", {"plan_at agrees with plan", MEMORY, "save and load"}),
    (faulty.Short, "plans", r"12 times, stages=2\) gives 6 plans.*Short\.plan\)", set()),
    (faulty.Alone, "plan_at agrees with plan", r"plan_at\(999\) gives .*count=2.*Alone\.plan_at", set()),
    (faulty.Beyond, "facets", r"'rounds' has a share of 1\.5.*Rounds\.facets", set()),
    (faulty.ByPlan, "equal keys give equal work", r"999 and 599 have one key.*ByPlan\.predict", set()),
    (faulty.Unkeyed, "equal keys give equal work", r"other pieces: at timesteps 999 and 0.*Unkeyed\.work", set()),
    (faulty.Silent, "remembering is declared", r"remembers is False.*Silent", set()),
    (faulty.Overwriting, "steps repeat from a snapshot", r"evaluation \d from the same memory.*Overwriting", set()),
    (faulty.Gathering, ALONE, r"sample 0 alone differs.*Silent\.predict, which Gathering", set()),
    (faulty.Shared, MEMORY, r"the same memory twice.*Shared\.begin", set()),
    (faulty.Stale, "save and load", r"has run before.*folded: a plain attribute", set()),
    (faulty.Rounding, "prepare, forget and tune change no output", r"after prepare\(\).*Rounding\.prepare", set()),
    (faulty.Unmet, "wrapped units", r"no unit was met", set()),
    (faulty.Unnamed, "wrapped units", r"no piece of work is called 'attention' of layer 0.*Unnamed\.work", set()),
    (
        faulty.Raising,
        "plan_at agrees with plan",
        r"KeyError: the first line .*_methods\.py:\d+ \(in Raising",
        set(),
    ),
]
OF_MODIFIERS = [
    (faulty.Skips, None, ""),
    (faulty.Uncounted, PIECES, r"declared.*Uncounted\.work"),
    (faulty.Hoards, MEMORY, r"Hoards\.last changed in the loop.*Hoards\.output"),
]


def text_of(result):
    return " ".join(" ".join(lines_of(result)).split())


@pytest.mark.parametrize(
    ("kind", "check", "text", "seen"), PLANTED + MORE, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_planted_fault_is_found_by_its_check_with_its_place(monkeypatch, kind, check, text, seen):
    found = results(planted(monkeypatch, methods(), kind, OTHER if kind is faulty.OtherFacts else ""))
    assert [*found] == [each.name for each in CHECKS], "no fault stops a check"
    assert wrong(found) == {check} | seen, told(found)
    assert re.search(text, text_of(found[check])), text_of(found[check])
    assert all(fault.where and (fault.do or found[check].check.do) for fault in found[check].outcome.faults)


@pytest.mark.parametrize(("kind", "check", "text"), OF_MODIFIERS)
def test_what_is_put_around_a_method_is_checked_with_it(monkeypatch, kind, check, text):
    name = planted(monkeypatch, modifiers(), kind)
    found = results("dit-testing", around=[{name: {}}])
    assert wrong(found) == ({check} if check else set()), told(found)
    assert check is None or re.search(text, text_of(found[check])), told(found)


def test_what_needs_a_failed_check_says_so(monkeypatch):
    found = results(planted(monkeypatch, methods(), faulty.Keeping))
    assert found[ROWS].status == "not tried" and MEMORY in found[ROWS].outcome.note
    assert found["plan equals ledger"].status == found["float32 and bfloat16"].status == "ok"


def test_the_verb_tells_a_line_a_check_and_its_exit_code(monkeypatch, capsys):
    assert show_check("flexidit-testing", ["schedule=0.64"], None, [], 6, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines[1:-1]].count("✓") == len(CHECKS) - 1
    assert lines[0] == "check flexidit-testing schedule=0.64: random weights, 6 steps"
    assert lines[-1] == f"flexidit-testing conforms: {len(CHECKS) - 1} ok, 1 does not apply"

    name = planted(monkeypatch, methods(), faulty.Deaf)
    assert show_check(name, [], None, [], 6, as_json=False) == 1
    shown = capsys.readouterr().out
    assert re.search(r"✗ conditions matter\n    what  no label.*\n    where .*Deaf\.forward.*\n    do    read", shown)
    assert shown.splitlines()[-1].endswith("1 wrong") and max(map(len, shown.splitlines())) <= 110


def test_json_says_the_same(monkeypatch, capsys):
    around = planted(monkeypatch, modifiers(), faulty.Uncounted)
    assert show_check("dit-testing", [], None, [f"{around}: {{layer: 0}}"], 4, as_json=True) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["with"] == [{around: {"layer": 0}}] and answer["steps"] == 4 and not answer["conforms"]
    assert [row["name"] for row in answer["checks"]] == [check.name for check in CHECKS]
    (fault,) = [row for row in answer["checks"] if row["status"] == "wrong"]
    assert fault["name"] == PIECES and set(fault["faults"][0]) == {"what", "where", "do"}
    assert answer["wrong"] == 1 and answer["ok"] + answer["wrong"] + answer["does_not_apply"] == len(CHECKS)


@pytest.mark.parametrize(
    ("method", "settings", "weights", "around", "text"),
    [
        ("dit-testin", [], None, [], "did you mean 'dit-testing'"),
        ("dit-testing", ["dpth=3"], None, [], "did you mean 'depth'"),
        ("dit-testing", [], "zoo:dit-digits", [], "does not fit"),
        ("dit-testing", [], "zoo:dit-digit", [], "did you mean 'dit-digits'"),
        ("dit-testing", [], None, ["nobody"], "unknown modifier 'nobody'"),
        ("dit-testing", [], None, ["a: {b: c"], "write NAME: {options}"),
        ("dit-testing", [], None, ["{a: {}, b: {}}"], "write NAME: {options}"),
    ],
)
def test_bad_input_is_one_line(method, settings, weights, around, text):
    with pytest.raises(InputError, match=re.escape(text)) as caught:
        show_check(method, settings, weights, around, 6, as_json=False)
    assert "\n" not in str(caught.value)


def test_weights_of_the_zoo_conform(capsys):
    assert show_check("dydit-digits", [], "zoo:dydit-digits-0.5", [], 2, as_json=False) == 0
    assert "zoo:dydit-digits-0.5" in capsys.readouterr().out


def test_a_plugin_s_fault_is_placed_in_its_own_file(tmp_path):
    done = ditbench("check", "raises", cwd=tmp_path, plugin=True)
    assert done.returncode == 1 and not done.stderr, done.stderr
    place = r"RuntimeError: the forward pass broke\n +where .*ditbench_faulty\.py:\d+ \(in Raises"
    assert re.search(place, done.stdout), done.stdout
    assert "two lines" not in done.stdout
