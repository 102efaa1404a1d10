"""The whole contract between methods and harness: Denoiser, StepPlan, WorkUnit, WorkLedger.

The harness knows nothing else of a method. A static model satisfies it with one plan for all steps; a dynamic one
says ahead, as a value, what each step will compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from ditbench.methods.facts import ClassLabels, Facts
from ditbench.methods.space import Space

if TYPE_CHECKING:
    from ditbench.methods.diffusion.process import Process


@dataclass(frozen=True)
class StepPlan:
    """What one denoiser call at ``timestep`` will compute, for one sequence.

    Two plans with equal ``key`` execute the same work: they share prepared weights, captured graphs and FLOPs
    counts. ``None`` in a field means "not dynamic in this respect".

    timestep  the denoiser's own time (DDPM: integer 0..999; flow: float in [0, 1])
    heads     active attention heads a layer, as sorted index tuples
    groups    active MLP channel groups a layer, as sorted index tuples
    tokens    tokens a layer that pass the MLP, where they are imposed; None where all do or the data decide
    patch     patch size of the (de-)embedding
    guide     patch size of the guidance branch, where the step guides and it is another than ``patch``
    layout    how such branches of unequal length ran in one call; None where each sequence ran by itself
    adapted   the time that low-rank updates are folded into the weights for, where they depend on it
    """

    timestep: float
    heads: tuple[tuple[int, ...], ...] | None = None
    groups: tuple[tuple[int, ...], ...] | None = None
    tokens: tuple[int, ...] | None = None
    patch: int | None = None
    guide: int | None = None
    layout: str | None = None
    adapted: float | None = None

    @property
    def branches(self) -> tuple[StepPlan, StepPlan]:
        """Plans of the conditional and of the guidance branch, each by itself."""
        return replace(self, guide=None), replace(self, patch=self.guide or self.patch, guide=None)

    @property
    def key(self) -> StepPlan:
        """The plan without its time: hashable, equal for equal work."""
        return replace(self, timestep=-1.0)


@dataclass
class WorkEntry:
    """One executed denoiser call: its plan and its rows (sequences).

    evaluation  which evaluation of the sampler's it belongs to, from 0
    tokens  where tokens were selected: how many a layer, summed over the rows
    maps    where the ledger keeps them: which tokens, (layers, rows, N) bool, on the CPU
    """

    plan: StepPlan
    rows: int
    tokens: tuple[int, ...] | None = None
    maps: Tensor | None = None
    evaluation: int = 0


@dataclass
class WorkLedger:
    """What really ran. A denoiser appends one entry a call; the FLOPs of a run are counted from it.

    ``keep_maps``: also keep which tokens were selected, not only how many.
    """

    keep_maps: bool = False
    entries: list[WorkEntry] = field(default_factory=list)
    evaluations: int = 0

    def begin(self) -> None:
        """The next evaluation: what is recorded from now on belongs to it."""
        self.evaluations += 1

    def record(
        self, plan: StepPlan, rows: int, tokens: tuple[int, ...] | None = None, maps: Tensor | None = None
    ) -> None:
        self.entries.append(WorkEntry(plan, rows, tokens, maps, max(self.evaluations - 1, 0)))


@dataclass(frozen=True)
class WorkUnit:
    """A distinct piece of work of a forward: count it once, multiply by ``repeats``.

    ``module`` executes it on the tensors of ``inputs`` (small, random, on the CPU). ``key`` is equal for units whose
    operators and shapes are equal. ``part`` names overhead that is shown apart: 'token routers', executed in the
    call, and 'width routers', executed when its step is planned, once for all rows.
    """

    key: str
    repeats: int
    module: torch.nn.Module
    inputs: Callable[[], tuple[Tensor, ...]]
    part: str = ""


@runtime_checkable
class Denoiser(Protocol):
    """A model that predicts noise or velocity.

    ``model(x, t, y)``: x (B, C, H, W) float, t (B,) int or float, y (B,) int64 class labels, where the label
    ``num_classes`` means "no class". Returns (B, C_out, H, W) with C_out = C, or 2C when the variance is learned.
    ``num_heads`` is the number of attention heads, and of channel groups, a layer; ``tokens`` the sequence's length.
    """

    in_channels: int
    out_channels: int
    input_size: int
    num_classes: int
    num_heads: int
    tokens: int

    @property
    def facts(self) -> Facts:
        """What was known of it before it was built."""
        ...

    @property
    def process(self) -> Process:
        """What the model undoes: its path, its prediction, its time."""
        ...

    @property
    def needs_weights(self) -> bool:
        """Whether plans depend on the weights: counting then needs them; without them routers count as open."""
        ...

    @property
    def selects_tokens(self) -> bool:
        """Whether the data decide how much a call computes: then counting needs samples too."""
        ...

    @property
    def routers(self) -> Sequence[torch.nn.Module]:
        """Modules that a call runs to decide what to compute: profiles show their time apart."""
        ...

    @property
    def patch_sizes(self) -> tuple[int, ...]:
        """Patch sizes that plans may name, the pre-trained one first; empty for a model of one size."""
        ...

    @property
    def prepared_bytes(self) -> int:
        """Memory of what ``prepare`` made and keeps, besides the weights themselves."""
        ...

    def __call__(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor,
        *,
        plan: StepPlan | None = None,
        ledger: WorkLedger | None = None,
    ) -> Tensor: ...

    def plan(self, timesteps: Sequence[float], *, stages: int = 1) -> list[StepPlan]:
        """One plan an evaluation, known before sampling; each ``stages`` of them make a step of the solver."""
        ...

    def plan_at(self, timestep: float) -> StepPlan:
        """The plan of one evaluation of a solver whose times are not known ahead."""
        ...

    def prepare(self, plan: StepPlan) -> None:
        """Make what calls under ``plan`` reuse (sliced weights); a call does it itself where it was not done."""
        ...

    def forget(self) -> None:
        """Drop everything prepared."""
        ...

    def tune(self, plans: Sequence[StepPlan], rows: int, same_class: bool) -> dict[str, dict[str, float]]:
        """Choose by measurement how calls with ``rows`` images execute; what they compute stays.

        Returns milliseconds by choice: step -> how -> ms; empty where there is nothing to choose. Only calls that ask
        for it use the choice, so that the clock decides nothing about samples. ``same_class``: the guidance branch
        has the labels of the conditional one.
        """
        ...

    def compute_shares(self, plans: Sequence[StepPlan]) -> dict[str, float]:
        """Compute of these sequences by conventions other than our count; as many at the pre-trained size are 1."""
        ...

    def work(self, plan: StepPlan, rows: int = 1, tokens: tuple[int, ...] | None = None) -> list[WorkUnit]:
        """The distinct pieces that one call under ``plan`` executes for ``rows`` sequences, and its step's planning.

        ``tokens`` are the kept tokens a layer, summed over the rows, when the method selects tokens.
        """
        ...


@runtime_checkable
class Flexible(Denoiser, Protocol):
    """A denoiser whose plans may give the guidance branch another patch size."""

    def pair(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor,
        y_guide: Tensor,
        plan: StepPlan,
        ledger: WorkLedger | None = None,
        *,
        tuned: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Outputs (B, C_out, H, W) of both branches of a step, for labels ``y`` and ``y_guide`` (B,).

        ``tuned``: in the way that ``tune`` found fastest; else always in the same way.
        """
        ...


