"""Sets of images: the same pixels from every kind of file, in little memory, and one clear line for every fault."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ditbench.harness.errors import InputError
from ditbench.harness.quality.images.export import write_images_npz, write_png_folder
from ditbench.harness.quality.images.folder import natural_key
from ditbench.harness.quality.images.npz import npz_names, read_arrays
from ditbench.harness.quality.images.quantise import quantise
from ditbench.harness.quality.images.source import (
    ArrayImages,
    ImageSource,
    ShardImages,
    batch_digest,
    digest,
    open_images,
)
from ditbench.harness.sample.shards import Shard, write_shard


def noise(count: int, height: int = 6, width: int = 5, channels: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def every_image(source: ImageSource, size: int = 4, limit: int | None = None) -> np.ndarray:
    return np.concatenate(list(source.batches(size, limit)))


def save_png(path: Path, image: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(image.squeeze(-1) if image.ndim == 3 and image.shape[2] == 1 else image)
    (picture.convert(mode) if mode else picture).save(path)


def fault(call: Callable[[], object]) -> str:
    """The one line of the InputError that ``call`` raises."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def reading_fault(path: Path) -> str:
    return fault(lambda: every_image(open_images(path)))


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


# Sample shards ----------------------------------------------------------------------------------------


def shards(folder: Path, samples: np.ndarray, size: int) -> list[Path]:
    paths = []
    for start in range(0, len(samples), size):
        paths.append(folder / f"shard-{start}.npz")
        write_shard(paths[-1], Shard(samples[start : start + size], np.zeros(size, dtype=np.int64)))
    return paths


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


# Folders ----------------------------------------------------------------------------------------------


def test_files_are_in_natural_order() -> None:
    names = ["a1b2.png", "a1b10.png", "a02.png", "a2.png", "a10.png", "b.png", "7.png", "07.png", "x².png"]
    ordered = ["07.png", "7.png", "a1b2.png", "a1b10.png", "a02.png", "a2.png", "a10.png", "b.png", "x².png"]
    assert sorted(names, key=natural_key) == ordered


def test_class_folders_are_read_in_order_and_notes_are_ignored(tmp_path: Path) -> None:
    images = noise(5)
    for image, name in zip(images, ("n2/9.png", "n2/10.PNG", "n10/0.png", "n10/1.png", "n11/0.png"), strict=True):
        save_png(tmp_path / name, image)
    for name in ("labels.txt", "n2/made.json", "n10/scores.csv", ".DS_Store", ".cache/x.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no image")
    np.testing.assert_array_equal(every_image(open_images(tmp_path)), images)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no PNG files"),
        (["labels.txt", "class/labels.txt"], "holds no PNG files"),
        (["0.png", "1.jpg"], r"1\.jpg: lossy compression changes quality figures: save the images as PNG or npz"),
        (["class/0.JPEG"], r"0\.JPEG: lossy"),
        (["0.webp"], r"0\.webp: lossy"),
        (["0.png", "1.bmp"], r"1\.bmp is neither a PNG image nor"),
        (["0.png", "other.npz"], r"other\.npz is neither a PNG image nor"),
        (["0.png", "class/0.png"], r"holds images \(0\.png\) and folders \(class\)"),
        (["train/class/0.png"], r"train/class: images may lie one folder deep, not two"),
    ],
)
def test_folders_of_other_things_are_refused(names: list[str], message: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".txt", ".npz")):
            (tmp_path / name).write_text("")
        else:
            save_png(tmp_path / name, noise(1)[0])
    assert re.search(message, fault(lambda: open_images(tmp_path)))


