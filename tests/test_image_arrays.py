"""Sets of images: shards and npz files are read as they are, and a damaged one is refused."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import every_image, fault, noise, shards

from ditbench.harness.errors import InputError
from ditbench.harness.quality.images.source import ArrayImages, ShardImages, batch_digest, digest, open_images
from ditbench.harness.sample.quantise import quantise
from ditbench.harness.store.arrays import npz_names, read_arrays

# Sample shards ----------------------------------------------------------------------------------------


def test_shards_give_quantised_samples_with_channels_last(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-1.2, 1.2, (12, 3, 4, 5)).astype(np.float32)
    source = ShardImages(shards(tmp_path, samples, 4), 10)
    expected = np.floor(np.clip(samples * 127.5 + 128, 0, 255)).astype(np.uint8)[:10].transpose(0, 2, 3, 1)
    assert len(source) == 10 and source.shape == (4, 5, 3) and source.name == str(tmp_path)
    for size in (1, 3, 4, 7, 50):
        np.testing.assert_array_equal(every_image(source, size), expected)
    np.testing.assert_array_equal(every_image(source, 3, 6), expected[:6])
    assert digest(source) == batch_digest(np.ascontiguousarray(expected))


def test_quantising_rounds_and_clamps() -> None:
    levels = np.arange(256)
    np.testing.assert_array_equal(quantise((levels - 128) / np.float32(127.5)), levels)
    np.testing.assert_array_equal(quantise(np.array([-9, -1, 0, 1, 9], dtype=np.float32)), [0, 0, 128, 255, 255])
    # in float32 this product is rounded up to the next level
    np.testing.assert_array_equal(quantise(np.nextafter(np.float32(1 / 127.5), np.float32(0))), 128)
    # half a level up is the next one, a little less is not: rounding, not truncation of 127.5 (x + 1)
    np.testing.assert_array_equal(quantise((np.array([9.999, 10.0, 10.999, 11.0]) - 128) / 127.5), [9, 10, 10, 11])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_without_a_grey_level_are_refused(bad: float, tmp_path: Path) -> None:
    samples = np.zeros((4, 1, 3, 3), dtype=np.float32)
    samples[3, 0, 2, 2] = bad
    assert "NaN or infinity" in fault(lambda: quantise(samples))
    paths = shards(tmp_path, samples, 2)
    message = fault(lambda: every_image(ShardImages(paths, 4)))
    assert message == f"{paths[1]}: samples hold NaN or infinity, which have no grey level"


def test_shards_that_hold_no_images_are_refused(tmp_path: Path) -> None:
    latents = shards(tmp_path / "latents", np.zeros((2, 4, 3, 3), dtype=np.float32), 2)
    assert fault(lambda: ShardImages(latents, 2)).endswith("latents must be decoded first (give the cell a decoder)")
    good = shards(tmp_path / "good", np.zeros((4, 1, 3, 3), dtype=np.float32), 2)
    other = shards(tmp_path / "other", np.zeros((2, 1, 8, 8), dtype=np.float32), 2)
    assert "(8, 8, 1), shard-0.npz of (3, 3, 1)" in fault(lambda: ShardImages(good + other, 2))
    assert "holds 4 images, the protocol asks for 5" in fault(lambda: ShardImages(good, 5))
    assert "no shards" in fault(lambda: ShardImages([], 5))
    assert "No such file" in fault(lambda: ShardImages([tmp_path / "absent.npz"], 1))
    good[1].write_bytes(good[1].read_bytes()[:300])
    assert "not whole" in fault(lambda: ShardImages(good, 4))
    np.savez(good[1], samples=np.zeros((2, 3, 3, 1), dtype=np.uint8))
    assert "not (n, C, H, W) floats" in fault(lambda: ShardImages(good, 4))


# npz files that are refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (noise(2).astype(np.float32) / 255, r"is float32, images must be uint8: save np.clip\(127.5 \* x \+ 128"),
        (noise(2).astype(np.int64), "is int64, images must be uint8 with levels 0 to 255"),
        (noise(2).transpose(0, 3, 1, 2), r"\(2, 3, 6, 5\), channels first: save images.transpose\(0, 2, 3, 1\)"),
        (noise(2)[..., 0], r"\(2, 6, 5\), not \(N, H, W, C\): give grey images one channel"),
        (noise(2, channels=4), "4 channels: save images"),
        (noise(2, channels=2), "2 channels: images have 1 or 3"),
        (noise(2).reshape(2, -1), r"images must be \(N, H, W, C\)"),
        (noise(0), "there are no images"),
        (noise(2, height=0), "there are no images"),
        (np.asfortranarray(noise(2)), "Fortran order: save np.ascontiguousarray"),
        (np.array([{"a": 1}, None]), "is a pickle, which can run code"),
        (np.zeros(2, dtype=[("a", "u1")]), "images must be uint8"),
    ],
)
def test_arrays_that_are_no_images_are_refused_with_the_way_out(
    array: np.ndarray, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, array)
    found = fault(lambda: open_images(path))
    assert found.startswith(f"{path}: arr_0 ") and re.search(message, found)


def test_an_array_in_memory_is_checked_as_one_in_a_file_is() -> None:
    message = fault(lambda: ArrayImages(noise(2).transpose(0, 3, 1, 2), "generated"))
    assert message.startswith("generated has shape (2, 3, 6, 5), channels first")


def test_an_npz_without_images_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    np.savez(path, mu=np.zeros(3), sigma=np.eye(3))
    assert fault(lambda: open_images(path)) == f"{path} has no array 'arr_0': it holds mu, sigma"
    np.savez(path, arr0=noise(2))
    assert "(did you mean 'arr0'?)" in fault(lambda: open_images(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0.png", b"")
    assert fault(lambda: open_images(path)).endswith("it holds none")


def test_files_that_are_no_npz_are_named(tmp_path: Path) -> None:
    assert "no such npz file or folder" in fault(lambda: open_images(tmp_path / "absent.npz"))
    (tmp_path / "text.npz").write_text("not an archive")
    assert fault(lambda: open_images(tmp_path / "text.npz")).endswith("text.npz is not an npz file")
    (tmp_path / "empty.npz").touch()
    assert fault(lambda: open_images(tmp_path / "empty.npz")).endswith("empty.npz is not an npz file")
    np.save(tmp_path / "one.npy", noise(2))
    assert "save it with np.savez" in fault(lambda: open_images(tmp_path / "one.npy"))
    with zipfile.ZipFile(tmp_path / "lzma.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("arr_0.npy", b"")
    assert "neither stored nor deflated" in fault(lambda: open_images(tmp_path / "lzma.npz"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_that_was_cut_is_refused_at_once(save: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "cut.npz"
    save(path, noise(50))
    whole = path.read_bytes()
    for end in (len(whole) // 2, len(whole) - 1, 40, 5):
        path.write_bytes(whole[:end])
        assert "not whole" in fault(lambda: open_images(path))
    # a piece is missing in the middle, the directory at the end is there
    path.write_bytes(whole[: len(whole) // 2] + whole[len(whole) // 2 + 100 :])
    assert "damaged or not whole" in fault(lambda: open_images(path))


def test_a_whole_archive_of_a_cut_array_is_refused_at_once(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, noise(50))
    with zipfile.ZipFile(tmp_path / "cut.npz", "w") as archive:
        archive.writestr("arr_0.npy", buffer.getvalue()[: len(buffer.getvalue()) // 2])
    assert "arr_0 is not whole" in fault(lambda: open_images(tmp_path / "cut.npz"))
    assert "arr_0 is not whole" in fault(lambda: read_arrays(tmp_path / "cut.npz", ["arr_0"]))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_one_changed_bit_is_never_handed_out_in_silence(save: Callable[..., None], tmp_path: Path) -> None:
    images = noise(6)
    path = tmp_path / "bits.npz"
    save(path, images)
    whole = path.read_bytes()
    refused = 0
    for place in np.random.default_rng(0).integers(0, len(whole), 150):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            found = every_image(open_images(path))
        except InputError:
            refused += 1
        else:
            np.testing.assert_array_equal(found, images)  # a time stamp, a flag: no pixel
    assert refused > 75


def test_a_file_that_changes_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", noise(6))
    source = open_images(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", noise(9))
    assert "changed since it was opened" in fault(lambda: every_image(source))


# Small arrays -----------------------------------------------------------------------------------------


def test_small_arrays_are_read_as_numpy_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    arrays = {
        "mu": np.arange(4.0),
        "sigma": np.asfortranarray(np.arange(16.0).reshape(4, 4)),
        "n": np.array(7),
        "made_by": np.array('{"protocol": "adm"}'),
        "none": np.zeros((0, 3), dtype=np.float32),
        "arr_0": noise(3),
    }
    np.savez_compressed(path, **arrays)
    assert npz_names(path) == list(arrays)
    found = read_arrays(path, ["sigma", "mu", "n", "made_by", "none"])
    assert list(found) == ["sigma", "mu", "n", "made_by", "none"]
    for name, array in found.items():
        assert array.dtype == arrays[name].dtype and array.shape == arrays[name].shape and array.flags.writeable
        np.testing.assert_array_equal(array, arrays[name])
    assert int(found["n"]) == 7 and str(found["made_by"]) == '{"protocol": "adm"}'


def test_small_arrays_that_are_not_there_or_pickled_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    np.savez(path, mu=np.arange(4.0), sigma_s=np.array([None]))
    assert "no array 'mu_s' (did you mean 'mu'?): it holds mu, sigma_s" in fault(lambda: read_arrays(path, ["mu_s"]))
    assert "sigma_s is a pickle" in fault(lambda: read_arrays(path, ["mu", "sigma_s"]))
    assert "cannot be read" in fault(lambda: npz_names(tmp_path))
    assert "cannot be read" in fault(lambda: read_arrays(tmp_path / "absent.npz", ["mu"]))


@pytest.mark.parametrize("header", ["{'descr': 'O'}", "(" * 300, "{'descr': '|u1', 'shape': (-1, -4)}", "''' \\"])
def test_a_header_of_nonsense_is_one_line(header: str, tmp_path: Path) -> None:
    text = header.encode()
    with zipfile.ZipFile(tmp_path / "odd.npz", "w") as archive:
        archive.writestr("arr_0.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + b"1234")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "arr_0 is damaged" in fault(lambda: open_images(tmp_path / "odd.npz"))