class StaticWork:
    """The dynamic half of ``Denoiser`` for a model whose work depends on nothing: inherit it, then override."""

    @property
    def facts(self) -> Facts:
        """Of a picture model with class labels, by its attributes."""
        model = cast(Denoiser, self)
        space = Space(model.in_channels, (model.input_size, model.input_size))
        return Facts(space, model.process.predicts, (ClassLabels(model.num_classes),))

    @property
    def process(self) -> Process:
        """Noise prediction on the 1000 timesteps of DiT."""
        from ditbench.methods.diffusion.process import process_of

        return process_of(None)

    @property
    def needs_weights(self) -> bool:
        return False

    @property
    def selects_tokens(self) -> bool:
        return False

    @property
    def routers(self) -> Sequence[torch.nn.Module]:
        return ()

    @property
    def patch_sizes(self) -> tuple[int, ...]:
        return ()

    @property
    def prepared_bytes(self) -> int:
        return 0

    def tune(self, plans: Sequence[StepPlan], rows: int, same_class: bool) -> dict[str, dict[str, float]]:
        return {}

    def compute_shares(self, plans: Sequence[StepPlan]) -> dict[str, float]:
        return {}

    def plan(self, timesteps: Sequence[float], *, stages: int = 1) -> list[StepPlan]:
        """The same at every step."""
        return [StepPlan(timestep=float(t)) for t in timesteps]

    def plan_at(self, timestep: float) -> StepPlan:
        """What a grid with this time in it would have there."""
        return self.plan([timestep])[0]

    def prepare(self, plan: StepPlan) -> None:
        """Nothing to prepare."""

    def forget(self) -> None:
        """Nothing to forget."""
