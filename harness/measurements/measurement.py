"""What a measurement is: all that planning, waiting, jobs, processes, forecasts and listings know of it.

A new one is a subclass of ``Measurement`` in a module of its own and a line in ``registry.py``. What it measures with
is imported inside ``run``: planning never imports torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from ditbench.harness.errors import InputError, MissingFileError, Position
from ditbench.harness.measurements.bench import Finding, Job, Turn
from ditbench.harness.sample.order import Order
from ditbench.harness.store.identity import Payload, decoded, decoding, digest, execution, samples_payload, work
from ditbench.harness.store.records import CellSpec, Column
from ditbench.harness.strict import Strict
from ditbench.methods.facts import Facts

if TYPE_CHECKING:
    from ditbench.methods.plans import StepPlan
    from ditbench.methods.protocols import Denoiser

O = TypeVar("O", bound=Strict)  # noqa: E741
Need = Literal["weights", "trained", "samples", "decoder", "baseline", "comparison", "clock"]
"""weights     the cell's model: it waits for the file of its weights
trained     weights that are not random
samples     the cell's stored samples, made where they are missing; it waits for the decoder that they go through
decoder     the cell's decoder, where it has one
baseline    measured beside the suite's baseline, where there is one: it waits for its files too
comparison  of a cell with the baseline: not made for the baseline itself
clock       figures of this machine: its fingerprint counts, and another machine's figures are refused
"""


@dataclass(frozen=True)
class Asked(Generic[O]):
    """A cell that asks for a measurement, before any file of it is looked for.

    options          the measurement's own, as the suite gives them
    decodes          whether the cell has a decoder; ``decoder_weights``: its file, None for a random one
    here             where the cell names the measurement
    place            path in the cell's fields -> where it was written
    """

    method: str
    facts: Facts
    weights: str | None
    dataset: str | None
    decodes: bool
    decoder_weights: str | None
    options: O
    here: Position
    place: Callable[..., Position]


@dataclass(frozen=True)
class Planning:
    """A resolved cell whose measurements get their options.

    options  by measurement, as the suite and the cell give them
    limit    at most this many samples
    here     where the cell names its measurements
    place    path in the suite -> where it was written
    """

    spec: CellSpec
    baseline: CellSpec | None
    options: Mapping[str, Mapping[str, Any]]
    limit: int | None
    here: Position
    place: Callable[..., Position]


@dataclass(frozen=True)
class Resolved:
    """Options as records keep them; the quality protocol's id; files that the user must bring before there is one."""

    options: dict[str, Any]
    protocol: str | None = None
    missing: tuple[MissingFileError, ...] = ()


@dataclass(frozen=True)
class Address:
    """What an identity is made of.

    options      resolved, see ``Resolved``
    fingerprint  ``ditbench.harness.environment.fingerprint``: hardware and versions that timings depend on
    protocol     the quality protocol's id, where there is one
    """

    spec: CellSpec
    options: Mapping[str, Any]
    fingerprint: Mapping[str, Any]
    baseline: CellSpec | None = None
    protocol: str | None = None

    def samples(self, shard: int, spec: CellSpec | None = None) -> Payload:
        """What the cell's samples, or those of another ``spec``, depend on in shards of ``shard``."""
        return samples_payload(spec or self.spec, shard, str(self.fingerprint["torch"]))


@dataclass(frozen=True)
class Pace:
    """About how fast a cell is here: seconds of one denoiser call and of one loop of a measurement's batch, 0 if
    unknown; ``beside``: in turns with the baseline."""

    step_s: float
    loop_s: float
    beside: bool
    device: str


class Measurement(ABC, Generic[O]):
    """One measurement. Subclasses set the values and override what differs.

    version  raised when its code changes what it reports for the same input: old records are then measured again
    summary  the line that `list metrics` shows
    options  what a suite may say of it, under its name
    columns  how its values are shown where the report has no table of its own for them
    preload  modules that ``run`` imports: imported once, before the cells' processes are started
    """

    name: str
    version: int = 1
    summary: str = ""
    options: type[O]
    needs: frozenset[Need] = frozenset({"weights"})
    columns: Sequence[Column] = ()
    preload: Sequence[str] = ()

    @abstractmethod
    def run(self, turn: Turn) -> Finding:
        """Measure, in the cell's own process. What is raised fails this measurement of the cell alone."""

    def needs_of(self, options: Mapping[str, Any]) -> frozenset[Need]:
        """``needs`` under these resolved options."""
        return self.needs

    def check(self, asked: Asked[O]) -> None:
        """Raise InputError, at its place, where the cell's fields make no sense of it."""
        if "trained" in self.needs and asked.weights is None:
            raise InputError(
                f"{self.name} of random weights means nothing: give the cell weights, or take {self.name} out of "
                "measure",
                asked.here,
            )
        if "samples" in self.needs and asked.decodes and asked.decoder_weights is None:
            raise InputError(
                f"{self.name} of pictures by a random decoder means nothing: give the decoder weights, or take "
                f"{self.name} out of measure",
                asked.here,
            )

    def misfit(self, spec: CellSpec, model: Denoiser, first: StepPlan) -> str:
        """Why the cell's model, which may be on ``meta``, cannot be measured; empty where it can.

        ``first``: the plan of its first step.
        """
        return ""

    def resolve(self, planning: Planning) -> Resolved:
        """Its options for this cell. Raises InputError."""
        return Resolved({**planning.options[self.name]})

    def identity(self, at: Address) -> Payload:
        """What counts besides name and version. As it stands here all of the cell does."""
        needs = self.needs_of(at.options)
        what: Payload = {"options": dict(at.options)}
        if "clock" in needs:
            what |= {"work": work(at.spec), "execution": execution(at.spec), "fingerprint": dict(at.fingerprint)}
        else:
            what["samples"] = at.samples(0)
        if "decoder" in needs:
            what |= {**decoded(at.spec), "baseline_decoder": decoding(at.baseline) if at.baseline else None}
        if "baseline" in needs:
            what["baseline"] = [work(at.baseline), execution(at.baseline)] if at.baseline else None
        return what

    def address(self, at: Address) -> str:
        """The identity of its record, 64 hex digits. Raises ValueError where something that counts is not given."""
        return digest({"measurement": self.name, "version": self.version, **self.identity(at)})

    def orders(self, job: Job, options: Mapping[str, Any]) -> list[Order]:
        """The stored samples that it needs."""
        return []

    def seconds(self, options: Mapping[str, Any], pace: Pace) -> float | None:
        """About how long it takes besides making stored samples; None where nobody knows."""
        return None

    def watched(self, options: Mapping[str, Any], routed: bool) -> int:
        """Samples that it makes for itself and keeps none of. ``routed``: trained routers decide what runs."""
        return 0

    def features(self, options: Mapping[str, Any]) -> int:
        """Numbers an image that it keeps of each stored sample's features."""
        return 0


def seconds_in_turns(levels: Sequence[float], options: Mapping[str, Any], pace: Pace) -> float:
    """Of a timing of calls of ``levels`` seconds, with warm-up and budget as in its options, or longer where calls
    are."""
    cuda = pace.device == "cuda"
    warm = max(options["warmup_s"], 3.0) if cuda else options["warmup_s"]
    turns, calls = (4, 2) if pace.beside else (1, 1)
    total = 0.0
    for call in levels:
        total += calls * max(warm, (10 if cuda else 3) * call)
        total += max(options["budget_s"], options["rounds"] * turns * call)
    return total
