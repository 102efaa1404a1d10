"""How long a run may take: a short timing of each kind of work on this machine, and arithmetic. Estimates, not records.

Sampling is multiply-accumulates over the rate that the denoiser's main pieces (a block, or its two halves) reach here;
decoding and features are seconds an image, each from one timed call. Whole loops have overheads that a piece lacks, and
a busy or throttled machine times badly: expect the right order of size, and figures only from a run.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from ditbench.harness.environment import resolve_threads
from ditbench.harness.errors import InputError
from ditbench.harness.store.records import CellSpec, DecoderSpec

if TYPE_CHECKING:
    from ditbench.methods.plans import StepPlan
    from ditbench.methods.protocols import Denoiser
    from ditbench.methods.work import WorkUnit

BUDGET_S = 1.0
LONGEST_CALL_S = 0.4
MAX_ROWS = 64
SMALL_SIDE = 8
FEATURE_IMAGES = 4

Clock = Callable[[], float]


@dataclass(frozen=True)
class Rate:
    """What the main pieces of a denoiser reached. ``timed`` says in words what they were."""

    gmacs_per_s: float
    timed: str


@dataclass(frozen=True)
class PerImage:
    """Seconds an image; ``timed`` says in words what was timed."""

    seconds: float
    timed: str


def median_seconds(call: Callable[[], Any], budget_s: float, clock: Clock = time.perf_counter) -> float:
    """Of calls for ``budget_s`` seconds, at least one, after one warm-up call."""
    call()
    times: list[float] = []
    while not times or sum(times) < budget_s:
        begin = clock()
        call()
        times.append(clock() - begin)
    return sorted(times)[len(times) // 2]


class Calibration:
    """Times each kind of work once: the methods remember what they found."""

    def __init__(self, budget_s: float = BUDGET_S, clock: Clock = time.perf_counter) -> None:
        self._budget_s, self._clock = budget_s, clock
        self._rates: dict[tuple[Any, ...], Rate] = {}
        self._decoders: dict[tuple[Any, ...], PerImage] = {}
        self._extractors: dict[tuple[Any, ...], PerImage | None] = {}

    def sampling(self, spec: CellSpec, images: int) -> Rate:
        """Of a cell's denoiser in calls with ``images`` images, on the cell's device, in its number type."""
        import torch

        from ditbench.harness.sample.generate import bind_sampler
        from ditbench.methods import build

        with torch.device("meta"):
            model = cast("Denoiser", build(spec.method, **spec.config))
        sampler, rule = bind_sampler(spec, model)
        plans = sampler.plans(model) or [model.plan_at(model.process.noisiest)]
        rows = min(MAX_ROWS, max(2, images * (2 if rule.scale != 1.0 else 1)))
        pieces = _pieces(model, plans[len(plans) // 2].branches[0])
        shapes = tuple((unit.key, gmacs, tuple(tuple(x.shape) for x in unit.inputs())) for unit, gmacs, _ in pieces)
        key = (shapes, rows, spec.dtype, spec.device, spec.threads)
        if key not in self._rates:
            found = [
                (share, *self._piece(unit, gmacs, rows, getattr(model, "tokens", 1), spec))
                for unit, gmacs, share in pieces
            ]
            seconds = sum(share * each for share, each, _ in found) / sum(share for share, _, _ in found)
            words = ", ".join(piece for _, _, piece in found)
            self._rates[key] = Rate(1 / seconds, f"{spec.method}: {words}, {spec.dtype} on {spec.device}, eager")
        return self._rates[key]

    def _piece(self, unit: WorkUnit, gmacs: float, rows: int, tokens: int, spec: CellSpec) -> tuple[float, str]:
        """Seconds a GMAC of a piece, on as many inputs as ``rows`` sequences have or fewer if that took long; words."""
        import torch

        from ditbench.harness.sample.generate import DTYPES

        dtype = DTYPES[spec.dtype]
        module = _real(unit.module).to(spec.device, dtype)
        alone = len(unit.inputs()[0]) == 1  # one token's work: as many of it as the sequences have tokens

        def seconds(sequences: int, budget_s: float) -> float:
            count = sequences * tokens if alone else sequences
            inputs = tuple(_moved(_repeated(x, count), spec.device, dtype) for x in unit.inputs())

            def call() -> None:
                with torch.inference_mode():
                    module(*inputs)
                _wait(spec.device)

            return median_seconds(call, budget_s, self._clock) / (count * gmacs)

        with _torch_threads(spec.threads):
            if spec.device == "cpu":
                once = seconds(2, 0.1 * self._budget_s) * gmacs * (tokens if alone else 1)
                rows = max(2, min(rows, int(LONGEST_CALL_S / max(once, 1e-9))))
            return seconds(rows, self._budget_s), f"{unit.key} of {rows} sequences"

    def decoding(self, spec: DecoderSpec, side: int, device: str, count: int = 0) -> PerImage:
        """Of the autoencoder's decoder, of random weights where its file is not there: latents of side 8, scaled by the
        area to ``side``.

        ``count``: torch threads, 0 = all physical cores. Its one attention grows faster than the area: a few per cent.
        """
        import torch

        from ditbench.harness.assets.locations import weights_path
        from ditbench.harness.sample.picture_decoder import bind_decoder

        key = (spec.weights, spec.dtype, side, device, count, spec.tile)
        if key not in self._decoders:
            there = spec.weights is not None and spec.weights_sha256 is not None
            decoder = bind_decoder(spec, weights_path(str(spec.weights), folder=True) if there else None, device)

            def seconds(small: int) -> float:
                latents = torch.randn(1, 4, small, small)

                def call() -> None:
                    decoder.decode(latents)
                    _wait(device)

                return median_seconds(call, 0.0, self._clock)

            with _torch_threads(count):
                taken, timed = seconds(small := min(SMALL_SIDE, side)), small
                if side > small and taken * (side / small) ** 2 < 3 * LONGEST_CALL_S:
                    taken, timed = seconds(side), side
            words = f"decoder: one latent {timed}x{timed}, {spec.dtype} on {device}"
            self._decoders[key] = PerImage(taken * (side / timed) ** 2, words)
        return self._decoders[key]

    def features(
        self, protocol: str, shape: tuple[int, int, int], device: str, batch: int, count: int = 0
    ) -> PerImage | None:
        """Of a protocol's extractor on noise of ``shape`` (C, H, W); None where its weights are not there."""
        import torch

        from ditbench.harness.quality.build import build_extractor_of
        from ditbench.harness.quality.definitions import definition

        images = min(batch, batch if definition(protocol).asset is None else FEATURE_IMAGES)
        key = (protocol, shape, device, images, count)
        if key not in self._extractors:
            self._extractors[key] = None
            try:
                extractor = build_extractor_of(protocol, device)
            except InputError:
                return None
            channels, height, width = shape
            noise = torch.randint(0, 256, (images, height, width, channels), dtype=torch.uint8)

            def call() -> None:
                extractor(noise)
                _wait(device)

            with _torch_threads(count):
                taken = median_seconds(call, 0.0, self._clock) / images
            self._extractors[key] = PerImage(taken, f"{protocol}: {images} images {height}x{width} on {device}")
        return self._extractors[key]


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """As many as a cell would have, put back afterwards. 0 = all physical cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(resolve_threads(count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _pieces(model: Denoiser, plan: StepPlan) -> list[tuple[WorkUnit, float, float]]:
    """What makes up a call: pieces that work on tokens, GMACs of one of their inputs, and their share of the whole.

    Inputs are sequences, or single tokens. Pieces of less than a tenth are left out.
    """
    from ditbench.harness.measure.operators import count_module

    found = []
    for unit in model.work(plan, 2):
        inputs = unit.inputs()
        if inputs[0].dim() == 3:
            gmacs = sum(count_module(_real(unit.module), inputs).values()) / 1e9
            found.append((unit, gmacs / len(inputs[0]), gmacs * unit.repeats))
    total = sum(whole for _, _, whole in found)
    return [(unit, gmacs, whole / total) for unit, gmacs, whole in found if whole >= 0.1 * total]


def _real(module: Any) -> Any:
    """A copy with ordinary numbers in it: what memory happens to hold may be denormal, and slow."""
    import torch

    made = copy.deepcopy(module).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.02)
    return made.eval()


def _repeated(x: Any, count: int) -> Any:
    return x.repeat(-(-count // len(x)), *[1] * (x.dim() - 1))[:count]


def _moved(x: Any, device: str, dtype: Any) -> Any:
    return x.to(device, dtype) if x.is_floating_point() else x.to(device)


def _wait(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
