"""What a denoiser call will compute, as a value that is known before it runs. Never imports torch.

What a method decides is a ``Choice`` of its own, which nobody else looks into. Others see its facets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, TypeVar

C = TypeVar("C", bound="Choice")


@dataclass(frozen=True)
class Facet:
    """How a choice shows itself: what records keep and reports draw of it.

    name      what is told, in words for readers: 'attention heads', 'patch size'
    value     a share in [0, 1], or a label; for the whole model, or one a layer
    levels    of labels: all that may occur, the fullest first, then what costs less
    about     a sentence or two that say what it is, for readers of a report
    prepares  what is made ahead for it, once, for all steps
    """

    name: str
    value: float | str | tuple[float, ...] | tuple[str, ...]
    levels: tuple[str, ...] = ()
    about: str = ""
    prepares: str = ""

    @property
    def is_share(self) -> bool:
        """Whether its values are shares; else labels."""
        return not isinstance(self.value[0] if isinstance(self.value, tuple) else self.value, str)


class Choice:
    """Base of a method's own small frozen dataclasses. Equal choices execute equal work on equal shapes.

    same_work   whether unequal choices of this kind execute equal work too: with other weights, say
    of_running  whether it says how a planned call ran: ledgers have it, plans do not
    """

    same_work: ClassVar[bool] = False
    of_running: ClassVar[bool] = False

    def facets(self) -> tuple[Facet, ...]:
        """How it shows itself; nothing by default."""
        return ()


@dataclass(frozen=True)
class StepPlan:
    """What one denoiser call at ``timestep`` will compute.

    Plans with equal ``key`` execute the same work: they share prepared weights, captured graphs and FLOPs counts.

    timestep  the denoiser's own time (DDPM: integer 0..999; flow: float in [0, 1])
    choices   of the call, at most one of a kind; none: all of the model
    guidance  choices of the guidance branch, where the step guides and they are others
    """

    timestep: float
    choices: tuple[Choice, ...] = ()
    guidance: tuple[Choice, ...] | None = None

    def get(self, kind: type[C]) -> C | None:
        """The choice of this kind; None where nothing was chosen."""
        for choice in self.choices:
            if type(choice) is kind:
                return choice
        return None

    def having(self, *choices: Choice) -> StepPlan:
        """The plan with these choices in the place of those of their kinds, in both branches."""
        guidance = None if self.guidance is None else _merged(self.guidance, choices)
        return replace(self, choices=_merged(self.choices, choices), guidance=guidance)

    def without(self, *kinds: type[Choice]) -> StepPlan:
        """The plan without choices of these kinds, in both branches."""
        guidance = None if self.guidance is None else tuple(c for c in self.guidance if type(c) not in kinds)
        return replace(self, choices=tuple(c for c in self.choices if type(c) not in kinds), guidance=guidance)

    @property
    def branches(self) -> tuple[StepPlan, StepPlan]:
        """Plans of the conditional and of the guidance branch, each by itself."""
        other = self.choices if self.guidance is None else self.guidance
        return replace(self, guidance=None), replace(self, choices=other, guidance=None)

    @cached_property
    def key(self) -> StepPlan:
        """The plan without its time: hashable, equal for equal work."""
        return replace(self, timestep=-1.0)

    @cached_property
    def work_key(self) -> StepPlan:
        """``key`` without the choices that change no work: what counts are shared by."""
        return self.key.without(*{type(c) for c in (*self.choices, *(self.guidance or ())) if c.same_work})

    def facets(self) -> tuple[Facet, ...]:
        """Of the conditional branch."""
        return tuple(facet for choice in self.choices for facet in choice.facets())


def _merged(choices: Iterable[Choice], new: tuple[Choice, ...]) -> tuple[Choice, ...]:
    """In their old places, so that a choice that was there already makes no other plan."""
    by_kind = {type(choice): choice for choice in (*choices, *new)}
    return tuple(by_kind.values())
