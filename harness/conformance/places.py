"""Where something is wrong, in the author's own code: file, line and function."""

from __future__ import annotations

import inspect
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

_NEVER = ("ditbench.harness", "torch", "fvcore")


def place_of(kind: type, *names: str) -> str:
    """'my/model.py:31 (MyModel.work)': of these attributes the one that is written nearest to ``kind``; torch's own are
    passed over."""
    for owner in (each for each in kind.__mro__ if not _within(each.__module__, _NEVER)):
        for name in names:
            if name in vars(owner):
                found: Any = inspect.unwrap(_function(vars(owner)[name]))
                inherited = "" if owner is kind else f", which {kind.__name__} inherits"
                code = getattr(found, "__code__", None)
                if code is None:
                    return f"{name} of {class_place(owner)}{inherited}"
                return f"{shown(code.co_filename)}:{code.co_firstlineno} ({owner.__name__}.{name}{inherited})"
    return class_place(kind)


def class_place(kind: type) -> str:
    """'my/model.py:12 (MyModel)'."""
    try:
        return f"{shown(inspect.getfile(kind))}:{inspect.getsourcelines(kind)[1]} ({kind.__name__})"
    except (OSError, TypeError):
        return f"({kind.__module__}.{kind.__qualname__})"


def error_place(error: BaseException, packages: Sequence[str]) -> str:
    """The deepest frame of an error that lies in ``packages``, the author's; else in no library; else the deepest."""
    frames = list(_frames(error.__traceback__))
    if not frames:
        return "(no traceback)"
    own = [each for each in frames if _within(_module(each[0]), packages) and not _within(_module(each[0]), _NEVER)]
    foreign = [each for each in frames if not _within(_module(each[0]), _NEVER) and not _library(each[0])]
    frame, line = (own or foreign or frames)[-1]
    return f"{shown(frame.f_code.co_filename)}:{line} (in {frame.f_code.co_qualname})"


def first_line(error: BaseException) -> str:
    """'TypeError: what it says', in one line."""
    # str() of a KeyError is a literal
    told = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = next((line.strip() for line in told.splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def shown(file: str) -> str:
    """A path from here where it lies below the working folder."""
    path = Path(file)
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return file


def _function(attribute: Any) -> Any:
    if isinstance(attribute, property):
        return attribute.fget
    return getattr(attribute, "__func__", getattr(attribute, "func", attribute))


def _frames(traceback: TracebackType | None) -> list[tuple[FrameType, int]]:
    found = []
    while traceback is not None:
        found.append((traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    return found


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _within(module: str, packages: Sequence[str]) -> bool:
    return any(module == each or module.startswith(f"{each}.") for each in packages)


def _library(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    places = (sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"))
    return file.startswith("<") or any(file.startswith(place) for place in places) or sys.prefix in file
