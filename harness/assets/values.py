"""The files that ditbench uses but cannot ship, as values: published ones, and what a user names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ditbench.harness.errors import Position

Kind = Literal["asset", "weights", "reference"]


@dataclass(frozen=True)
class KnownAsset:
    """A published file that something in ditbench waits for. Nothing here is ever downloaded.

    kind       'asset': ditbench expects exactly this file; 'weights': a model's or an autoencoder's, any that fit;
               'reference': a file or folder of the user's choice
    file_name  the name that it is published under; of a folder too
    licence    in words
    sha256     the published file's digest, 64 hexadecimal digits; '' where none is public
    waits      what cannot run without it
    method     of a model's weights: the registered method that they fit, under ``config``; '' for any other
    folder     it is a folder of files
    """

    name: str
    kind: Kind
    summary: str
    file_name: str
    published: str
    licence: str
    sha256: str
    waits: tuple[str, ...]
    method: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    folder: bool = False

    @property
    def table(self) -> str:
        """Its table in ``ditbench.toml``."""
        return "references" if self.kind == "reference" else "assets"


@dataclass(frozen=True)
class Entry:
    """One file or folder that the user named.

    path      absolute; need not exist
    sha256    64 lower-case hexadecimal digits, or None where the user gave none
    position  of its name in the configuration; None if it was named elsewhere
    config    of a model's weights: in what its shape is not the published model's
    """

    name: str
    path: Path
    sha256: str | None
    position: Position | None
    kind: Kind = "reference"
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Assets:
    """What the configuration names, by name; ``file`` is None where there is none."""

    file: Path | None
    assets: Mapping[str, Entry] = field(default_factory=dict)
    references: Mapping[str, Entry] = field(default_factory=dict)

    def find(self, name: str) -> Entry | None:
        """The asset or weights of that name, or None if the configuration does not name them."""
        return self.assets.get(name)

    def reference(self, name: str) -> Entry | None:
        """The reference of that name, or None if the configuration does not name it."""
        return self.references.get(name)
