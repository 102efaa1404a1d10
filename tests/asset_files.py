"""An empty folder and home, and the configurations and files that tests of assets put there."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from ditbench.harness.assets import KNOWN

WEIGHTS = b"stand-in for the weights of an extractor"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder and an empty home; Inception's published digest is that of WEIGHTS."""
    for name in ("here", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("DITBENCH_CONFIG", raising=False)
    monkeypatch.setitem(KNOWN, "inception-2015", replace(KNOWN["inception-2015"], sha256=sha256(WEIGHTS)))
    return tmp_path / "here"


def configure(text: str, file: str = "ditbench.toml") -> Path:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(text)
    return Path(file)


def asset(path: Path | str, name: str = "inception-2015", digest: str | None = None) -> str:
    pinned = f'sha256 = "{digest}"\n' if digest else ""
    return f"[assets.{name}]\npath = '{path}'\n{pinned}"


def reference(path: Path | str, name: str = "mine", digest: str | None = None) -> str:
    return asset(path, name, digest).replace("assets", "references")


DIGEST = "ab" * 32
