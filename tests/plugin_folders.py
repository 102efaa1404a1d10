"""Distributions as ``ditbench init`` writes them, made visible without installing them."""

import tomllib
from pathlib import Path

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
