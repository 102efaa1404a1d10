"""What a method is, known from its name and config before anything is built. Never imports torch.

Planning reads facts and nothing else: no config keys, no parts of names, no presets.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ditbench.methods.diffusion.prediction import Prediction
from ditbench.methods.space import Space


@dataclass(frozen=True)
class ClassLabels:
    """A class label in 0..count-1; ``count`` itself means "no class". ``droppable``: whether the model has that row."""

    count: int
    droppable: bool = True


@dataclass(frozen=True)
class Facts:
    """space       what one sample is
    predicts    what samplers get from the model: noise or velocity
    conditions  what it is told beside the time; empty: nothing
    imposed     the config key by which the cost was imposed and samples mean nothing; empty: it was not
    version     of the method's own code: its author raises it when outputs or work change
    """

    space: Space
    predicts: Prediction = "noise"
    conditions: tuple[ClassLabels, ...] = field(default=())
    imposed: str = ""
    version: str = "1"

    @property
    def guidable(self) -> bool:
        """Whether there is something to leave out, so that classifier-free guidance has a second branch."""
        return any(each.droppable for each in self.conditions)
