"""What samples a cell needs, as a value that every process which makes them reads. Never imports torch by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ditbench.harness.errors import InputError
from ditbench.harness.sample.shards import decoded_folder, read_shard, shard_path, shard_ranges
from ditbench.harness.store.identity import seed_blocks
from ditbench.harness.store.records import CellSpec, Frozen


@dataclass(frozen=True)
class Piece:
    """One shard of one seed block, and the file of its pictures where the cell decodes."""

    spec: CellSpec
    indices: range
    shard: Path
    picture: Path | None

    @property
    def files(self) -> list[Path]:
        return [self.shard] if self.picture is None else [self.shard, self.picture]


class Order(Frozen):
    """Samples of one cell: ``samples`` a seed block in shards of ``shard``; ``folders``: one a block, absolute."""

    spec: CellSpec
    weights: Path | None
    decoder_weights: Path | None
    folders: tuple[Path, ...]
    samples: int
    shard: int

    def blocks(self) -> list[list[Piece]]:
        """The pieces of every seed block, in order."""
        specs = seed_blocks(self.spec, len(self.folders))
        return [list(self._pieces(spec, folder)) for spec, folder in zip(specs, self.folders, strict=True)]

    def pieces(self) -> list[Piece]:
        """All pieces, in order: their numbers are what processes share out."""
        return [piece for block in self.blocks() for piece in block]

    def missing(self) -> list[int]:
        """Numbers of the pieces of which a file is not there yet."""
        return [n for n, piece in enumerate(self.pieces()) if not all(file.is_file() for file in piece.files)]

    def made(self) -> tuple[int, int]:
        """How many files are there, and how many there will be."""
        files = [file for piece in self.pieces() for file in piece.files]
        return sum(file.is_file() for file in files), len(files)

    def _pieces(self, spec: CellSpec, folder: Path) -> Iterator[Piece]:
        pictures = None
        if spec.decoder is not None:
            pictures = decoded_folder(folder, spec.decoder)
        for indices in shard_ranges(self.samples, self.shard):
            shard = shard_path(folder, indices)
            yield Piece(spec, indices, shard, None if pictures is None else pictures / shard.name)


def check_whole(pieces: Sequence[Piece]) -> None:
    """Read the shards that are there. Raises InputError for one that is damaged, cut short, or another file."""
    for piece in pieces:
        if not piece.shard.is_file():
            continue
        try:
            found = read_shard(piece.shard)
            if len(found.samples) != len(piece.indices) or len(found.labels) != len(piece.indices):
                raise InputError(f"{piece.shard} does not hold {len(piece.indices)} samples and their labels")
        except InputError as error:
            raise InputError(f"{error.message}; delete the file and run the suite again: it is made anew") from None
