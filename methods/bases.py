"""Models that are made of a static base's weights and of what they add to them: what conversion, adapters and training
ask of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast, runtime_checkable

from torch import nn

from ditbench.methods.adaptation import Adaptation
from ditbench.methods.errors import ConfigError


class Adapter(Protocol):
    """What leaves a base as it is and is trained in its place.

    scale  of what it adds to weights, which no tensor shows: a file of it must have the model's
    """

    @property
    def scale(self) -> float: ...

    @property
    def adaptation(self) -> Adaptation: ...


@runtime_checkable
class OnBase(Protocol):
    """See the module. ``Based`` has all but ``static_base``."""

    @property
    def adapter(self) -> Adapter | None:
        """What is trained while the base stays as it is; its files hold nothing else. None: all weights are trained."""
        ...

    def static_base(self) -> nn.Module:
        """A new model of the base's kind and shape."""
        ...

    def put_base(self, static: nn.Module, **options: Any) -> None:
        """Take over the weights of ``static``; what is added stays. ``options`` are those that the conversion had.

        Raises ConfigError for one that there is not.
        """
        ...

    def is_added(self, name: str) -> bool:
        """Whether a tensor of the state dict is no part of the base."""
        ...

    def freeze_base(self) -> None:
        """Leave only what is added to be trained, where there is an adapter."""
        ...


class Based:
    """Of a ``torch.nn.Module`` on a static one whose tensors it has under the same names. Override what differs."""

    @property
    def adapter(self) -> Adapter | None:
        return None

    def static_base(self) -> nn.Module:
        raise NotImplementedError(f"{type(self).__name__} does not say what its static base is: write static_base")

    def put_base(self, static: nn.Module, **options: Any) -> None:
        """Raises ConfigError for any option."""
        self.no_options(options)
        model = self._module
        model.load_state_dict({**model.state_dict(), **static.state_dict()}, strict=True)

    def no_options(self, options: Mapping[str, Any]) -> None:
        for name in options:
            raise ConfigError(f"{type(self).__name__} has no option {name!r} of taking over a base")

    def is_added(self, name: str) -> bool:
        return False

    def freeze_base(self) -> None:
        if self.adapter is None:
            return
        for name, parameter in self._module.named_parameters():
            parameter.requires_grad_(self.is_added(name))

    @property
    def _module(self) -> nn.Module:
        return cast(nn.Module, self)
