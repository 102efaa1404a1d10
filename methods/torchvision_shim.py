"""Lets torchvision be imported beside a torch build that its compiled operators do not fit.

A CPU-only torch cannot load the operators of the torchvision wheel on the Python index, and ``import
torchvision`` then fails because it describes operators (nms, qnms) that nobody has defined. The metric
libraries and diffusers need none of them, only the import.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_kept_alive: list[object] = []


def ensure_torchvision_importable() -> bool:
    """Makes ``import torchvision`` work; call it before importing torch_fidelity, cleanfid or lpips.

    Does nothing where the compiled operators load or are defined already. Otherwise defines their two
    schemas, without any kernel: calling one still fails. May be called any number of times. Returns whether
    the schemas are the ones defined here. ModuleNotFoundError if torchvision is not installed.
    """
    import torch

    if _kept_alive:
        return True
    if _defined() or _compiled_operators_load():
        return False
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS.values():
        library.define(schema)  # type: ignore[no-untyped-call]
    # The definitions live as long as this object.
    _kept_alive.append(library)
    return True


def _defined() -> bool:
    import torch

    return all(hasattr(torch.ops.torchvision, name) for name in _SCHEMAS)


def _compiled_operators_load() -> bool:
    """Loads them as torchvision will; loading twice is harmless. Finding the package does not import it."""
    import torch

    package = importlib.util.find_spec("torchvision")
    if package is None or package.submodule_search_locations is None:
        raise ModuleNotFoundError("torchvision is not installed", name="torchvision")
    compiled = importlib.machinery.PathFinder.find_spec("_C", list(package.submodule_search_locations))
    if compiled is None or compiled.origin is None:
        return False
    try:
        torch.ops.load_library(compiled.origin)  # type: ignore[no-untyped-call]
    except (ImportError, OSError):
        return False
    return _defined()
