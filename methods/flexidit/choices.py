"""What a FlexiDiT chooses a step: the patch size, and how branches of unequal length share a call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ditbench.methods.glossary import notes
from ditbench.methods.plans import Choice, Facet

PATCH_SIZE = "patch size"


@dataclass(frozen=True)
class Patch(Choice):
    """Patch size of the (de-)embedding; ``sizes``: all that the model has, the pre-trained one first."""

    size: int
    sizes: tuple[int, ...] = field(default=(), compare=False)

    def facets(self) -> tuple[Facet, ...]:
        return (Facet(PATCH_SIZE, str(self.size), tuple(map(str, self.sizes)), **notes(PATCH_SIZE)),)


@dataclass(frozen=True)
class Layout(Choice):
    """How both branches ran in one call; ``same_class``: with one condition an image for both."""

    of_running: ClassVar[bool] = True
    name: str
    same_class: bool
