"""The self-check: it passes on this installation, and what it prints."""

from __future__ import annotations

import dataclasses
import json
import math
import resource

import pytest
import torch
from commands import ditbench

from ditbench.cli.selfcheck import lines_of, show_selfcheck
from ditbench.harness.selfcheck import checks, metric_checks
from ditbench.harness.selfcheck.checks import Check

# It passes here -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The command as a user runs it, without public files, and the processor time that it took."""
    folder = tmp_path_factory.mktemp("selfcheck")
    (folder / "empty.toml").write_text("")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DITBENCH_CONFIG", str(folder / "empty.toml"))
        done = ditbench("selfcheck", "--json", cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found | {"code": done.returncode, "processor_seconds": spent}


def test_everything_passes_on_this_installation(answer: dict) -> None:
    wrong = [check for check in answer["checks"] if check["status"] == "failed"]
    assert not wrong and answer["code"] == 0
    skipped = [(check["group"], check["reason"]) for check in answer["checks"] if check["status"] == "skipped"]
    assert skipped == [("published figures", "needs public files")]
    assert {check["group"] for check in answer["checks"]} == set(checks.GROUPS)


def test_it_takes_less_than_20_seconds_of_a_processor(answer: dict) -> None:
    # not of the wall clock: other programs may run beside the tests
    assert answer["processor_seconds"] < 20


def test_the_json_has_every_check_with_its_values_and_counts(answer: dict) -> None:
    keys = {field.name for field in dataclasses.fields(Check)}
    assert all(set(check) == keys for check in answer["checks"])
    for status in ("ok", "warning", "skipped", "failed"):
        assert answer[status] == sum(check["status"] == status for check in answer["checks"])
    assert answer["seconds"] == pytest.approx(sum(check["seconds"] for check in answer["checks"]), abs=0.01)
    assert torch.__version__.startswith(answer["versions"]["torch"])
    names = [(check["group"], check["name"]) for check in answer["checks"]]
    assert len(set(names)) == len(names), "a name stands for one check"
    for check in answer["checks"]:
        if check["status"] != "skipped":
            assert check["tolerance"] and check["source"] and check["measured"] is not None


# What is printed ----------------------------------------------------------------------------------------------------


def case(name: str, outcome: object) -> checks.Case:
    def run() -> checks.Outcome:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return checks.Case(name, "closed form", run)


def printed(cases: list, monkeypatch, capsys, as_json: bool = False) -> tuple[int, str]:
    monkeypatch.setattr(checks, "GROUPS", {"metrics": "ditbench.harness.selfcheck.metric_checks:metrics"})
    monkeypatch.setattr(metric_checks, "metrics", lambda: cases)
    return show_selfcheck(as_json), capsys.readouterr().out


GOOD = case("a good one", checks.near([1.0], [1.0], 1e-9))
BAD = case("a bad one", checks.near([1.0, 2.5], [1.0, 2.0], 1e-9))


def test_exit_code_0_and_the_closing_line(monkeypatch, capsys) -> None:
    skipped = case("a skipped one", checks.SkippedError("needs public files", "needs imagenet-256"))
    code, out = printed([GOOD, GOOD, skipped], monkeypatch, capsys)
    assert code == 0
    assert out.splitlines()[-1] == "selfcheck: 2 ok, 1 skipped (needs public files), 0 failed"
    assert "needs imagenet-256" in out


def test_exit_code_1_and_what_was_expected_and_measured(monkeypatch, capsys) -> None:
    code, out = printed([GOOD, BAD], monkeypatch, capsys)
    assert code == 1
    assert out.splitlines()[-1] == "selfcheck: 1 ok, 1 failed"
    assert "  FAILED  a bad one" in out
    assert "expected 2.0 at place 2 of 2 (within 1e-09), measured 2.5" in out


def test_a_warning_is_counted_and_fails_nothing(monkeypatch, capsys) -> None:
    warning = dataclasses.replace(checks.between(3, 0, 1), status="warning", note="busy machine")
    code, out = printed([GOOD, case("load", warning)], monkeypatch, capsys)
    assert code == 0 and out.splitlines()[-1] == "selfcheck: 1 ok, 1 warning, 0 failed"
    assert "busy machine" in out


def test_a_failed_list_shows_its_worst_place_and_a_failed_mapping_what_differs(monkeypatch, capsys) -> None:
    # nearer in units, further as a share
    numbers = case("numbers", checks.near([1.0, 1.0000000001, 1.001e-6], [1.0, 1.0, 1e-6], 1e-6, relative=True))
    names = case("names", checks.exactly({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}))
    _, out = printed([numbers, names], monkeypatch, capsys)
    assert "expected 1e-06 at place 3 of 3 (within 1e-06 relative), measured" in out and "1.001e-06" in out
    assert "expected b = 3 (exact), measured 2" in out and "expected c = 4 (exact), measured nothing" in out
    assert "a = 1" not in out


def test_json_stays_json_when_a_check_measures_nan(monkeypatch, capsys) -> None:
    code, out = printed([case("nan", checks.near([math.nan], [1.0], 1e-9))], monkeypatch, capsys, as_json=True)
    found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert code == 1 and found["failed"] == 1
    assert found["checks"][0]["measured"] == ["nan"] and found["checks"][0]["expected"] == [1.0]


def test_no_line_of_a_real_run_is_wider_than_80_columns(answer: dict) -> None:
    lines = [line for check in answer["checks"] for line in lines_of(Check(**check))]
    assert max(map(len, lines)) <= 80
    failures = [dataclasses.replace(Check(**check), status="failed") for check in answer["checks"]]
    assert max(len(line) for check in failures for line in lines_of(check)) <= 80
    assert all(len(check["name"]) <= 38 and len(check["result"]) <= 22 for check in answer["checks"])
