"""ditbench: quality, FLOPs and honest time of efficient diffusion transformers.

The Python API: ``ditbench.methods`` generates, ``ditbench.run`` runs a suite, ``ditbench.load_run`` reads a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ditbench.api import Run, load_run, run

__all__ = ["Run", "load_run", "run"]


def __getattr__(name: str) -> Any:
    """``import ditbench`` costs nothing: what runs is imported with its first use."""
    if name in __all__:
        from ditbench import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
