"""The stored samples that measurements need, made where they are missing: here, or in several processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditbench.harness.environment import versions
from ditbench.harness.measurements.bench import Job, Turn
from ditbench.harness.sample.order import Order, Piece, check_whole
from ditbench.harness.store.identity import samples_identity, seed_blocks
from ditbench.harness.store.records import CellSpec

if TYPE_CHECKING:
    from ditbench.harness.sample.generate import BoundCell


def order_of(job: Job, options: Mapping[str, Any]) -> Order:
    """The cell's samples that a measurement with ``samples``, ``shard`` and perhaps ``seed_blocks`` needs."""
    return _order(job, job.spec, job.weights, options)


def orders_of_pairs(job: Job, options: Mapping[str, Any]) -> list[Order]:
    """The cell's samples and the baseline's. One decoder for both, the cell's: what is compared is the samples."""
    other = job.baseline
    assert other is not None, "planned only beside a baseline"
    decoded = other.model_copy(update={"decoder": job.spec.decoder})
    return [order_of(job, options), _order(job, decoded, job.baseline_weights, options)]


def _order(job: Job, spec: CellSpec, weights: Path | None, options: Mapping[str, Any]) -> Order:
    shard = int(options["shard"])
    blocks = seed_blocks(spec, int(options.get("seed_blocks", 1)))
    identities = [samples_identity(block, shard, versions()["torch"]) for block in blocks]
    return Order(
        spec=spec,
        weights=weights,
        decoder_weights=job.decoder_weights,
        folders=tuple(job.store.samples_folder(identity) for identity in identities),
        samples=options["samples"],
        shard=shard,
    )


def shards_of(pieces: list[Piece]) -> list[Path]:
    """Their shards, in order."""
    return [piece.shard for piece in pieces]


def pictures_of(pieces: list[Piece]) -> list[Path] | None:
    """The files of their pictures, in order; None where the cell does not decode."""
    found = [piece.picture for piece in pieces if piece.picture is not None]
    return found or None


def make_samples(order: Order, bound: Callable[[], BoundCell], turn: Turn) -> None:
    """Make what ``order`` lacks: here, or in several processes where that is asked for and there is work for them."""
    pieces = order.pieces()
    check_whole(pieces)
    missing = order.missing()
    processes = min(turn.job.nproc, len(missing))
    if processes > 1:
        from ditbench.harness.sample.launch import make_in_ranks

        turn.bench.release()
        make_in_ranks(order, processes, turn.job.log.with_suffix(".order.json"), turn.progress)
        return
    from ditbench.harness.sample.making import make_pieces

    done, total = order.made()

    def one_more() -> None:
        nonlocal done
        done += 1
        turn.progress(done, total)

    make_pieces([pieces[number] for number in missing], bound, turn.bench.decoder, one_more)
