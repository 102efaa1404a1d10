"""``quality``: figures of a cell's samples against a reference, by a quality protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ditbench.harness.errors import InputError, MissingFileError
from ditbench.harness.measurements.bench import Finding, Job, Turn
from ditbench.harness.measurements.measurement import Address, Asked, Measurement, Pace, Planning, Resolved
from ditbench.harness.measurements.samples import make_samples, order_of, pictures_of, shards_of
from ditbench.harness.quality import protocols
from ditbench.harness.quality.definitions import definition
from ditbench.harness.quality.metrics import metric_of
from ditbench.harness.quality.options import QualityOptions
from ditbench.harness.sample.order import Order
from ditbench.harness.store.identity import Payload, decoded


class Quality(Measurement[QualityOptions]):
    name = "quality"
    version = 2
    summary = (
        "Fréchet distance and its limit, sFID, inception score, kernel distances, precision, recall, density, "
        "coverage, as the protocol's extractor allows"
    )
    options = QualityOptions
    needs = frozenset({"weights", "trained", "samples", "decoder"})
    preload = ("ditbench.harness.quality.evaluate",)

    def check(self, asked: Asked[QualityOptions]) -> None:
        imposed = asked.facts.imposed
        if imposed:
            raise InputError(
                f"quality under an imposed {imposed} means nothing: take quality out of measure, or {imposed} out of "
                "config",
                asked.here,
            )
        super().check(asked)
        try:
            own = definition(asked.options.protocol).reference
        except InputError:
            return  # said with its place when the protocol is resolved
        if own is None:
            return
        if asked.dataset is None:
            raise InputError(f"quality needs a dataset to compare with (known: {own.dataset})", asked.here)
        if asked.dataset != own.dataset:
            raise InputError(
                f"{asked.dataset!r} is there to train on; quality compares with {own.dataset}",
                asked.place("dataset"),
            )

    def resolve(self, planning: Planning) -> Resolved:
        options = {**planning.options[self.name]}
        name, reference = options["protocol"], options["reference"]
        options["samples"] = min(options["samples"], planning.limit or options["samples"])
        for at, metric in enumerate(options["metrics"]):
            try:
                metric_of(metric)
            except InputError as error:
                raise InputError(error.message, planning.place("quality", "metrics", at)) from None
        try:
            return Resolved(options, protocols.protocol(name, reference, options["metrics"]).id)
        except InputError as error:
            field = "reference" if "reference" in error.message and reference else "protocol"
            first = type(error)(error.message, error.position or planning.place("quality", field))
            if not isinstance(first, MissingFileError):
                raise first from None
        # a protocol tells of its reference only once its extractor is there
        try:
            protocols.reference_entry(name, reference)
        except InputError as error:
            also = type(error)(error.message, error.position or planning.place("quality", "reference"))
            if not isinstance(also, MissingFileError):
                raise also from None
            return Resolved(options, missing=(first, also) if also.message != first.message else (first,))
        return Resolved(options, missing=(first,))

    def identity(self, at: Address) -> Payload:
        """Samples, their number and that of seed blocks, the protocol and the decoder."""
        if at.protocol is None:
            raise ValueError("the identity of a quality measurement needs the protocol's id")
        return {
            "samples": at.samples(at.options["shard"]),
            "count": at.options["samples"],
            "protocol": at.protocol,
            "seed_blocks": at.options["seed_blocks"],
            **decoded(at.spec),
        }

    def orders(self, job: Job, options: Mapping[str, Any]) -> list[Order]:
        return [order_of(job, options)]

    def run(self, turn: Turn) -> Finding:
        from ditbench.harness.quality.evaluate import SeedBlock, score

        options, job = turn.options(QualityOptions), turn.job
        order = order_of(job, turn.task.options)
        make_samples(order, turn.bench.cell, turn)
        blocks = [SeedBlock(each[0].spec.seed, shards_of(each), pictures_of(each)) for each in order.blocks()]
        result = score(blocks, options, job.store.features_folder, turn.spec.device)
        return Finding(result.values, result.detail, result.protocol)

    def seconds(self, options: Mapping[str, Any], pace: Pace) -> float | None:
        return 0.0

    def features(self, options: Mapping[str, Any]) -> int:
        return sum(definition(options["protocol"]).dims.values())
