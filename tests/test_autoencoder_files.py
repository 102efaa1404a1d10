"""The decoder of latents: files of pictures resume and are named by how they came, and figures are theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from decoder_files import fault, latent_record, latents

from ditbench.cli.scoring import export_samples
from ditbench.harness.quality import evaluate
from ditbench.harness.quality.evaluate import SeedBlock, score
from ditbench.harness.quality.images.decoded import DecodedImages
from ditbench.harness.quality.images.source import ArrayImages
from ditbench.harness.quality.options import QualityOptions
from ditbench.harness.quality.paired import pair
from ditbench.harness.quality.reference import _of_images
from ditbench.harness.sample.picture_decoder import bind_decoder, decode_shards
from ditbench.harness.sample.quantise import quantise
from ditbench.harness.sample.shards import NotFiniteError, Shard, decoded_folder, write_shard
from ditbench.harness.store.identity import samples_identity
from ditbench.harness.store.records import DecoderSpec
from ditbench.harness.store.store import RunStore
from ditbench.methods.latent.autoencoder import make_autoencoder_files


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_autoencoder_files(tmp_path_factory.mktemp("autoencoder"), seed=1)


# Files ------------------------------------------------------------------------------------------------


def shards(folder: Path, count: int = 3, size: int = 5, side: int = 4) -> list[Path]:
    paths = []
    for number in range(count):
        paths.append(folder / f"shard-{number * size:07d}-{(number + 1) * size:07d}.npz")
        z = latents(size, side, seed=number).numpy()
        write_shard(paths[-1], Shard(z, np.arange(size) + number))
    return paths


def nothing(done: int, total: int) -> None:
    """No progress bar."""


def test_files_hold_the_quantised_pictures_of_their_shards(source: Path, tmp_path: Path) -> None:
    decoder = bind_decoder(DecoderSpec(batch=2), source, "cpu")
    seen: list[tuple[int, int]] = []
    files = shards(tmp_path, 2)
    made = decode_shards(decoder, files, tmp_path / "d", lambda done, total: seen.append((done, total)))
    assert [path.name for path in made] == [path.name for path in files] and seen == [(1, 2), (2, 2)]
    expected = [quantise(decoder.decode(latents(5, 4, seed=n)).numpy()).transpose(0, 2, 3, 1) for n in range(2)]
    images = DecodedImages(made, 8)
    assert len(images) == 8 and images.shape == (32, 32, 3)
    found = np.concatenate(list(images.batches(3)))
    assert np.array_equal(found, np.concatenate(expected)[:8]) and found.std() > 10


def test_pictures_do_not_depend_on_the_order_of_the_shards_nor_on_what_was_there(source: Path, tmp_path: Path) -> None:
    decoder, files = bind_decoder(DecoderSpec(batch=2), source, "cpu"), shards(tmp_path)
    once = decode_shards(decoder, files, tmp_path / "once", nothing)
    decode_shards(decoder, [files[2]], tmp_path / "parts", nothing)
    decode_shards(decoder, files[1::-1], tmp_path / "parts", nothing)
    parts = decode_shards(decoder, files, tmp_path / "parts", nothing)
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in parts]


def test_a_stopped_decoding_goes_on_without_touching_what_is_done(source: Path, tmp_path: Path) -> None:
    decoder, files, folder = bind_decoder(DecoderSpec(batch=2), source, "cpu"), shards(tmp_path), tmp_path / "d"

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_shards(decoder, files, folder, stop)
    (folder / f".{files[2].name}.half.tmp").write_bytes(b"half a file")
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*")}
    assert len(before) == 2
    made = decode_shards(decoder, files, folder, nothing)
    after = {path.name: path.stat().st_mtime_ns for path in made}
    assert {name: after[name] for name in before} == before and len(after) == 3
    assert len(next(DecodedImages(made, 15).batches(15))) == 15


def test_every_way_of_decoding_has_its_own_folder_and_where_the_weights_lie_does_not_matter() -> None:
    base = DecoderSpec(weights="asset:vae", weights_sha256="a")
    changes = ({}, {"weights_sha256": "b"}, {"scale": 0.2}, {"batch": 4}, {"tile": 8}, {"dtype": "float16"})
    names = {decoded_folder(Path("s"), base.model_copy(update=change)).name for change in changes}
    assert len(names) == len(changes) and all(len(name) == len("decoded-") + 12 for name in names)
    assert decoded_folder(Path("s"), base.model_copy(update={"weights": "elsewhere"})) == decoded_folder(
        Path("s"), base
    )


def test_nan_is_no_picture_and_leaves_no_file(source: Path, tmp_path: Path) -> None:
    decoder = bind_decoder(DecoderSpec(), source, "cpu")
    decoder.model.decoder.conv_out.bias.fill_(torch.inf)  # type: ignore[operator, union-attr]
    (file,) = shards(tmp_path, 1)
    with pytest.raises(NotFiniteError, match="5 of 5 decoded pictures in shard-0000000"):
        decode_shards(decoder, [file], tmp_path / "d", nothing)
    assert not (tmp_path / "d").exists()


def test_samples_that_are_no_latents_of_this_decoder_are_refused(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "shard-0.npz"
    write_shard(file, Shard(np.zeros((2, 1, 8, 8), dtype=np.float32), np.zeros(2, dtype=np.int64)))
    decoder = bind_decoder(DecoderSpec(), source, "cpu")
    message = fault(lambda: decode_shards(decoder, [file], tmp_path / "d", nothing))
    assert message == f"{file}: samples are (2, 1, 8, 8), and the cell's decoder takes (n, 4, h, w)"


def test_a_damaged_file_of_pictures_is_named(source: Path, tmp_path: Path) -> None:
    decoder = bind_decoder(DecoderSpec(), source, "cpu")
    made = decode_shards(decoder, shards(tmp_path), tmp_path / "d", nothing)
    whole = made[1].read_bytes()
    made[1].write_bytes(whole[: len(whole) // 2])
    message = fault(lambda: DecodedImages(made, 15))
    assert str(made[1]) in message and "not whole" in message and "delete the file" in message
    made[1].write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    message = fault(lambda: list(DecodedImages(made, 15).batches(4)))
    assert str(made[1]) in message and "damaged" in message and "delete the file" in message
    made[1].unlink()
    assert str(made[1]) in fault(lambda: DecodedImages(made, 15))
    assert "holds 10 images, the protocol asks for 11" in fault(lambda: DecodedImages(made[::2], 11))
    np.savez(made[1], images=np.zeros((5, 8, 8, 3), dtype=np.uint8))
    assert "pictures of (8, 8, 3)" in fault(lambda: DecodedImages(made, 15))


# Figures ----------------------------------------------------------------------------------------------


class Colours:
    """An extractor of four numbers a picture."""

    name, sha256, resize, dims = "colours", "0" * 64, "none", {"features": 4}

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        means = images.float().mean((1, 2))
        return {"features": torch.cat([means.expand(-1, 3), images[:, 0, 0, :1].float()], 1)}


def test_figures_and_preview_are_of_the_decoded_pictures(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    monkeypatch.setattr(evaluate, "build_extractor", lambda chosen, device: Colours())
    reference = _of_images(ArrayImages(noise, "noise"), Colours(), 20, None, None)
    monkeypatch.setattr(evaluate, "load_reference", lambda *given, **named: reference)
    files, folder = shards(tmp_path / "s", 4, 10), tmp_path / "s" / "decoded-0"
    made = decode_shards(bind_decoder(DecoderSpec(), source, "cpu"), files, folder, nothing)
    pictures = np.concatenate(list(DecodedImages(made, 40).batches(40)))
    plain = []
    for number, path in enumerate(files):  # the same pictures as a pixel-space model would leave them
        plain.append(tmp_path / "p" / path.name)
        values = (pictures[10 * number : 10 * number + 10].transpose(0, 3, 1, 2) - 127.5) / 127.5
        write_shard(plain[-1], Shard(values.astype(np.float32), np.arange(10) + number))
    options = QualityOptions(samples=40, shard=10)
    found = score([SeedBlock(0, files, made)], options, None, "cpu")
    assert found.values == score([SeedBlock(0, plain)], options, None, "cpu").values
    assert found.values["frechet"].value > 1
    assert found.detail["preview"] == "samples/s/decoded-0/preview.npz"
    with np.load(tmp_path / "s" / "decoded-0" / "preview.npz") as preview:
        assert np.array_equal(preview["images"], pictures) and preview["labels"][10] == 1
    assert "give the cell a decoder" in fault(lambda: score([SeedBlock(0, files)], options, None, "cpu"))


def test_pairs_are_compared_as_pictures_and_as_latents(source: Path, tmp_path: Path) -> None:
    ours, theirs = shards(tmp_path / "a", 2, 10), shards(tmp_path / "b", 2, 10)
    moved = [latents(10, 4, seed=n).numpy() * np.float32(1.1) for n in range(2)]
    for number, path in enumerate(ours):
        write_shard(path, Shard(moved[number], np.arange(10) + number))
    decoder = bind_decoder(DecoderSpec(), source, "cpu")
    a, b = (decode_shards(decoder, files, files[0].parent / "d", nothing) for files in (ours, theirs))
    found = pair(ours, theirs, 15, None, None, "cpu", a, b)
    assert found.values["latent_error"].value == pytest.approx(0.1, rel=1e-5)
    one, two = (next(DecodedImages(files, 15).batches(15)).astype(float) for files in (a, b))
    expected = 10 * np.log10(255**2 / ((one - two) ** 2).mean((1, 2, 3)))
    assert found.values["psnr"].value == pytest.approx(expected.mean())
    assert found.values["ssim"].value < 1 and found.detail["not_available"] == {}
    bare = pair(ours, theirs, 15, None, None, "cpu")
    assert set(bare.values) == {"latent_error"} and "decoded" in bare.detail["not_available"]["psnr"]
    with pytest.raises(ValueError, match="one side"):
        pair(ours, theirs, 15, None, None, "cpu", a)


def test_exported_are_the_decoded_pictures_and_only_all_of_them(source: Path, tmp_path: Path) -> None:
    record, store = latent_record("quality", {}, {}), RunStore(tmp_path / "run")
    assert record.spec.decoder is not None
    cell = {"name": "a", "spec": record.spec.model_dump(mode="json"), "measurements": {"quality": record.identity}}
    store.write_plan({"suite": "s", "cells": [cell]})
    store.commit(record)
    folder = store.samples_folder(samples_identity(record.spec, 5, "2"))
    files = shards(folder)
    pictures = decoded_folder(folder, record.spec.decoder)
    made = decode_shards(bind_decoder(record.spec.decoder, source, "cpu"), files, pictures, nothing)
    export_samples(store.folder, "a", tmp_path / "a.npz", 12)
    with np.load(tmp_path / "a.npz") as exported:
        assert np.array_equal(exported["arr_0"], next(DecodedImages(made, 12).batches(12)))
    made[2].unlink()
    export_samples(store.folder, "a", tmp_path / "a.npz", 10)
    message = fault(lambda: export_samples(store.folder, "a", tmp_path / "b.npz", 12))
    assert str(made[2]) in message and "not all latents are decoded" in message and not (tmp_path / "b.npz").exists()