def test_images_that_differ_name_the_first_two(tmp_path: Path) -> None:
    save_png(tmp_path / "0.png", noise(1)[0])
    save_png(tmp_path / "1.png", noise(1)[0])
    save_png(tmp_path / "2.png", noise(1, height=7)[0])
    assert fault(lambda: open_images(tmp_path)).endswith("images differ: 0.png is 5x6 RGB, 2.png is 5x7 RGB")
    save_png(tmp_path / "2.png", noise(1, channels=1)[0])
    assert fault(lambda: open_images(tmp_path)).endswith("images differ: 0.png is 5x6 RGB, 2.png is 5x6 grey")


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("RGBA", r"has an alpha channel: save it without \(mode RGB\)"),
        ("LA", r"has an alpha channel: save it without \(mode L\)"),
        ("P", "is a palette image: save it as RGB"),
        ("1", "has 1 bits a channel: save it with 8"),
        ("I;16", "has 16 bits a channel: save it with 8"),
    ],
)
def test_other_kinds_of_png_say_how_to_convert(mode: str, message: str, tmp_path: Path) -> None:
    if mode == "I;16":
        save_png(tmp_path / "0.png", noise(1)[0, ..., 0].astype(np.uint16) * 257)
    else:
        save_png(tmp_path / "0.png", noise(1)[0], mode)
    assert re.search(message, fault(lambda: open_images(tmp_path)))


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def header_of(depth: int = 8, colour: int = 2, height: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", 2, height, depth, colour, 0, 0, 0)


DATA = (b"IDAT", zlib.compress(b"\x00" + bytes(6) + b"\x00" + bytes(6)))
END = (b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not whole"),
        (b"\x89PNG", "not whole"),
        (b"GIF89a", "not a PNG image"),
        (b"\xff\xd8\xff\xe0 JFIF", "JPEG or WebP image under a PNG's name"),
        # 16-bit RGB, which PIL turns into 8 bits without a word
        (png_of(header_of(depth=16), DATA, END), "16 bits a channel"),
        (png_of(header_of(), (b"tRNS", bytes(6)), DATA, END), "has a transparent colour"),
        (png_of(header_of(), END), "pixels cannot be decoded"),
        (png_of(header_of(), (b"IDAT", b"no deflate"), END), "pixels cannot be decoded"),
        (png_of(END), "header holds no size"),
        (png_of(header_of(height=0), DATA, END), "header holds no size"),
        (png_of(header_of(colour=5), DATA, END), "unknown colour type"),
    ],
    ids=range(11),
)
def test_odd_png_files_are_named(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(data)
    found = reading_fault(tmp_path)
    assert found.startswith(str(tmp_path / "0.png")) and message in found


def test_bytes_after_the_end_of_a_png_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png_of(header_of(), DATA, END) + b"appended")
    np.testing.assert_array_equal(every_image(open_images(tmp_path)), np.zeros((1, 2, 2, 3)))


def test_a_cut_png_is_refused_at_once_and_a_damaged_one_when_it_is_read(tmp_path: Path) -> None:
    images = noise(3, 20, 20)
    for index, image in enumerate(images):
        save_png(tmp_path / f"{index}.png", image)
    path = tmp_path / "1.png"
    whole = path.read_bytes()
    for end in (len(whole) // 2, len(whole) - 1, 20):
        path.write_bytes(whole[:end])
        assert fault(lambda: open_images(tmp_path)) == f"{path} is not whole: the PNG data ends early"
    for place in range(8, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert str(path) in reading_fault(tmp_path) or "1.png is" in reading_fault(tmp_path)


def test_a_damaged_png_header_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    whole = png_of(header_of(), DATA, END)
    (tmp_path / "0.png").write_bytes(whole[:16] + b"\x7f" + whole[17:])
    assert "header holds no size" in fault(lambda: open_images(tmp_path))


def test_a_png_that_changes_after_the_folder_was_opened_is_refused(tmp_path: Path) -> None:
    save_png(tmp_path / "0.png", noise(1)[0])
    source = open_images(tmp_path)
    save_png(tmp_path / "0.png", noise(1, height=5, width=6)[0])
    assert "changed since the folder was opened" in fault(lambda: every_image(source))
    (tmp_path / "0.png").unlink()
    assert "cannot be read: No such file" in fault(lambda: every_image(source))


# Export -----------------------------------------------------------------------------------------------


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
