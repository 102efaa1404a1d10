"""How weights came from those of a base, as records tell it. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Adaptation:
    """kind     'full', or the name of what was trained in place of all weights
    size     what stands behind the kind: 'r=5'
    refines  the kind that it is set beside where both train as many parameters
    about    a sentence that says what it is
    """

    kind: str
    size: str = ""
    refines: str | None = None
    about: str = ""


FULL = Adaptation("full", about="Full fine-tuning changes all weights of a base.")
