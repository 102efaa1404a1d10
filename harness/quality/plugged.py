"""Extractors of other distributions, by entry points of the group ``ditbench.extractors``.

An entry point names a callable, or a class that makes one without arguments: (n, H, W, C) uint8 tensor -> (n, d) float
features, or a mapping from the kinds of ``dims`` to such. It has the attributes ``name``, ``version`` and ``dims`` (d,
or kind -> d with 'features' among the kinds), and may say in words how images come to its size (``resize``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ditbench.harness.errors import InputError
from ditbench.methods.entries import Entry, Registry

if TYPE_CHECKING:
    from torch import Tensor

    from ditbench.harness.quality.extractors.extractor import Extractor


@cache
def extractors() -> Registry[Entry]:
    """Extractors of other distributions; the shipped ones belong to protocols, see ``definitions``."""
    return Registry("extractors", Entry)


@dataclass(frozen=True)
class Plugged:
    """An extractor of another distribution before it is made. ``sha256``: of its distribution's version and sources."""

    name: str
    version: str
    origin: str
    sha256: str
    resize: str
    dims: Mapping[str, int]
    made_by: Callable[..., Any]

    def build(self, device: str) -> Extractor:
        """The extractor itself: a class is called, a module of torch is moved to ``device``. Raises InputError."""
        from torch import nn

        try:
            call = self.made_by() if isinstance(self.made_by, type) else self.made_by
        except Exception as error:
            raise InputError(f"{self.origin} cannot be made: {type(error).__name__}: {error}") from None
        if isinstance(call, nn.Module):
            call = call.to(device).eval()
        return _Running(f"{self.name} {self.version}", self.sha256, self.resize, self.dims, self.origin, call, device)


def plugged(entry: Entry) -> Plugged:
    """What an entry says of itself. Imports its module. Raises UnknownNameError, InputError: it lacks an attribute."""
    found, origin = entry.load(), f"extractor {entry.name!r} of {entry.origin}"
    if missing := [each for each in ("name", "version", "dims") if not hasattr(found, each)]:
        raise InputError(f"{origin}: {entry.target} has no {' and no '.join(missing)}")
    given: Any = found
    try:
        dims = {"features": int(given.dims)} if not isinstance(given.dims, Mapping) else dict(given.dims)
        if "features" not in dims or not all(isinstance(each, int) and each > 0 for each in dims.values()):
            raise ValueError
    except (TypeError, ValueError):
        raise InputError(f"{origin}: dims is {given.dims!r}, not the width of its features") from None
    return Plugged(
        name=str(given.name),
        version=str(given.version),
        origin=origin,
        sha256=hashlib.sha256(entry.code.encode()).hexdigest(),
        resize=str(getattr(given, "resize", "as the extractor does it")),
        dims=dims,
        made_by=found,
    )


@dataclass(frozen=True)
class _Running:
    """An ``Extractor``: see the contract."""

    name: str
    sha256: str
    resize: str
    dims: Mapping[str, int]
    origin: str
    call: Callable[[Tensor], Any]
    device: str

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """See ``Extractor``. InputError where it gives something else than it says."""
        import torch

        with torch.inference_mode():
            given = self.call(images.to(self.device))
        kinds = given if isinstance(given, Mapping) else {"features": given}
        found = {}
        for name, dim in self.dims.items():
            features = kinds.get(name)
            if not isinstance(features, torch.Tensor) or features.shape != (len(images), dim):
                shape = tuple(getattr(features, "shape", ())) or type(features).__name__
                raise InputError(f"{self.origin}: {name} are {shape}, not ({len(images)}, {dim})")
            found[name] = features.float()
        return found
