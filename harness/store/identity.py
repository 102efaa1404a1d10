"""Content addresses: equal exactly when nothing that can change a value differs.

An identity is the SHA-256 of a canonical JSON of what was measured, how, where. The functions below name, one by one,
the fields that count; a field that is not named does not. Names of cells and suites and titles never count, so renaming
a cell reuses its records.

Left out of samples on purpose: the number of threads and the model of the GPU. They move the last bits of a
float, not the distribution; counting them would forbid finishing a run on another machine.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ditbench.harness.store.records import CellSpec

# Raise it when the same cell gives other samples.
SAMPLES_VERSION = 1

Payload = dict[str, Any]

_FLOW_OPTIONS = ("atol", "rtol", "land", "last_step")


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no white space, ASCII only, floats as ``repr``. ValueError for NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def work(spec: CellSpec) -> Payload:
    """What is computed: enough for every count. Weights count because a dynamic method routes by them."""
    return {
        "method": spec.method,
        **({"code": spec.code} if spec.code else {}),
        "config": spec.config,
        "weights": spec.weights_sha256,
        "sampler": spec.sampler,
        "spacing": spec.sampler_options.get("spacing", "even"),
        "steps": spec.steps,
        "guidance": _guidance(spec, of_value=False),
        **({"modifiers": list(spec.modifiers)} if spec.modifiers else {}),
        **{name: spec.sampler_options[name] for name in _FLOW_OPTIONS if name in spec.sampler_options},
    }


def execution(spec: CellSpec) -> Payload:
    """How it is executed: what moves a clock besides the work."""
    return {
        "sampler_options": spec.sampler_options,
        "guidance_channels": spec.guidance_channels if spec.guidance_scale != 1.0 else None,
        "device": spec.device,
        "dtype": spec.dtype,
        "mode": spec.mode,
        "threads": spec.threads,
        **_attention(spec),
    }


def decoding(spec: CellSpec) -> Payload | None:
    """What turns latents into pictures; None where the samples are pictures."""
    return None if spec.decoder is None else spec.decoder.model_dump(exclude={"weights"})


def decoded(spec: CellSpec) -> Payload:
    """``decoding`` under its key, left out where there is none."""
    found = decoding(spec)
    return {} if found is None else {"decoder": found}


def _attention(spec: CellSpec) -> Payload:
    return {} if spec.attention == "auto" else {"attention": spec.attention}


def samples_identity(spec: CellSpec, shard: int, torch_version: str) -> str:
    """The address of a cell's sample shards.

    The number of samples is left out: a larger run extends the shards of a smaller one. ``shard`` (images a
    shard, >= 1) counts, because a shard is one batch and the batch size moves the last bits.
    """
    return digest(samples_payload(spec, shard, torch_version))


def seed_blocks(spec: CellSpec, count: int) -> list[CellSpec]:
    """The same cell with seeds seed, seed + 1, …: independent sets of samples, the first of them the cell's own."""
    return [spec.model_copy(update={"seed": spec.seed + block}) for block in range(count)]


def samples_payload(spec: CellSpec, shard: int, torch_version: str) -> Payload:
    """Everything that a cell's samples depend on; see ``samples_identity``."""
    return {
        "version": SAMPLES_VERSION,
        "work": work(spec),
        "guidance": _guidance(spec, of_value=True),
        "sampler_options": spec.sampler_options,
        "dataset": spec.dataset,
        "seed": spec.seed,
        "dtype": spec.dtype,
        "mode": spec.mode,
        "device": spec.device,
        "shard": shard,
        "torch": torch_version,
        **({"conditions": spec.conditions} if spec.conditions else {}),
        **_attention(spec),
    }


def _guidance(spec: CellSpec, *, of_value: bool) -> Payload | None:
    """None when unguided: interval and channels then do nothing. The scale changes values, not work."""
    if spec.guidance_scale == 1.0:
        return None
    guidance: Payload = {"interval": list(spec.guidance_interval) if spec.guidance_interval else None}
    if spec.guidance_weak != "conditional":
        guidance["weak"] = spec.guidance_weak
    if of_value:
        guidance |= {"scale": spec.guidance_scale, "channels": spec.guidance_channels}
    return guidance
