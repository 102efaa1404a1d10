"""Loading suites: every fault is one line with its place; extends, positions and the flattened text."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Protocol

import pytest

from ditbench.harness.errors import InputError
from ditbench.harness.suite.load import LoadedSuite, load_suite, shipped_suites
from ditbench.harness.suite.plan import make_plan
from ditbench.harness.suite.refusal import refuse_waiting
from ditbench.harness.suite.schema import suite_model


class Write(Protocol):
    def __call__(self, text: str, name: str = "suite.yaml") -> Path: ...


HEAD = "suite: s\ndefaults: {method: dit-testing}\n"

# name -> (the suite, line and column of the fault, words of the message)
BROKEN = {
    "syntax": ("suite: s\ncells: [a\nb: c\n", "3:2", "not valid YAML"),
    "tab": ("suite: s\ncells:\n\t- {}\n", "3:1", "not with tabs"),
    "unknown key": (HEAD + "cells:\n  - stpes: 5\n", "4:5", "unknown key 'stpes' (did you mean 'steps'?)"),
    "unknown top key": ("sute: x\ncells: [{}]\n", "1:1", "unknown key 'sute' (did you mean 'suite'?)"),
    "wrong type": (HEAD + "cells:\n  - steps: ten\n", "4:12", "steps: 'ten' is not a whole number"),
    "quoted number": (HEAD + "cells:\n  - steps: '10'\n", "4:12", "remove the quotes"),
    "wrong section": (HEAD + "cells: 7\n", "3:8", "cells: 7 is not a list"),
    "negative steps": (
        HEAD + "cells:\n  - steps: -5\n",
        "4:12",
        "steps: -5 is not allowed: must be at least 1",
    ),
    "too many steps": (HEAD + "cells:\n  - steps: 1001\n", "4:12", "must be at most 1000"),
    "unknown choice": (
        HEAD + "cells: [{measure: [flops, latencyy]}]\n",
        "3:27",
        "measure[1]: 'latencyy' is not one of flops, latency, kernels, memory, energy, decode, training",
    ),
    "nothing measured": (HEAD + "cells: [{measure: []}]\n", "3:19", "measure: must not be empty"),
    "unknown method": ("suite: s\ncells: [{method: dit-xl2}]\n", "2:18", "did you mean 'dit-xl-2'?"),
    "unknown sampler": (HEAD + "cells: [{sampler: dimm}]\n", "3:19", "did you mean 'ddim'?"),
    "unknown dataset": (HEAD + "cells: [{dataset: digit}]\n", "3:19", "did you mean 'digits'?"),
    "no method": ("suite: s\ncells: [{}]\n", "2:9", "no method"),
    "missing name": ("cells: [{method: dit-testing}]\n", "1:1", "missing key 'suite'"),
    "unsafe name": ("suite: a/b\ncells: [{}]\n", "1:8", "is not a name"),
    "missing weights": (HEAD + "cells: [{weights: no.pt}]\n", "3:19", "no such weights file"),
    "unknown zoo weights": (HEAD + "cells: [{weights: 'zoo:nothing'}]\n", "3:19", "no weights 'zoo:nothing'"),
    "weights are a folder": (HEAD + "cells: [{weights: .}]\n", "3:19", "folder"),
    "empty matrix": (HEAD + "cells: [{matrix: {}}]\n", "3:18", "matrix: must not be empty"),
    "empty matrix list": (
        HEAD + "cells: [{matrix: {steps: []}}]\n",
        "3:26",
        "matrix.steps: must not be empty",
    ),
    "matrix key": (HEAD + "cells: [{matrix: {guidance.scal: [1]}}]\n", "3:19", "mean 'guidance.scale'?"),
    "matrix value": (HEAD + "cells: [{matrix: {steps: [5, -1]}}]\n", "3:30", "steps: -1 is not allowed"),
    "duplicate cell": (
        HEAD + "cells:\n  - name: a\n  - name: a\n",
        "5:11",
        "duplicate cell name 'a' (first in line 4)",
    ),
    "sweep of one name": (HEAD + "cells: [{name: a, matrix: {steps: [1, 2]}}]\n", "3:16", "as in '{steps}'"),
    "huge sweep": (
        HEAD + f"cells:\n  - matrix: {{steps: {list(range(900))}, seed: {list(range(900))}}}\n",
        "4:13",
        "makes 810,000 cells, more than limits.max_cells = 500",
    ),
    "baseline": (HEAD + "baseline: dit\ncells: [{name: dat}]\n", "3:11", "no cell is called 'dit'"),
    "duplicate key": (HEAD + "cells: []\ncells: []\n", "4:1", "duplicate key 'cells' (first in line 3)"),
    "interval order": (
        HEAD + "cells: [{guidance: {interval: [900, 3]}}]\n",
        "3:31",
        "low 900 is above high 3",
    ),
    "interval length": (HEAD + "cells: [{guidance: {interval: [3]}}]\n", "3:31", "too short"),
    "interval range": (HEAD + "cells: [{guidance: {interval: [3, 1000]}}]\n", "3:35", "must be at most 999"),
    "guidance channels": (
        HEAD + "cells: [{guidance: {channels: 3}}]\n",
        "3:31",
        "the 1 channels of dit-testing",
    ),
    "ddim spacing": (HEAD + "cells: [{steps: 60, sampler: {spacing: ddim}}]\n", "3:17", "take 59 or 63"),
    "ddim spacing, one": (HEAD + "cells: [{steps: 1, sampler: {spacing: ddim}}]\n", "3:17", "take 2, or"),
    "eta without ddim": (HEAD + "cells: [{sampler: {eta: 0.5}}]\n", "3:25", "the sampler is ddpm"),
    "quality of noise": (HEAD + "cells: [{measure: [flops, quality]}]\n", "3:27", "random weights"),
    "placeholder": (HEAD + "cells: [{name: '{stpes}'}]\n", "3:16", "did you mean 'steps'?"),
    "placeholder with code": (HEAD + "cells: [{name: '{steps.__class__}'}]\n", "3:16", "not a field"),
    "number read as text": (HEAD + "cells: [{guidance: 1e-3}]\n", "3:20", "write 1.0e-3"),
    "not finite": (HEAD + "cells: [{guidance: .nan}]\n", "3:20", "must be finite"),
    "date": ("suite: 2020-01-01\n", "1:8", "put it in quotes"),
    "key that is no text": ("true: 2\n", "1:1", "the key 'true' is not text"),
    "tag with code": ("suite: !!python/object/apply:os.system [exit]\n", "1:8", "is not allowed"),
    "alias of itself": ("suite: s\ncells: &a [*a]\n", "2:8", "contains itself"),
    "deep nesting": ("[" * 5000, "1:1", "nested too deeply"),
    "empty file": ("", "1:1", "empty"),
    "a list": ("- a\n", "1:1", "mapping"),
    "two documents": ("a: 1\n---\nb: 2\n", "2:1", "single document"),
    "unknown parent": (HEAD + "cells: [{}]\nextends: quikc\n", "4:10", "did you mean 'quick'?"),
    "bad option": (HEAD + "cells: [{}]\nlatency: {rounds: 1}\n", "4:19", "latency.rounds: 1 is not allowed"),
}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to(text: str, name: str = "suite.yaml") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return to


def fault(path: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        refuse_waiting(make_plan(load_suite(path)))
    line = str(caught.value)
    assert re.fullmatch(r".+:\d+:\d+: .+", line), line
    return line


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_suite_gives_one_line_with_the_place_of_the_fault(name: str, write: Write) -> None:
    text, place, words = BROKEN[name]
    path = write(text)
    line = fault(path)
    assert line.startswith(f"{path}:{place}: "), line
    assert words in line


def test_a_suite_that_is_no_text_is_refused_at_the_first_odd_byte(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_bytes(b"suite: s\n\x00\x01\x02")
    assert fault(path).startswith(f"{path}:2:1: this is a binary file")
    path.write_bytes(b"suite: \xff\xfe")
    assert fault(path).startswith(f"{path}:1:8: this is not text in UTF-8")
    path.write_bytes(b"a: 1\n" * 300_000)
    assert "too large" in fault(path)


def test_aliases_cannot_multiply_to_a_huge_suite(write: Write) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert "too large" in fault(write("\n".join(lines)))


def test_a_name_that_is_neither_file_nor_shipped_gets_a_suggestion(tmp_path: Path) -> None:
    assert "did you mean 'quick'?" in fault("quikc")
    assert "no such file" in fault(tmp_path / "none.yaml")
    assert "folder" in fault(tmp_path)


def test_a_file_goes_before_a_shipped_suite_of_the_same_name(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(HEAD.replace("suite: s", "suite: mine") + "cells: [{}]\n").rename(tmp_path / "dit-cost")
    assert load_suite("dit-cost").suite.suite == "dit-cost"
    monkeypatch.chdir(tmp_path)
    assert load_suite("dit-cost").suite.suite == "mine"


# --- extends -----------------------------------------------------------------------------------------------


@pytest.fixture
def family(write: Write) -> LoadedSuite:
    write(
        """\
        suite: parent
        title: from the parent
        defaults:
          method: dit-testing
          config: {depth: 3, num_heads: 4}
          sampler: {name: ddpm, clip: true}
          measure: [flops, memory]
        cells: [{name: a}, {name: b}]
        """,
        name="parent.yaml",
    )
    child = """\
        extends: parent.yaml
        suite: child
        defaults:
          config: {depth: 5}
          sampler: ddim
          measure: [flops]
        """
    return load_suite(write(child))


def test_extends_merges_mappings_deeply_and_replaces_lists_and_scalars(family: LoadedSuite) -> None:
    defaults = family.suite.defaults
    assert family.suite.title == "from the parent"
    assert defaults.config == {"depth": 5, "num_heads": 4}
    assert defaults.measure == ["flops"]
    assert [cell.name for cell in family.suite.cells] == ["a", "b"]


def test_a_short_sampler_keeps_the_options_of_the_parent(family: LoadedSuite) -> None:
    sampler = family.suite.defaults.sampler
    assert sampler is not None
    assert (sampler.name, sampler.clip) == ("ddim", True)


def test_positions_follow_each_value_to_its_file(family: LoadedSuite) -> None:
    def place(*path: str | int) -> str:
        found = family.position_of(path)
        return f"{found.file.name}:{found.line}:{found.column}"

    assert place("title") == "parent.yaml:2:8"
    assert place("defaults", "config", "depth") == "suite.yaml:4:19"
    assert place("defaults", "config", "num_heads") == "parent.yaml:5:33"
    assert place("cells", 1, "name") == "parent.yaml:8:27"
    assert place("cells", 1, "steps") == "parent.yaml:8:20", "an absent value is placed at its cell"
    assert [file.name for file in family.files] == ["suite.yaml", "parent.yaml"]


def test_a_child_must_name_itself(write: Write) -> None:
    assert "missing key 'suite'" in fault(write("extends: dit-cost\n"))


def test_a_shipped_suite_can_be_extended_by_its_name(write: Write) -> None:
    plan = make_plan(load_suite(write("extends: dit-cost\nsuite: mine\ndefaults: {seed: 7}\n")))
    assert {cell.spec.seed for cell in plan.cells} == {7}


def test_a_circle_of_extends_shows_the_chain(write: Write) -> None:
    write("extends: b.yaml\nsuite: a\n", name="a.yaml")
    write("extends: c.yaml\nsuite: b\n", name="b.yaml")
    line = fault(write("suite: c\nextends: a.yaml\n", name="c.yaml"))
    assert re.search(r"c\.yaml -> \S*a\.yaml -> \S*b\.yaml -> \S*c\.yaml", line)
    assert "b.yaml:1:10:" in line, "the place is where the circle closes"


def test_a_fault_in_the_parent_is_placed_in_the_parent(write: Write) -> None:
    parent = write(HEAD + "cells: [{steps: 0}]\n", name="parent.yaml")
    assert fault(write("extends: parent.yaml\nsuite: c\n")).startswith(f"{parent}:3:17: steps: 0")


# --- the flattened text ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(shipped_suites()))
def test_the_flattened_text_of_a_shipped_suite_says_the_same(name: str, write: Write) -> None:
    loaded = load_suite(name)
    again = load_suite(write(loaded.text))
    assert again.suite == loaded.suite
    assert again.text == loaded.text


def test_the_flattened_text_stands_alone_in_another_folder(write: Write, tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"x")
    write("suite: p\ndefaults: {weights: w.pt}\ncells: [{method: dit-testing}]\n", name="parent.yaml")
    text = load_suite(write("extends: parent.yaml\nsuite: c\ntitle: '1e-3'\n")).text
    (tmp_path / "elsewhere").mkdir()
    moved = write(text, name="elsewhere/suite.yaml")
    assert load_suite(moved).suite.title == "1e-3"
    assert make_plan(load_suite(moved)).cells[0].spec.weights == str(tmp_path / "w.pt")


def test_whole_numbers_and_shorthand_stand_for_floats_and_mappings(write: Write) -> None:
    (cell,) = load_suite(write(HEAD + "cells: [{guidance: 2, sampler: ddim}]\n")).suite.cells
    assert cell.guidance is not None and cell.guidance.scale == 2.0
    assert cell.sampler is not None and cell.sampler.name == "ddim"


def test_every_field_of_the_schema_has_a_default_or_is_asked_for() -> None:
    required = {name for name, field in suite_model().model_fields.items() if field.is_required()}
    assert required == {"suite", "cells"}


def test_planning_never_imports_torch() -> None:
    code = (
        "import sys; from ditbench.harness.suite.load import load_suite;"
        "from ditbench.harness.suite.plan import make_plan;"
        "make_plan(load_suite('dit-cost')); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
