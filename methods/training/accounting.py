"""What training a model takes besides the model: how many parameters are trained, and their memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ditbench import methods
from ditbench.methods.bases import OnBase
from ditbench.methods.registry import methods as registered

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


def accounting_of(method: str, config: Mapping[str, Any]) -> Accounting:
    """What training a method with this config takes; takes no memory. Raises UnknownNameError, ConfigError."""
    with torch.device("meta"):
        model = methods.build(method, **config)
    if isinstance(model, OnBase):
        model.freeze_base()
    return accounting(model)


def full_accounting(method: str, config: Mapping[str, Any]) -> Accounting:
    """What full fine-tuning of the same method takes. Raises UnknownNameError, ConfigError."""
    entry = registered()[method]
    with torch.device("meta"):
        return accounting(entry.load()(**entry.without_adapter({**entry.preset, **config})))
