"""What training a model takes besides the model: how many parameters are trained, and their memory."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

MOMENTS = 2
"""AdamW keeps two averages of every trained parameter."""


@dataclass(frozen=True)
class Accounting:
    """parameters: all, the fixed position table included, as the DyDiT paper counts. trainable: those that gradients
    reach. gradient_bytes: in the parameters' own type. optimizer_bytes: AdamW's averages in float32."""

    parameters: int
    trainable: int
    gradient_bytes: int
    optimizer_bytes: int

    @property
    def share(self) -> float:
        """Trainable parameters as a share of all, in [0, 1]."""
        return self.trainable / self.parameters


def accounting(model: nn.Module) -> Accounting:
    """Count ``model`` as its parameters are marked now; no values are read, so a model on ``meta`` will do."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trainable = sum(parameter.numel() for parameter in trained)
    return Accounting(
        sum(parameter.numel() for parameter in model.parameters()),
        trainable,
        sum(parameter.numel() * parameter.element_size() for parameter in trained),
        MOMENTS * 4 * trainable,
    )
