"""Sets of images: exports are numbered, equal for equal images, and leave nothing half done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from image_files import fault, noise
from PIL import Image

from ditbench.harness.errors import InputError
from ditbench.harness.quality.images.export import write_images_npz, write_png_folder
from ditbench.harness.quality.images.source import ArrayImages


class Failing(ArrayImages):
    """Gives some batches, and then the error."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(noise(6), "failing")
        self._error = error

    def batches(self, size: int, limit: int | None = None) -> Iterator[np.ndarray]:
        yield from super().batches(2, 4)
        raise self._error


def test_numpy_reads_the_exported_npz_and_the_same_images_give_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ditbench.harness.quality.images.source._STREAM_BYTES", 5 * 90)
    images = noise(20)
    seen: list[tuple[int, int]] = []
    for name in ("a.npz", "b.npz"):
        write_images_npz(
            ArrayImages(images, "array"), tmp_path / name, 17, lambda done, total: seen.append((done, total))
        )
    with np.load(tmp_path / "a.npz") as data:
        assert data.files == ["arr_0"] and data["arr_0"].dtype == np.uint8
        np.testing.assert_array_equal(data["arr_0"], images[:17])
    assert seen == [(5, 17), (10, 17), (15, 17), (17, 17)] * 2
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_exported_png_files_are_numbered_from_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ditbench.harness.quality.images.source._STREAM_BYTES", 5 * 90)
    images = noise(12)
    seen: list[tuple[int, int]] = []
    write_png_folder(ArrayImages(images, "array"), tmp_path / "out", 11, lambda done, total: seen.append((done, total)))
    assert seen == [(5, 11), (10, 11), (11, 11)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{index:06d}.png" for index in range(11)]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "000010.png")), images[10])


@pytest.mark.parametrize("error", [InputError("damaged"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_nothing_is_left_of_an_export_that_failed(error: BaseException, tmp_path: Path) -> None:
    kept = tmp_path / "kept.npz"
    kept.write_bytes(b"before")
    (tmp_path / "empty").mkdir()
    for write in (
        lambda: write_images_npz(Failing(error), kept),
        lambda: write_images_npz(Failing(error), tmp_path / "new.npz"),
        lambda: write_png_folder(Failing(error), tmp_path / "new"),
        lambda: write_png_folder(Failing(error), tmp_path / "empty"),
    ):
        expected = InputError if isinstance(error, OSError) else type(error)
        with pytest.raises(expected, match=r"No space left on device|damaged|^$"):
            write()
    assert kept.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "kept.npz"]


def test_exports_go_only_where_nothing_is_lost(tmp_path: Path) -> None:
    source = ArrayImages(noise(2), "array")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    assert "is not empty: give a new folder" in fault(lambda: write_png_folder(source, tmp_path / "full"))
    assert "is a folder" in fault(lambda: write_images_npz(source, tmp_path / "full"))
    notes = tmp_path / "full" / "notes.txt"
    assert "cannot be written" in fault(lambda: write_png_folder(source, notes))
    assert "cannot be written" in fault(lambda: write_images_npz(source, notes / "a.npz"))
    assert "asks for 3" in fault(lambda: write_png_folder(source, tmp_path / "new", 3))
    assert "asks for 3" in fault(lambda: write_images_npz(source, tmp_path / "new.npz", 3))
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "notes.txt"]
