"""What processes that a run starts import: what their parent does, not what lies in the working folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ditbench.harness.imports import import_variables, importing_alike

ROOT = Path(__file__).parent.parent
TOLD = """
import json, os, subprocess, sys
from ditbench.harness.imports import import_variables
own = [entry or os.getcwd() for entry in sys.path]
child = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.path))"]
environment = {**os.environ, **import_variables()}
done = subprocess.run(child, cwd="elsewhere", env=environment, stdout=subprocess.PIPE, text=True, check=True)
print(json.dumps([own, json.loads(done.stdout)]))
"""


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize("named", ["", "plugins", f"plugins{os.pathsep}."])
def test_a_child_searches_the_same_folders_in_the_same_order(tmp_path, safe, named):
    (tmp_path / "elsewhere").mkdir()
    words = [sys.executable, *(["-P"] if safe else []), "-c", TOLD]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [named, str(ROOT)]))}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    own, child = json.loads(done.stdout)
    assert child == list(dict.fromkeys(own)), "a folder that Python puts first twice is there once"
    assert (str(tmp_path) in child) == (not safe or "." in named), "what the parent was told to search, and no more"
    assert str(tmp_path / "elsewhere") not in child


def test_variables_for_what_is_started_meanwhile_are_taken_back(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "before")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    with pytest.raises(KeyError), importing_alike():
        assert {name: os.environ[name] for name in import_variables()} == import_variables()
        raise KeyError
    assert os.environ["PYTHONPATH"] == "before" and "PYTHONSAFEPATH" not in os.environ
