"""Small checkpoints that ship: ditbench's, with a manifest of their recipes, digests and figures, and those of other
distributions, which their methods' entries name. Reads no weights and needs no torch."""

from __future__ import annotations

import difflib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ditbench.methods.entries import Shipped, UnknownNameError
from ditbench.methods.registry import methods

ZOO = "zoo:"
FOLDER = Path(__file__).parent
MANIFEST = FOLDER / "manifest.json"


def manifest() -> dict[str, dict[str, Any]]:
    """name -> {file, sha256, bytes, recipe, figures} of ditbench's own."""
    entries: dict[str, dict[str, Any]] = json.loads(MANIFEST.read_text()) if MANIFEST.is_file() else {}
    return entries


def checkpoint(name: str) -> Path:
    """The file of a shipped checkpoint: NAME, or DISTRIBUTION/NAME of another distribution. Raises UnknownNameError."""
    if "/" in name:
        return _located(name, _plugged(name).path)
    entries = manifest()
    if name not in entries:
        raise UnknownNameError(f"no weights {ZOO + name!r}{_hint(name, list(entries))}")
    return FOLDER / str(entries[name]["file"])


def declared_sha256(name: str) -> str:
    """The digest that another distribution's DISTRIBUTION/NAME must have, hex; empty where none is declared, or of
    ditbench's own. Raises UnknownNameError."""
    return _plugged(name).sha256 if "/" in name else ""


def _plugged(name: str) -> Shipped:
    distribution, _, short = name.partition("/")
    found = {key: value for entry in methods().of(distribution) for key, value in entry.weights.items()}
    if short not in found:
        raise UnknownNameError(f"no weights {short!r} in {distribution}{_hint(short, list(found))}")
    shipped = found[short]
    return Shipped(shipped) if isinstance(shipped, str) else shipped


def _located(name: str, path: str) -> Path:
    """A path whose first part is a package, which is found but not imported."""
    package, _, inside = path.partition("/")
    try:
        spec = find_spec(package)
    except ValueError:
        spec = None
    if spec is None or not spec.submodule_search_locations or not inside:
        raise UnknownNameError(f"weights {ZOO + name!r}: {path!r} does not begin with a package")
    places = [Path(folder) / inside for folder in spec.submodule_search_locations]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise UnknownNameError(f"weights {ZOO + name!r}: {places[0]} is no file")
    return file


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else f" (there are: {', '.join(known) or 'none'})"
