"""Distributions as ``ditbench init`` writes them, made visible without installing them."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from commands import ROOT, environment

PLUGINS = Path(__file__).parent / "plugins"


def visible(distribution: Path, beside: Path) -> list[str]:
    """Folders for PYTHONPATH: the sources of a distribution, and what an installation would write, in ``beside``."""
    told = tomllib.loads((distribution / "pyproject.toml").read_text())["project"]
    name, version = told["name"], told["version"]
    info = beside / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, points in told["entry-points"].items():
        lines += [f"[{group}]", *(f"{point} = {target}" for point, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return [str(distribution / "src"), str(beside)]


def with_distributions(distributions: Iterable[Path], beside: Path) -> dict[str, str]:
    """The environment of a process that sees them and these sources of ditbench."""
    folders = [folder for each in distributions for folder in visible(each, beside)]
    return {
        **environment(),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *dict.fromkeys(folders)]),
        "OMP_NUM_THREADS": "1",
    }


def command(*words: object, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a module of Python to its end, as in ``python -m ditbench list methods``."""
    line = [sys.executable, "-m", *map(str, words)]
    return subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=600)
