"""What it costs to turn latents into pictures: time, multiply-accumulates and memory of a cell's decoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ditbench.harness.measure.allocations import held_at_once
from ditbench.harness.measure.conditions import conditions_after, throttled, timing_conditions
from ditbench.harness.measure.flops import EXACT
from ditbench.harness.measure.latency import INPUTS, WHOLE, Series, interleave, warm_up
from ditbench.harness.measure.operators import CONVENTION, count_module
from ditbench.harness.measure.options import DecodeOptions, LatencyOptions
from ditbench.harness.sample.picture_decoder import PictureDecoder, bind_decoder, windows
from ditbench.harness.sample.shards import NotFiniteError
from ditbench.harness.stats.intervals import TimingSummary
from ditbench.harness.store.records import CellSpec, Quantity

MIB = 2**20


@dataclass(frozen=True)
class DecodeResult:
    """values: see ``measure_decode``; detail: MACs by operator, rounds and conditions behind them."""

    values: dict[str, Quantity]
    detail: dict[str, Any]


def measure_decode(spec: CellSpec, weights: Path | None, options: DecodeOptions, side: int) -> DecodeResult:
    """Count, weigh and time the decoder of a cell on latents of ``side`` × ``side``.

    decode_ms            time an image: median of calls of ``options.batch`` latents, divided by the batch
    decode_images_per_s  its inverse
    decode_gmacs         an image, with all tiles; MACs as fvcore counts
    decode_peak_mib      weights, and the most that a call's tensors held at once; the denoiser is not in it
    decoder_params       of the decoder and the convolution before it

    ``spec.decoder`` must be set. Raises CheckpointError, ConfigError, NotFiniteError.
    """
    assert spec.decoder is not None, "planned only for a cell with a decoder"
    around = timing_conditions(spec.device)
    decoder = bind_decoder(spec.decoder, weights, spec.device)
    call = _call(decoder, options.batch, side)
    series = _timed(call, options, spec.device)
    around |= conditions_after(spec.device)
    if "tf32" in around:
        around["tf32"] = False  # whatever the cell's own calls may do
    timing = series.summary()
    macs = count_decoder(decoder, side)
    parameters = list(decoder.model.parameters())
    held = sum(each.numel() * each.element_size() for each in parameters)
    activations = held_at_once(lambda: call(0), spec.device)
    return DecodeResult(
        values={
            **_speed(timing, options.batch),
            "decode_gmacs": Quantity(value=macs.total() / 1e9, unit="GMAC", interval=EXACT),
            "decode_peak_mib": Quantity(
                value=(held + activations) / MIB, unit="MiB", interval="peak of one pass; no interval"
            ),
            "decoder_params": Quantity(value=sum(each.numel() for each in parameters), unit="1", interval=EXACT),
        },
        detail={
            "convention": CONVENTION.replace("sequence", "image"),
            "by_operator": {name: value / 1e9 for name, value in sorted(macs.items())},
            "side": side,
            "picture": side * decoder.model.scale_factor,
            "batch": options.batch,
            "call": min(options.batch, spec.decoder.batch),
            "tile": spec.decoder.tile,
            "tiles": _tiles(decoder, side)[1],
            "dtype": spec.decoder.dtype,
            "cost_only": weights is None,
            "weights_mib": held / MIB,
            "activations_mib": activations / MIB,
            **{name if name in ("n", "interval") else f"{name}_ms": value for name, value in asdict(timing).items()},
            "first_call_ms": series.first_ms,
            "warmup_calls": series.warmup_calls,
            "throttled": throttled(around),
            "rounds_ms": [[round(ms, 4) for ms in timings] for timings in series.wall()],
            "conditions": {
                "mode": "eager",
                "threads": spec.threads,
                "precision": options.precision,
                "budget_s": options.budget_s,
                "inputs": f"{INPUTS} batches of normal noise in rotation, drawn before the clock starts",
                **around,
            },
        },
    )


def count_decoder(decoder: PictureDecoder, side: int) -> Counter[str]:
    """MACs of one image by operator class, every tile counted whole. Raises UncountedOperatorError."""
    weight = next(decoder.model.parameters())
    size, tiles = _tiles(decoder, side)
    z = torch.zeros(1, decoder.model.in_channels, size, size, dtype=weight.dtype, device=weight.device)
    return Counter({name: value * tiles for name, value in count_module(decoder.model, (z,)).items()})


def _tiles(decoder: PictureDecoder, side: int) -> tuple[int, int]:
    """Side of a tile in latents, and how many make an image."""
    tile = decoder.spec.tile
    return (side, 1) if tile is None or tile >= side else (tile, len(windows(side, tile, 1)) ** 2)


def _call(decoder: PictureDecoder, batch: int, side: int) -> Callable[[int], Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (batch, decoder.model.in_channels, side, side)
    inputs = [torch.randn(shape, generator=generator).to(decoder.device) for _ in range(INPUTS)]
    # what a denoiser leaves has about unit variance: it is the decoder that divides by the scale
    return lambda index: decoder.decode(inputs[index % INPUTS])


def _timed(call: Callable[[int], Tensor], options: DecodeOptions, device: str) -> Series:
    try:
        series = warm_up(call, 1, device, options.warmup_s)
    except NotFiniteError:
        raise NotFiniteError("the decoder's pictures hold NaN or infinity") from None
    interleave([(call, WHOLE)], [series], device, LatencyOptions.model_validate(options.model_dump()))
    return series


def _speed(timing: TimingSummary, batch: int) -> dict[str, Quantity]:
    def an_image(ms: float | None) -> float | None:
        return None if ms is None else ms / batch

    low, high = an_image(timing.low), an_image(timing.high)
    return {
        "decode_ms": Quantity(value=timing.median / batch, unit="ms", low=low, high=high, interval=timing.interval),
        "decode_images_per_s": Quantity(
            value=1e3 * batch / timing.median,
            unit="images/s",
            low=None if high is None else 1e3 / high,
            high=None if low is None else 1e3 / low,
            interval=timing.interval,
        ),
    }
