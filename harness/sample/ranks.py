"""Making a cell's samples in several processes: what each rank does, as
``torchrun -m ditbench.harness.sample.ranks ORDER.json`` starts it.

Ranks share out the missing shards by number and never exchange numbers of a sample, so the world's size changes no
sample. The first rank lists what is missing and tells the others, so that all share out the same list. The only thing
sent is that list, so the backend is gloo on every device.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from ditbench.harness.errors import InputError
from ditbench.harness.lifetime import die_with_parent
from ditbench.harness.sample.order import Order

_PATIENCE = timedelta(days=30)  # ranks wait for the slowest one's share; a lost rank is noticed at once
FAILURE = "ditbench-failure "
_LINE = 4000  # bytes that the system writes to a pipe without mixing them with another rank's


@dataclass(frozen=True)
class World:
    """Which of how many processes this one is; ``local_rank``: on its machine."""

    rank: int
    size: int
    local_rank: int

    def told_by_first(self, value: Any) -> Any:
        """What the first rank has for ``value``, on every rank."""
        from torch import distributed

        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def told_by_all(self, value: Any) -> list[Any]:
        """What every rank has for ``value``, in the order of ranks."""
        from torch import distributed

        told = [None] * self.size
        distributed.all_gather_object(told, value)
        return told

    def wait(self) -> None:
        """Until every rank is here."""
        from torch import distributed

        distributed.barrier()


def world_of_environment() -> World | None:
    """The world that ``torchrun`` has put this process in; None outside one."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if any(name not in os.environ for name in names):
        return None
    return World(*(int(os.environ[name]) for name in names))


@contextmanager
def joined(world: World) -> Iterator[None]:
    """Connect with the other ranks, and take this rank's GPU if there are some."""
    import torch
    from torch import distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(world.local_rank % torch.cuda.device_count())
    distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def make_share(order: Order, numbers: list[int], world: World) -> None:
    """Make this rank's share of the pieces ``numbers`` of ``order``: every ``world.size``-th one."""
    own = numbers[world.rank :: world.size]
    if not own:
        return
    from functools import cache

    import torch

    from ditbench.harness.sample.generate import BoundCell, bind
    from ditbench.harness.sample.making import make_pieces
    from ditbench.harness.sample.picture_decoder import PictureDecoder, bind_decoder

    spec = order.spec
    # Not divided by the ranks: the number of threads moves the last bits of a sample, and the world's size must not.
    torch.set_num_threads(spec.threads or torch.get_num_threads())

    @cache
    def bound() -> BoundCell:
        return bind(spec, order.weights)

    @cache
    def decoder() -> PictureDecoder:
        assert spec.decoder is not None, "asked for only where the cell decodes"
        return bind_decoder(spec.decoder, order.decoder_weights, spec.device)

    pieces = order.pieces()
    make_pieces([pieces[number] for number in own], bound, decoder, lambda: None)


def read_order(path: Path) -> Order:
    """Raises InputError for a file that is no order."""
    try:
        return Order.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not an order of samples ({str(error).splitlines()[0]})") from None


def say_failure(rank: int | None, failure: dict[str, str]) -> None:
    """One line on stdout for the process that started the ranks. Too long a traceback keeps its end."""
    tail = failure["traceback"]
    while True:
        line = FAILURE + json.dumps({"rank": rank, **failure, "traceback": tail}) + "\n"
        if len(line) <= _LINE or not tail:
            break
        tail = tail[len(line) - _LINE :]
    sys.stdout.flush()
    os.write(1, line.encode())


def main(arguments: list[str]) -> int:
    """Exit code: 0 all of this rank's share is made; 1 it failed, and said so; 2 bad input."""
    die_with_parent()
    world = world_of_environment()
    if world is None or len(arguments) != 1:
        print(
            "error: start it as torchrun --nproc-per-node N -m ditbench.harness.sample.ranks ORDER.json",
            file=sys.stderr,
        )
        return 2
    from ditbench.harness.store.failures import failure_of

    try:
        order = read_order(Path(arguments[0]))
        with joined(world):
            make_share(order, world.told_by_first(order.missing()), world)
    except Exception as error:
        failure = failure_of(error)
        print(failure.traceback, file=sys.stderr)
        say_failure(world.rank, failure.model_dump())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
