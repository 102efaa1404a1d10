"""The samples that a measurement needs, made where they are missing: here, or in several processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditbench.harness.run.cells import LazyCell
from ditbench.harness.run.job import Counted, Job
from ditbench.harness.sample.order import Order, Piece, check_whole
from ditbench.harness.store.records import CellSpec

if TYPE_CHECKING:
    from ditbench.harness.sample.generate import BoundCell


def quality_order(job: Job, options: Mapping[str, Any]) -> Order:
    """What ``quality`` with these options scores."""
    return _order(job.spec, job.weights, job, job.samples_folders, options)


def paired_orders(job: Job, options: Mapping[str, Any]) -> tuple[Order, Order]:
    """What ``paired`` with these options compares: the cell's samples and the baseline's.

    One decoder for both, the cell's: what is compared is the samples.
    """
    other, folder = job.baseline, job.baseline_samples
    assert other is not None and folder is not None, "planned only beside a baseline"
    decoded = other.model_copy(update={"decoder": job.spec.decoder})
    ours = _order(job.spec, job.weights, job, job.samples_folders[:1], options)
    return ours, _order(decoded, job.baseline_weights, job, (folder,), options)


def orders_of(job: Job) -> list[Order]:
    """All samples that the job's tasks need."""
    options = {task.name: task.options for task in job.tasks}
    found = [quality_order(job, options["quality"])] if "quality" in options else []
    return found + (list(paired_orders(job, options["paired"])) if "paired" in options else [])


def _order(
    spec: CellSpec, weights: Path | None, job: Job, folders: tuple[Path, ...], options: Mapping[str, Any]
) -> Order:
    return Order(
        spec=spec,
        weights=weights,
        decoder_weights=job.decoder_weights,
        folders=folders,
        samples=options["samples"],
        shard=options["shard"],
    )


def shards_of(pieces: list[Piece]) -> list[Path]:
    """Their shards, in order."""
    return [piece.shard for piece in pieces]


def pictures_of(pieces: list[Piece]) -> list[Path] | None:
    """The files of their pictures, in order; None where the cell does not decode."""
    found = [piece.picture for piece in pieces if piece.picture is not None]
    return found or None


def make_samples(order: Order, bound: Callable[[], BoundCell], cell: LazyCell, job: Job, progress: Counted) -> None:
    """Make what ``order`` lacks: here, or in several processes where that is asked for and there is work for them."""
    pieces = order.pieces()
    check_whole(pieces)
    missing = order.missing()
    processes = min(job.nproc, len(missing))
    if processes > 1:
        from ditbench.harness.sample.launch import make_in_ranks

        cell.release()
        make_in_ranks(order, processes, job.log.with_suffix(".order.json"), progress)
        return
    from ditbench.harness.sample.making import make_pieces

    done, total = order.made()

    def one_more() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    make_pieces([pieces[number] for number in missing], bound, cell.decoder, one_more)
