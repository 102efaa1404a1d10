"""``doctor``: which weights, references and software are here, and what waits for those that are not."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import sysconfig
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from ditbench.cli.fit import compared
from ditbench.harness.assets import KNOWN, AssetStatus, config_file, status
from ditbench.harness.assets.config import FILE_NAME, table_header
from ditbench.harness.environment import visible_gpu

PLACES = f"./{FILE_NAME} or ~/.config/ditbench/{FILE_NAME}"
LEAST_FREE_GIB = 1.0
NAME_COLUMNS = 40  # longer names push their row aside, not every row


@dataclass(frozen=True)
class Check:
    """One piece of software or hardware: whether it is there, one line about it, and what waits for it."""

    name: str
    state: str
    detail: str
    waits: str


def show_doctor(as_json: bool) -> int:
    """Print configuration, assets, references, weights and software. Returns 1 if a configured file is absent or wrong,
    else 0.

    Reads configured files in full, those that changed since they were last read, and imports torch. What is merely not
    configured or not installed is told, but is no fault. Raises InputError if the configuration itself is faulty.
    """
    config, checks = config_file(), software()
    found = [compared(each) for each in status()]
    healthy = not any(each.faulty for each in found)
    if as_json:
        answer = {
            "config": None if config is None else str(config),
            "healthy": healthy,
            "assets": [_as_json(each) for each in found],
            "software": [asdict(check) for check in checks],
        }
        print(json.dumps(answer, indent=1, ensure_ascii=False))
    else:
        print(f"configuration: {config or f'none at {PLACES}'}\n")
        _print_assets("asset or reference", [each for each in found if each.kind != "weights"])
        print()
        _print_assets("weights", [each for each in found if each.kind == "weights"])
        print()
        _print_software(checks)
        _print_to_add(found, config)
        faults = [each.name for each in found if each.faulty]
        print(f"\nto mend: {', '.join(faults)}" if faults else "\nnothing to mend")
    return 0 if healthy else 1


def software() -> list[Check]:
    """The checks, in the order in which they are shown. Imports torch, torchvision and fvcore."""
    checks = (
        ("python", platform.python_version, "everything"),
        ("torch", _torch, "everything but list and doctor"),
        ("torchvision", _torchvision, "protocols adm, clean, dinov2; paired lpips"),
        ("diffusers", _diffusers, "cells with a decoder"),
        ("fvcore", partial(_importable, "fvcore.nn"), "FLOPs"),
        ("typst", partial(_importable, "typst"), "the report as PDF"),
        ("C++ compiler", _compiler, "mode: compiled"),
        ("GPU", _gpu, "device: cuda"),
        ("disk", _disk, "samples and records"),
    )
    return [_check(name, look, waits) for name, look, waits in checks]


class _Missing(Exception):
    """``str()`` says what is missing."""


def _check(name: str, look: Callable[[], str], waits: str) -> Check:
    try:
        return Check(name, "ok", look(), waits)
    except Exception as error:  # a broken installation may raise anything, and the other checks must still be told
        text = str(error) if isinstance(error, _Missing | ImportError) else f"{type(error).__name__}: {error}"
        return Check(name, "missing", " ".join(text.split()), waits)


def _torch() -> str:
    import torch

    return f"{torch.__version__}, built for {_build(torch)}"


def _build(torch: ModuleType) -> str:
    if torch.version.cuda:
        return f"CUDA {torch.version.cuda}"
    return f"ROCm {torch.version.hip}" if torch.version.hip else "the CPU only"


def _torchvision() -> str:
    from ditbench.methods.torchvision_shim import ensure_torchvision_importable

    shimmed = ensure_torchvision_importable()
    return _importable("torchvision") + (" (compiled operators left out; not needed)" if shimmed else "")


def _diffusers() -> str:
    from ditbench.methods.torchvision_shim import ensure_torchvision_importable

    ensure_torchvision_importable()
    return _importable("diffusers")


def _importable(module: str) -> str:
    import_module(module)
    return version(module.partition(".")[0])


def _compiler() -> str:
    """The one that torch.compile would take; what it writes for the CPU includes Python.h."""
    command = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    found = shutil.which(command)
    if found is None:
        raise _Missing(f"no {command} (another one: CXX)")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise _Missing(f"{found}, but not Python's headers (Python.h)")
    return found


def _gpu() -> str:
    import torch

    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        return torch.cuda.get_device_name(0) + (f", first of {count}" if count > 1 else "")
    gpu = visible_gpu()
    if gpu is None:
        raise _Missing("none seen by torch or nvidia-smi")
    raise _Missing(f"{gpu['name']} seen by nvidia-smi, not by torch, built for {_build(torch)}")


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    if free < LEAST_FREE_GIB:
        raise _Missing(f"only {free:.2f} GiB free here")
    return f"{free:,.0f} GiB free here; 50,000 samples of 256x256 take 9.2"


def _print_assets(title: str, found: list[AssetStatus]) -> None:
    """A row each; below it what may be long, on lines of its own, so that nothing is cut or broken."""
    names = min(NAME_COLUMNS, max(len(each.name) for each in found))
    print(f"{title:<{names}}  {'state':<8}  what waits for it")
    for each in found:
        print(f"{each.name:<{names}}  {each.state:<8}  {'; '.join(each.waits)}")
        if each.path is not None:
            print(f"    {each.path}")
            for line in _wrapped(each.hint):
                print(f"    {line}")


def _wrapped(text: str) -> list[str]:
    """At most 116 columns a line, except where one word is longer."""
    width = min(shutil.get_terminal_size().columns, 120) - 4
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _print_software(checks: list[Check]) -> None:
    names = max(len(check.name) for check in checks)
    print(f"{'software':<{names}}  state    found")
    for check in checks:
        waiting = f"; waits: {check.waits}" if check.state == "missing" else ""
        print(f"{check.name:<{names}}  {check.state:<7}  {check.detail}{waiting}")


def _print_to_add(found: list[AssetStatus], config: Path | None) -> None:
    """The lines to paste; as a whole they are a valid configuration."""
    unpinned = [each for each in found if each.state == "unpinned"]
    absent = [each for each in found if each.state == "absent" and not each.faulty]
    if unpinned:
        print("\nTo pin what is unpinned, add its sha256 under the header that is there:\n")
        print("\n".join(_toml(each) for each in unpinned))
    if absent:
        print("\nNothing is ever downloaded. To add what is absent, get the file and paste its")
        print(f"lines into {config or PLACES}:\n")
        print("\n\n".join(_toml(each) for each in absent))


def _toml(found: AssetStatus) -> str:
    """The lines that would pin what is there, or name what is published; '' where there is nothing to say."""
    header = table_header("references" if found.kind == "reference" else "assets", found.name)
    if found.digest is not None:
        return f'{header}\nsha256 = "{found.digest}"'
    known = KNOWN.get(found.name)
    if known is None:
        return ""
    lines = [f"# {known.summary}", f"# licence: {known.licence}", f"# {known.published}", header]
    lines.append(f"path = {json.dumps(known.file_name)}")
    return "\n".join([*lines, f'sha256 = "{known.sha256}"'] if known.sha256 else lines)


def _as_json(found: AssetStatus) -> dict[str, object]:
    """The fields of the status, 'faulty', where a known file is published, and the lines to paste."""
    known = KNOWN.get(found.name)
    return {
        **asdict(found),
        "path": None if found.path is None else str(found.path),
        "faulty": found.faulty,
        "file_name": known.file_name if known else None,
        "published": known.published if known else None,
        "licence": known.licence if known else None,
        "toml": _toml(found),
    }
