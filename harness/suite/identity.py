"""The address of a measurement on a cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ditbench.harness.store.identity import Payload, decoded, decoding, digest, execution, samples_payload, work
from ditbench.harness.store.records import CellSpec
from ditbench.harness.suite.schema import Measurement

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
}


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
            what["samples"] = samples_payload(spec, options["samples"], str(fingerprint["torch"]))
    elif measurement == "agreement":
        what = {
            "samples": samples_payload(spec, options["samples"], str(fingerprint["torch"])),
            "options": dict(options),
        }
    elif measurement == "quality":
        if protocol is None:
            raise ValueError("the identity of a quality measurement needs the protocol's id")
        what = {
            "samples": samples_payload(spec, options["shard"], str(fingerprint["torch"])),
            "count": options["samples"],
            "protocol": protocol,
            "seed_blocks": options["seed_blocks"],
            **decoded(spec),
        }
    elif measurement == "paired":
        if baseline is None:
            raise ValueError("the identity of a paired measurement needs the baseline")
        torch_version = str(fingerprint["torch"])
        what = {
            "samples": samples_payload(spec, options["shard"], torch_version),
            "baseline": samples_payload(baseline, options["shard"], torch_version),
            "count": options["samples"],
            "lpips": options["lpips_sha256"],
            **decoded(spec),
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
            what |= {**decoded(spec), "baseline_decoder": decoding(baseline) if baseline else None}
        if measurement in ("latency", "training"):
            what["baseline"] = [work(baseline), execution(baseline)] if baseline else None
    return digest({"measurement": measurement, "version": VERSIONS[measurement], **what})
