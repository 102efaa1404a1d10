"""Content addresses: equal exactly when nothing that can change a value differs.

An identity is the SHA-256 of a canonical JSON of measurement, its version, what was measured, how, where.
The functions below name, one by one, the fields that count; a field that is not named does not. Names of
cells and suites and titles never count, so renaming a cell reuses its records.

    measurement      what counts
    flops            work, options, and with weights also the samples that routers may be watched on
    latency,         work, execution, options, fingerprint, and the baseline's work and execution, because the
    training         two are timed in turns
    kernels, memory, work, execution, options, fingerprint
    energy
    decode           the decoder, the side of the latents, device, threads, options, fingerprint
    agreement        samples (their number is the shard's), options
    quality          samples, their number and that of seed blocks, metric protocol, decoder
    paired           samples, the baseline's samples, their number, backbone of LPIPS, decoder
    (samples)        work, guidance in full, sampler options, seed, dtype, mode, device, data set, shard size,
                     version of torch

Left out of samples on purpose: the number of threads and the model of the GPU. They move the last bits of a
float, not the distribution; counting them would forbid finishing a run on another machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ditbench.harness.store.records import CellSpec
from ditbench.harness.suite.schema import Measurement

# Raise a number when the code of that measurement changes what it reports for the same input.
VERSIONS: dict[str, int] = {
    "flops": 2,
    "latency": 4,
    "kernels": 3,
    "memory": 2,
    "energy": 1,
    "decode": 1,
    "training": 1,
    "agreement": 1,
    "quality": 2,
    "paired": 1,
    "samples": 1,
}

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
        "code": spec.code,
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


def _attention(spec: CellSpec) -> Payload:
    return {} if spec.attention == "auto" else {"attention": spec.attention}


def samples_identity(spec: CellSpec, shard: int, torch_version: str) -> str:
    """The address of a cell's sample shards.

    The number of samples is left out: a larger run extends the shards of a smaller one. ``shard`` (images a
    shard, >= 1) counts, because a shard is one batch and the batch size moves the last bits.
    """
    return digest(_samples(spec, shard, torch_version))


def seed_blocks(spec: CellSpec, count: int) -> list[CellSpec]:
    """The same cell with seeds seed, seed + 1, …: independent sets of samples, the first of them the cell's own."""
    return [spec.model_copy(update={"seed": spec.seed + block}) for block in range(count)]


def measurement_identity(
    measurement: Measurement,
    spec: CellSpec,
    options: Mapping[str, Any],
    *,
    fingerprint: Mapping[str, Any],
    baseline: CellSpec | None = None,
    protocol: str | None = None,
) -> str:
    """The address of one measurement on one cell.

    options      the measurement's resolved options, as in ``PlannedMeasurement.options``
    fingerprint  ``ditbench.harness.environment.fingerprint``: hardware and versions that timings depend on
    baseline     the cell that latency and training are interleaved with and paired figures compare with
    protocol     the quality protocol's id; needed for quality, ignored by the others
    """
    what: Payload
    if measurement == "flops":
        what = {"work": work(spec), "options": dict(options)}
        if spec.weights_sha256 is not None:
            what["samples"] = _samples(spec, options["samples"], str(fingerprint["torch"]))
    elif measurement == "agreement":
        what = {"samples": _samples(spec, options["samples"], str(fingerprint["torch"])), "options": dict(options)}
    elif measurement == "quality":
        if protocol is None:
            raise ValueError("the identity of a quality measurement needs the protocol's id")
        what = {
            "samples": _samples(spec, options["shard"], str(fingerprint["torch"])),
            "count": options["samples"],
            "protocol": protocol,
            "seed_blocks": options["seed_blocks"],
            **_decoded(spec),
        }
    elif measurement == "paired":
        if baseline is None:
            raise ValueError("the identity of a paired measurement needs the baseline")
        torch_version = str(fingerprint["torch"])
        what = {
            "samples": _samples(spec, options["shard"], torch_version),
            "baseline": _samples(baseline, options["shard"], torch_version),
            "count": options["samples"],
            "lpips": options["lpips_sha256"],
            **_decoded(spec),
        }
    elif measurement == "decode":
        what = {
            "decoder": decoding(spec),
            "side": options["side"],
            "device": spec.device,
            "threads": spec.threads,
            "options": dict(options),
            "fingerprint": dict(fingerprint),
        }
    else:
        what = {
            "work": work(spec),
            "execution": execution(spec),
            "options": dict(options),
            "fingerprint": dict(fingerprint),
        }
        if "image" in options.get("levels", ()):
            what |= {**_decoded(spec), "baseline_decoder": decoding(baseline) if baseline else None}
        if measurement in ("latency", "training"):
            what["baseline"] = [work(baseline), execution(baseline)] if baseline else None
    return digest({"measurement": measurement, "version": VERSIONS[measurement], **what})


def _decoded(spec: CellSpec) -> Payload:
    found = decoding(spec)
    return {} if found is None else {"decoder": found}


def _samples(spec: CellSpec, shard: int, torch_version: str) -> Payload:
    return {
        "version": VERSIONS["samples"],
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
