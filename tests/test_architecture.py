"""The structure of the code: who may import whom, and what must stay cheap to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from ditbench.methods.registry import methods

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "methods": {"harness", "report", "ditbench"},
    "harness": {"report", "ditbench"},
    "report": {"methods", "ditbench", "torch"},
}


def imported_by(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_run_from_report_to_harness_to_methods(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files, f"{package} has no modules: the test would hold of anything"
    wrong = {str(f.relative_to(ROOT)): sorted(imported_by(f) & FORBIDDEN[package]) for f in files}
    assert not {name: names for name, names in wrong.items() if names}


@pytest.mark.parametrize("arguments", [["--help"], ["list", "methods"], ["list", "suites"], ["list", "samplers"]])
def test_help_and_lists_never_import_torch(arguments):
    code = (
        f"import sys; sys.argv = ['ditbench', *{arguments!r}]\n"
        "from ditbench.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_models_of_a_flow_are_their_siblings_own_classes_and_nothing_is_written_twice():
    registry = methods()
    siblings = [(entry, registry[entry.name.replace("sit", "dit")]) for entry in registry if "sit" in entry.name]
    assert len(siblings) == sum("dit" in entry.name for entry in registry) > 20, "each has one"
    for flow, noise in siblings:
        assert (flow.target, flow.converter) == (noise.target, noise.converter), flow.name
        change = {name: value for name, value in flow.preset.items() if noise.preset.get(name) != value}
        assert change.pop("flow") == "linear" and change in ({}, {"learn_sigma": False}), flow.name
        assert noise.preset == {name: flow.preset[name] for name in noise.preset}, flow.name
    classes = {
        node.name.lower()
        for file in (ROOT / "methods").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    assert classes >= {"dit", "dydit", "flexidit"}
    assert not classes & {"sit", "dysit", "flexisit"}
