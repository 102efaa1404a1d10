"""A distribution that registers methods which misbehave. It also shows how another project adds a method."""

import os
import time
from typing import Any

from ditbench.methods.backbones.dit import DiT, dit

TINY = {"input_size": 8, "in_channels": 1, "hidden_size": 32, "depth": 1, "num_heads": 2, "num_classes": 10}


class Raises(DiT):
    """It can be counted, and breaks where there are numbers."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if args[0].is_meta:
            return super().forward(*args, **kwargs)
        raise RuntimeError("the forward pass broke\non two lines")


class Sleeps(DiT):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        time.sleep(60)


class Dies(DiT):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        print("last words", flush=True)
        os.abort()


def raises(**config: Any) -> DiT:
    return _as(Raises, config)


def sleeps(**config: Any) -> DiT:
    return _as(Sleeps, config)


def dies(**config: Any) -> DiT:
    return _as(Dies, config)


def _as(kind: type[DiT], config: dict[str, Any]) -> DiT:
    model = dit(**{**TINY, **config})
    model.__class__ = kind
    return model
