"""``paired``: each sample of a cell against the baseline's of the same seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ditbench.harness.assets import digest_of, require
from ditbench.harness.errors import InputError, MissingFileError
from ditbench.harness.measurements.bench import Finding, Job, Turn
from ditbench.harness.measurements.measurement import Address, Measurement, Pace, Planning, Resolved
from ditbench.harness.measurements.samples import make_samples, orders_of_pairs, pictures_of, shards_of
from ditbench.harness.quality import protocols
from ditbench.harness.quality.options import PairedOptions
from ditbench.harness.sample.order import Order
from ditbench.harness.store.identity import Payload, decoded


class Paired(Measurement[PairedOptions]):
    name = "paired"
    summary = "PSNR, SSIM, LPIPS and relative error to the baseline's samples of the same seeds"
    options = PairedOptions
    needs = frozenset({"weights", "samples", "decoder", "baseline", "comparison"})
    preload = ("ditbench.harness.quality.paired",)

    def resolve(self, planning: Planning) -> Resolved:
        """With ``samples`` and ``shard``, which are those of quality, and the digest of the backbone of LPIPS."""
        self._check_pair(planning)
        quality = planning.options["quality"]
        options = {
            **planning.options[self.name],
            "samples": min(quality["samples"], planning.limit or quality["samples"]),
            "shard": quality["shard"],
        }
        net = options["lpips"]
        try:
            found = None if net is None else digest_of(require(protocols.LPIPS_ASSETS[net], f"paired LPIPS ({net})"))
        except InputError as error:
            placed = type(error)(error.message, error.position or planning.place("paired", "lpips"))
            if not isinstance(placed, MissingFileError):
                raise placed from None
            return Resolved(options, missing=(placed,))
        return Resolved({**options, "lpips_sha256": found})

    def _check_pair(self, planning: Planning) -> None:
        """A pair is made of the same noise and the same label: what else differs is what is compared."""
        spec, baseline = planning.spec, planning.baseline
        if baseline is None:
            raise InputError(
                "paired figures compare with the baseline's samples: the suite names no baseline", planning.here
            )
        for name in ("seed", "dataset", "conditions"):
            ours, theirs = getattr(spec, name), getattr(baseline, name)
            if ours != theirs:
                raise InputError(
                    f"paired figures need the {name} of the baseline ({theirs}), and {spec.cell} has {ours}",
                    planning.here,
                )

    def identity(self, at: Address) -> Payload:
        """Both cells' samples, their number, the backbone of LPIPS and the decoder."""
        if at.baseline is None:
            raise ValueError("the identity of a paired measurement needs the baseline")
        return {
            "samples": at.samples(at.options["shard"]),
            "baseline": at.samples(at.options["shard"], at.baseline),
            "count": at.options["samples"],
            "lpips": at.options["lpips_sha256"],
            **decoded(at.spec),
        }

    def orders(self, job: Job, options: Mapping[str, Any]) -> list[Order]:
        return orders_of_pairs(job, options)

    def run(self, turn: Turn) -> Finding:
        from ditbench.harness.quality.paired import pair

        options = turn.task.options
        ours, theirs = orders_of_pairs(turn.job, options)
        make_samples(ours, turn.bench.cell, turn)
        make_samples(theirs, turn.bench.any_baseline, turn)
        a, b = ours.pieces(), theirs.pieces()
        result = pair(
            shards_of(a),
            shards_of(b),
            options["samples"],
            options["lpips"],
            options["lpips_sha256"],
            turn.spec.device,
            ours_pictures=pictures_of(a),
            theirs_pictures=pictures_of(b),
        )
        return Finding(result.values, result.detail)

    def seconds(self, options: Mapping[str, Any], pace: Pace) -> float | None:
        return 0.0
