"""The structure of the code: who may import whom, and what must stay cheap to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

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
