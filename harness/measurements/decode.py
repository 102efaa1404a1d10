"""``decode``: what the autoencoder takes to make pictures of latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ditbench.harness.errors import InputError
from ditbench.harness.measure.options import DecodeOptions
from ditbench.harness.measurements.bench import Finding, Turn
from ditbench.harness.measurements.measurement import (
    Address,
    Asked,
    Measurement,
    Pace,
    Planning,
    Resolved,
    seconds_in_turns,
)
from ditbench.harness.store.identity import Payload, decoding
from ditbench.methods.registry import facts_of


class Decode(Measurement[DecodeOptions]):
    name = "decode"
    summary = "milliseconds an image that the autoencoder takes to make pictures of latents"
    options = DecodeOptions
    needs = frozenset({"decoder", "clock"})  # the denoiser is not asked

    def check(self, asked: Asked[DecodeOptions]) -> None:
        if not asked.decodes:
            raise InputError("decode needs a decoder", asked.here)

    def resolve(self, planning: Planning) -> Resolved:
        """With ``side``, that of a cell's latents, the longer one."""
        side = max(facts_of(planning.spec.method, planning.spec.config).space.size)
        return Resolved({**planning.options[self.name], "side": side})

    def identity(self, at: Address) -> Payload:
        return {
            "decoder": decoding(at.spec),
            "side": at.options["side"],
            "device": at.spec.device,
            "threads": at.spec.threads,
            "options": dict(at.options),
            "fingerprint": dict(at.fingerprint),
        }

    def run(self, turn: Turn) -> Finding:
        from ditbench.harness.measure.decode_time import measure_decode

        side = int(turn.task.options["side"])
        result = measure_decode(turn.spec, turn.job.decoder_weights, turn.options(DecodeOptions), side)
        return Finding(result.values, result.detail)

    def seconds(self, options: Mapping[str, Any], pace: Pace) -> float | None:
        return seconds_in_turns([pace.step_s], options, pace)
