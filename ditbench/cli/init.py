"""``init``: writes a plugin distribution of a kind, or a suite, from the texts in ``ditbench/templates``."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from ditbench.harness.errors import InputError, did_you_mean
from ditbench.methods.entries import GROUPS, UnknownNameError
from ditbench.methods.errors import ConfigError
from ditbench.methods.facts import Facts
from ditbench.methods.registry import facts_of
from ditbench.methods.zoo import manifest

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SUFFIX = ".in"
_DIGITS = (1, 8, 8)


@dataclass(frozen=True)
class Kind:
    """A kind of plugin.

    group    where its entry point belongs
    module   of the code, beside ``entries``
    folders  of templates, later ones over earlier ones
    words    further replacements
    """

    group: str
    module: str
    folders: tuple[str, ...]
    words: Mapping[str, str] = field(default_factory=dict)


def _model(folder: str, does: str, predicts: str = "noise") -> Kind:
    flow = predicts == "velocity"
    words = {
        "does": does,
        "predicts": predicts,
        "beside": "sit-digits" if flow else "dit-digits",
        "sampler": "euler" if flow else "{name: ddim, clip: true}",
        "sampler_name": "euler" if flow else "ddim",
    }
    return Kind("methods", "model", ("shared", "model", folder), words)


KINDS = {
    "static": _model("static", "that predicts noise"),
    "dynamic": _model("dynamic", "that runs fewer blocks in noisy steps"),
    "flow": _model("flow", "that predicts velocity", "velocity"),
    "modifier": Kind("modifiers", "modifier", ("shared", "modifier")),
    "sampler": Kind("samplers", "sampler", ("shared", "sampler")),
    "metric": Kind("metrics", "metric", ("shared", "metric")),
}


def init_method(name: str, kind: str, out: Path | None) -> None:
    """Write the distribution ``name`` into ``out`` (a folder called like it) and say what to do next. Raises
    InputError."""
    if kind not in KINDS:
        raise InputError(f"--kind {kind}: not one of {', '.join(KINDS)}{did_you_mean(kind, KINDS)}")
    chosen, package = KINDS[kind], _package(name)
    folder = out or Path(name)
    _empty(folder)
    words = {
        "name": name,
        "package": package,
        "Class": "".join(part.capitalize() for part in name.split("-")),
        "group": chosen.group,
        "listed": chosen.group,
        "word": GROUPS[chosen.group],
        "module": chosen.module,
        **chosen.words,
    }
    for path, text in _texts(chosen.folders).items():
        _write(folder / path.replace("package", package), filled(text, words))
    print(
        f"{folder}: a {words['word']} that does something already\n"
        f"  pip install --no-deps --no-build-isolation -e {folder}\n"
        f"  ditbench run {folder / 'suite.yaml'}"
    )


def init_suite(name: str, methods: Sequence[str], out: Path | None) -> None:
    """Write NAME.yaml with a cell a method into the folder ``out`` (the working one). Raises InputError."""
    if not _NAME.fullmatch(name):
        raise InputError(_not_a_name(name))
    file = (out or Path()) / f"{name}.yaml"
    if file.exists():
        raise InputError(f"{file} exists already: give another name, or another folder with --out")
    listed = list(dict.fromkeys(methods or ["dit-digits", "dydit-digits"]))
    text = _texts(("suite",))["suite.yaml"]
    first, *others = (_facts(method) for method in listed)
    cells = [_cell(listed[0], first, "")]
    cells += [
        _cell(method, facts, ", paired" if _trained(listed[0], first) else "")
        for method, facts in zip(listed[1:], others, strict=True)
    ]
    _write(file, filled(text, {"name": name, "baseline": _cell_name(listed[0]), "cells": "\n".join(cells)}))
    print(f"{file}: {len(listed)} cells\n  ditbench plan {file}\n  ditbench run {file}")


def filled(text: str, words: Mapping[str, str]) -> str:
    """``text`` with every @word@ replaced. Raises KeyError for one that has no meaning."""
    return re.sub(r"@(\w+)@", lambda found: words[found[1]], text)


def _facts(method: str) -> Facts:
    try:
        return facts_of(method, {})
    except UnknownNameError as error:
        raise InputError(str(error)) from None
    except (ConfigError, TypeError) as error:
        raise InputError(f"{method}: {error}") from None


def _trained(method: str, facts: Facts) -> str | None:
    """Weights in the zoo that a protocol can score: those of digits."""
    names = (method, f"{method}-0.5") if facts.space.shape == _DIGITS else ()
    return next((each for each in names if each in manifest()), None)


def _cell(method: str, facts: Facts, paired: str) -> str:
    """A cell of a suite: what fits the method; quality where there are weights, with ``paired`` beside it."""
    pixels = ", clip: true" if facts.space.scale == 1 else ""
    sampler = f"{{name: ddim{pixels}}}" if facts.predicts == "noise" else "euler"
    lines = [f"  - name: {_cell_name(method)}", f"    method: {method}", f"    sampler: {sampler}"]
    if trained := _trained(method, facts):
        lines += [
            f"    weights: zoo:{trained}",
            "    dataset: digits",
            f"    measure: [flops, latency, kernels, memory, quality{paired}]",
        ]
    else:
        lines.append("    # weights: a .safetensors file; with weights and a reference, measure quality too")
    return "\n".join(lines)


def _cell_name(method: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", method)


def _texts(folders: Sequence[str]) -> dict[str, str]:
    """Path in the distribution -> template."""
    found: dict[str, str] = {}
    for folder in folders:
        root = Path(str(files("ditbench.templates"))) / folder
        for file in sorted(root.rglob(f"*{_SUFFIX}")):
            found[file.relative_to(root).as_posix().removesuffix(_SUFFIX)] = file.read_text()
    return found


def _package(name: str) -> str:
    """The package of a distribution. Raises InputError where there can be none."""
    if not _NAME.fullmatch(name):
        raise InputError(_not_a_name(name))
    package = name.replace("-", "_")
    spec = find_spec(package)  # a folder without code is no package: it has no origin
    if keyword.iskeyword(package) or package in sys.stdlib_module_names or (spec is not None and spec.origin):
        raise InputError(f"{name}: there is a module {package} already, which the plugin's package would hide")
    return package


def _not_a_name(name: str) -> str:
    near = re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()).strip("-0123456789")
    hint = f" (did you mean {near!r}?)" if _NAME.fullmatch(near) else ""
    return f"{name!r} is no name: small letters, digits and single hyphens, beginning with a letter{hint}"


def _empty(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} exists and is not empty: give another folder with --out")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give another folder with --out")


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror or error})") from None
