"""Which code a registered name stands for: part of identities, so that changed code is never answered from old records.

An installed release is told by its version. An editable install, or a plugin, is told by a digest of its sources too.
Never imports torch, nor what it digests.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

OWN = "ditbench"
_METHODS = "ditbench.methods"


@dataclass(frozen=True)
class Origin:
    """The distribution that something comes from; ``version`` is empty where nobody knows it."""

    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()

    @staticmethod
    def of_distribution(found: Distribution | None) -> Origin:
        return Origin("an unknown distribution") if found is None else Origin(found.name, found.version)

    def code(self, target: str) -> str:
        """Of 'module:attribute': this distribution's code, and for a plugin ditbench's own, which it builds on."""
        if self.name == OWN:
            return str(self) if _released() else f"{self} {sources(_METHODS)}"
        module = target.partition(":")[0]
        return f"{self} {sources(module.partition('.')[0])}; {own_origin().code(_METHODS)}"


@cache
def own_origin() -> Origin:
    """ditbench itself."""
    try:
        return Origin(OWN, distribution(OWN).version)
    except PackageNotFoundError:
        return Origin(OWN)


@cache
def _released() -> bool:
    """Whether the code that runs is an installed release's: not an editable install's, nor a checkout's."""
    try:
        found = distribution(OWN)
    except PackageNotFoundError:
        return False
    url = json.loads(found.read_text("direct_url.json") or "{}")
    if url.get("dir_info", {}).get("editable"):
        return False
    installed = Path(str(found.locate_file(f"{OWN}/__init__.py")))
    spec = find_spec(OWN)
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == installed.resolve()


@cache
def sources(module: str) -> str:
    """'sources 0123456789abcdef': a digest of the files of a module, or of all modules of a package."""
    spec = find_spec(module)
    folders = [] if spec is None else [Path(each) for each in spec.submodule_search_locations or ()]
    files = [(folder, file) for folder in folders for file in sorted(folder.rglob("*.py"))]
    if not folders and spec is not None and spec.origin is not None:
        files = [(Path(spec.origin).parent, Path(spec.origin))]
    total = hashlib.sha256()
    for folder, file in files:
        content = file.read_bytes()
        total.update(f"{file.relative_to(folder)}\0{len(content)}\0".encode() + content)
    return f"sources {total.hexdigest()[:16]}"
