"""The small checkpoints that ship with ditbench, and the manifest of their recipes, digests and figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
MANIFEST = FOLDER / "manifest.json"


def manifest() -> dict[str, dict[str, Any]]:
    """name -> {file, sha256, bytes, recipe, figures}. Reads no weights and needs no torch."""
    entries: dict[str, dict[str, Any]] = json.loads(MANIFEST.read_text()) if MANIFEST.is_file() else {}
    return entries


def checkpoint(name: str) -> Path:
    """The file of a shipped checkpoint. Raises KeyError."""
    return FOLDER / str(manifest()[name]["file"])
