"""``ditbench init`` writes distributions that work as they are, and suites that plan."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from plugin_folders import PLUGINS, command, with_distributions

from ditbench.cli.init import KINDS, init_method, init_suite
from ditbench.harness.errors import InputError
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import make_plan
from ditbench.methods.registry import methods

WRITTEN = {"tiny-flow": "flow", "layer-skip": "modifier", "ab2": "sampler", "edges": "metric"}
"""Distributions beside the tests that are as the templates write them -> their kinds."""


PLANS = """
import json, sys
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import make_plan
print(json.dumps([make_plan(load_suite(each)).to_json() for each in sys.argv[1:]]))
"""


def planned(env: dict[str, str], cwd: Path, *suites: Path) -> list[dict[str, set[str]]]:
    """Of each suite: cell -> what it measures."""
    words = [sys.executable, "-c", PLANS, *map(str, suites)]
    done = subprocess.run(words, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [{cell["name"]: set(cell["measurements"]) for cell in each["cells"]} for each in json.loads(done.stdout)]


def files_of(folder: Path) -> dict[str, str]:
    found = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
    caches = re.compile(r"(^|/)(\.|__pycache__)")
    return {name: file.read_text() for name, file in found.items() if not caches.search(name)}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_to_fill_in_and_entries_import_no_torch(kind, tmp_path):
    init_method("of-mine", kind, tmp_path / "made")
    found = files_of(tmp_path / "made")
    words = {"README.md", "pyproject.toml", "suite.yaml", "src/of_mine/entries.py", "tests/test_of_mine.py"}
    assert found.keys() >= words and len([name for name in found if name.startswith("src/of_mine/")]) > 1
    for name, text in found.items():
        assert not re.search(r"@\w+@", text), name
        if name.endswith(".py"):
            ast.parse(text)
    point = tomllib.loads(found["pyproject.toml"])["project"]["entry-points"]
    assert point == {f"ditbench.{KINDS[kind].group}": {"of-mine": "of_mine.entries:ENTRY"}}
    code = "import sys, of_mine.entries; assert 'torch' not in sys.modules"
    env = with_distributions([tmp_path / "made"], tmp_path / "site")
    subprocess.run([sys.executable, "-c", code], env=env, check=True, cwd=tmp_path)


@pytest.mark.parametrize("name", WRITTEN)
def test_distributions_beside_the_tests_are_as_they_would_be_written_today(name, tmp_path):
    init_method(name, WRITTEN[name], tmp_path / name)
    assert files_of(tmp_path / name) == files_of(PLUGINS / name)


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> tuple[list[Path], dict[str, str], Path]:
    """A distribution of each kind and the two that were changed by hand, visible."""
    folder = tmp_path_factory.mktemp("init")
    made = [PLUGINS / name for name in (*WRITTEN, "step-cache")]
    for kind in sorted(KINDS.keys() - {*WRITTEN.values()}):
        init_method(f"{kind}-testing", kind, folder / kind)  # of this ending no quality is measured after training
        made.append(folder / kind)
    return made, with_distributions(made, folder / "site"), folder


@pytest.mark.release
def test_their_own_tests_pass(everything):
    made, env, folder = everything
    done = command("pytest", "-q", "-p", "no:cacheprovider", *(each / "tests" for each in made), cwd=folder, env=env)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout and int(re.findall(r"(\d+) passed", done.stdout)[0]) >= 5 * len(made) - 10


def test_their_suites_plan_with_every_measurement_that_they_promise(everything):
    made, env, folder = everything
    for cells in planned(env, folder, *(each / "suite.yaml" for each in made)):
        assert len(cells) > 1
        assert all(names >= {"flops", "latency", "kernels", "memory"} for names in cells.values())
        assert any("quality" in names for names in cells.values())


@pytest.mark.release
def test_a_recipe_of_the_template_trains_what_its_suite_then_scores(everything, tmp_path):
    _, env, folder = everything
    recipe, suite = (folder / "static" / name for name in ("recipe.yaml", "suite.yaml"))
    short = re.sub(r"steps: \d+", "steps: 3", recipe.read_text()).replace("warmup: 50", "warmup: 1")
    (tmp_path / "recipe.yaml").write_text(short)
    trained = command("ditbench", "train", "recipe.yaml", cwd=tmp_path, env=env)
    assert trained.returncode == 0, trained.stderr
    (tmp_path / "suite.yaml").write_text(
        suite.read_text().replace("    # weights", "    weights").replace("    # measure", "    measure")
    )
    (cells,) = planned(env, tmp_path, tmp_path / "suite.yaml")
    assert cells["static-testing"] >= {"quality", "paired"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("My Method", r"'My Method' is no name: .* \(did you mean 'my-method'\?\)"),
        ("MyMethod", r"\(did you mean 'my-method'\?\)"),
        ("2fast", r"beginning with a letter \(did you mean 'fast'\?\)"),
        ("a--b", r"\(did you mean 'a-b'\?\)"),
        ("-", "is no name"),
        ("../x", "is no name"),
        ("torch", "there is a module torch already"),
        ("class", "there is a module class already"),
        ("json", "there is a module json already"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        init_method(name, "static", None)
    assert not [*tmp_path.iterdir()]


def test_nothing_that_is_there_is_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    init_method("of-mine", "static", None)
    before = files_of(tmp_path)
    with pytest.raises(InputError, match="of-mine exists and is not empty: give another folder with --out"):
        init_method("of-mine", "flow", None)
    with pytest.raises(InputError, match=r"--kind flwo: not one of static, .* \(did you mean 'flow'\?\)"):
        init_method("another", "flwo", None)
    with pytest.raises(InputError, match="is a file"):
        init_method("another", "flow", tmp_path / "of-mine" / "README.md")
    assert files_of(tmp_path) == before
    init_suite("s", [], None)
    with pytest.raises(InputError, match=r"s\.yaml exists already"):
        init_suite("s", [], None)


@pytest.mark.parametrize(
    "listed", [(), ("sit-digits", "dysit-digits"), ("dit-xl-2", "dydit-digits", "flexidit-digits")]
)
def test_a_suite_has_a_cell_a_method_and_quality_where_there_are_weights(listed, tmp_path):
    init_suite("mine", listed, tmp_path)
    plan = make_plan(load_suite(tmp_path / "mine.yaml"))
    names = [cell.spec.method for cell in plan.cells]
    assert names == [*(listed or ("dit-digits", "dydit-digits"))]
    assert plan.baseline is not None and plan.baseline.cell == names[0]
    for cell in plan.cells:
        scored = {each.name for each in cell.measurements} & {"quality"}
        assert bool(scored) == (cell.spec.weights is not None) == (cell.spec.method != "dit-xl-2")
        assert methods()[cell.spec.method].facts_of({}).predicts == (
            "velocity" if cell.spec.sampler == "euler" else "noise"
        )


def test_a_suite_of_methods_that_nobody_knows_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"unknown method 'dit-digit' .did you mean 'dit-digits'"):
        init_suite("mine", ["dit-digit"], tmp_path)
    assert not [*tmp_path.iterdir()]


def test_both_verbs_say_what_to_do_next(tmp_path):
    env = with_distributions([], tmp_path)
    method = command("ditbench", "init", "method", "of-mine", "--kind", "dynamic", cwd=tmp_path, env=env)
    assert method.returncode == 0 and "ditbench run of-mine/suite.yaml" in method.stdout
    suite = command("ditbench", "init", "suite", "mine", "--method", "dit-digits", cwd=tmp_path, env=env)
    assert suite.returncode == 0 and "ditbench run mine.yaml" in suite.stdout
    again = command("ditbench", "init", "method", "of-mine", cwd=tmp_path, env=env)
    assert again.returncode == 2 and again.stderr == (
        "error: of-mine exists and is not empty: give another folder with --out\n"
    )
