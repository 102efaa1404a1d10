"""Sets of images: the same pixels from every kind of file, one digest, and little memory."""

from __future__ import annotations

import hashlib
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import every_image, fault, noise, save_png, shards

from ditbench.harness.quality.images.export import write_images_npz, write_png_folder
from ditbench.harness.quality.images.source import (
    ArrayImages,
    ImageSource,
    ShardImages,
    batch_digest,
    digest,
    open_images,
)

# The same images, however they are kept ---------------------------------------------------------------


def array_source(images: np.ndarray, folder: Path) -> ImageSource:
    return ArrayImages(images, "array")


def stored_source(images: np.ndarray, folder: Path) -> ImageSource:
    np.savez(folder / "stored.npz", images, np.arange(len(images)))
    return open_images(folder / "stored.npz")


def deflated_source(images: np.ndarray, folder: Path) -> ImageSource:
    np.savez_compressed(folder / "deflated.npz", labels=np.arange(len(images)), arr_0=images)
    return open_images(folder / "deflated.npz")


def png_source(images: np.ndarray, folder: Path) -> ImageSource:
    for index, image in enumerate(images):
        save_png(folder / "png" / f"{index}.png", image)
    return open_images(folder / "png")


def exported_npz(images: np.ndarray, folder: Path) -> ImageSource:
    write_images_npz(ArrayImages(images, "array"), folder / "deep" / "out.npz")
    return open_images(folder / "deep" / "out.npz")


def exported_png(images: np.ndarray, folder: Path) -> ImageSource:
    write_png_folder(ArrayImages(images, "array"), folder / "deep" / "out")
    return open_images(folder / "deep" / "out")


SOURCES = [array_source, stored_source, deflated_source, png_source, exported_npz, exported_png]


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_source_gives_the_same_pixels_in_order_and_again(
    make: Callable[[np.ndarray, Path], ImageSource], channels: int, tmp_path: Path
) -> None:
    images = noise(13, channels=channels)
    source = make(images, tmp_path)
    assert len(source) == 13 and source.shape == (6, 5, channels)
    for size in (1, 4, 13, 100):
        batches = list(source.batches(size))
        assert [len(batch) for batch in batches] == [min(size, 13 - start) for start in range(0, 13, size)]
        assert all(batch.dtype == np.uint8 for batch in batches)
        np.testing.assert_array_equal(np.concatenate(batches), images)
    for limit in (1, 4, 6, 13):
        np.testing.assert_array_equal(every_image(source, 4, limit), images[:limit])
        assert digest(source, limit) == batch_digest(images[:limit])
    assert digest(source) == digest(source, 13) == batch_digest(images)


@pytest.mark.parametrize("make", SOURCES)
def test_a_batch_belongs_to_its_receiver(make: Callable[[np.ndarray, Path], ImageSource], tmp_path: Path) -> None:
    images = noise(6)
    source = make(images.copy(), tmp_path)
    kept = []
    for batch in source.batches(2):
        kept.append(batch.copy())
        batch[...] = 0
    np.testing.assert_array_equal(np.concatenate(kept), images)
    np.testing.assert_array_equal(every_image(source), images)


@pytest.mark.parametrize("make", SOURCES)
def test_a_request_for_more_images_than_there_are_fails_at_the_call(
    make: Callable[[np.ndarray, Path], ImageSource], tmp_path: Path
) -> None:
    source = make(noise(6), tmp_path)
    message = f"{source.name} holds 6 images, the protocol asks for 50,000"
    assert fault(lambda: source.batches(2, 50_000)) == message
    assert fault(lambda: digest(source, 50_000)) == message
    with pytest.raises(ValueError, match="at least 1"):
        source.batches(2, 0)
    with pytest.raises(ValueError, match="at least 1"):
        source.batches(0)


def test_two_iterations_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    images = noise(9)
    source = deflated_source(images, tmp_path)
    pairs = list(zip(source.batches(2), source.batches(2), strict=True))
    np.testing.assert_array_equal(np.concatenate([first for first, _ in pairs]), images)
    np.testing.assert_array_equal(np.concatenate([second for _, second in pairs]), images)


def test_names_are_the_paths_as_the_user_gave_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", noise(2))
    save_png(tmp_path / "b" / "0.png", noise(1)[0])
    monkeypatch.chdir(tmp_path)
    assert open_images(Path("a.npz")).name == "a.npz"
    assert open_images(Path("b")).name == "b"


# Digests ----------------------------------------------------------------------------------------------


def test_a_digest_is_of_dtype_shape_and_pixels() -> None:
    images = noise(4)
    expected = hashlib.sha256(b"|u1 4x6x5x3\n" + images.tobytes()).hexdigest()
    assert batch_digest(images) == expected
    assert batch_digest(np.asfortranarray(images)) == expected
    assert batch_digest(np.repeat(images, 2, axis=0)[::2]) == expected


def test_a_digest_changes_with_one_pixel_the_order_the_count_and_the_shape() -> None:
    images = noise(4)
    other = images.copy()
    other[3, 5, 4, 2] ^= 1
    found = [images, other, images[::-1], images[:3], images.transpose(0, 2, 1, 3), images.reshape(4, 5, 6, 3)]
    assert len({batch_digest(each) for each in found}) == len(found)


# Memory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deflated", [False, True])
def test_images_of_several_hundred_megabytes_take_little_memory(deflated: bool, tmp_path: Path) -> None:
    path, block = tmp_path / "large.npz", np.tile(noise(1, 256, 256)[:, :16], (128, 16, 1, 1)).tobytes()
    kind = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind, compresslevel=1) as archive, archive.open("arr_0.npy", "w") as member:
        header = {"descr": "|u1", "fortran_order": False, "shape": (128 * 12, 256, 256, 3)}
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(12):
            member.write(block)
    tracemalloc.start()
    source = open_images(path)
    total = sum(batch.nbytes for batch in source.batches(64))
    digest(source, 640)
    write_images_npz(source, tmp_path / "copy.npz", 640)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 288 * 2**20
    assert peak < 40 * 2**20  # two batches of 12 MiB, pieces of 1 MiB
    for file in tmp_path.iterdir():
        file.unlink()


def test_of_shards_one_is_in_memory_at_a_time(tmp_path: Path) -> None:
    paths = shards(tmp_path, np.zeros((200, 3, 128, 128), dtype=np.float32), 50)
    shard = 50 * 3 * 128 * 128 * 4
    tracemalloc.start()
    assert sum(len(batch) for batch in ShardImages(paths, 200).batches(10)) == 200
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * shard
