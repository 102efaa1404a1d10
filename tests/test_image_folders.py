"""Sets of images: folders are read in natural order, and a file that does not fit is named."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import every_image, fault, noise, save_png

from ditbench.harness.quality.images.folder import natural_key
from ditbench.harness.quality.images.source import open_images


def reading_fault(path: Path) -> str:
    return fault(lambda: every_image(open_images(path)))


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
