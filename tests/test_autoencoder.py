"""Latents become pictures: weights as diffusers saves them, tiles, files that resume, and what decoding costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ditbench.cli.scoring import export_samples
from ditbench.harness.errors import InputError
from ditbench.harness.measure.decode import count_decoder, measure_decode
from ditbench.harness.quality import evaluate
from ditbench.harness.quality.evaluate import SeedBlock, score
from ditbench.harness.quality.images.decoded import DecodedImages
from ditbench.harness.quality.images.quantise import quantise
from ditbench.harness.quality.images.source import ArrayImages
from ditbench.harness.quality.paired import pair
from ditbench.harness.quality.reference import _of_images
from ditbench.harness.sample.decode import PictureDecoder, bind_decoder, decode_shards, decoded_folder, windows
from ditbench.harness.sample.making import NotFiniteError
from ditbench.harness.sample.shards import Shard, write_shard
from ditbench.harness.store.records import CellSpec, DecoderSpec, Provenance, Quantity, Record
from ditbench.harness.store.store import RunStore
from ditbench.harness.suite.identity import samples_identity
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import make_plan
from ditbench.harness.suite.schema import DecodeOptions, QualityOptions
from ditbench.harness.suite.weights import sha256_of
from ditbench.methods.errors import CheckpointError, ConfigError
from ditbench.methods.latent import autoencoder
from ditbench.methods.latent.autoencoder import SD_CONFIG, LatentDecoder, load_decoder, make_autoencoder_files
from ditbench.methods.torchvision_shim import ensure_torchvision_importable
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.decode import decode_table

ensure_torchvision_importable()
from diffusers import AutoencoderKL  # noqa: E402

WEIGHTS = "diffusion_pytorch_model.safetensors"
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_autoencoder_files(tmp_path_factory.mktemp("autoencoder"), seed=1)


def latents(count: int = 2, side: int = 8, width: int | None = None, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 4, side, width or side, generator=torch.Generator().manual_seed(seed))


def copied(source: Path, folder: Path, change: Callable[[dict[str, Any]], object] = lambda config: None) -> Path:
    """The autoencoder's folder again, with ``change`` made to its config."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes((source / WEIGHTS).read_bytes())
    config = json.loads((source / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def rewritten(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS)
    return folder


# Weights ----------------------------------------------------------------------------------------------


def test_pictures_are_those_of_diffusers_own_autoencoder(source: Path) -> None:
    whole = AutoencoderKL.from_pretrained(source, local_files_only=True).eval()
    z = latents(3)
    with torch.no_grad():
        expected = whole.decode(z / 0.18215).sample
    found = bind_decoder(DecoderSpec(batch=2), source, "cpu").decode(z)
    assert found.shape == (3, 3, 64, 64) and found.dtype == torch.float32
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_what_diffusers_saves_is_read_also_in_its_older_format(tmp_path: Path) -> None:
    torch.manual_seed(3)
    whole = AutoencoderKL(**{**SD_CONFIG, "block_out_channels": (8, 8, 16, 16), "norm_num_groups": 8}).eval()
    z = latents()
    with torch.no_grad():
        expected = whole.decode(z).sample
    for name, safe in (("new", True), ("old", False)):
        whole.save_pretrained(tmp_path / name, safe_serialization=safe)
        with torch.no_grad():
            torch.testing.assert_close(load_decoder(tmp_path / name)(z), expected, rtol=0, atol=1e-5)


def test_old_names_of_the_attention_give_the_same_pictures(source: Path, tmp_path: Path) -> None:
    folder = copied(source, tmp_path / "old")

    def rename(state: dict[str, torch.Tensor]) -> None:
        for new, old in OLD.items():
            for kind in ("weight", "bias"):
                for half in ("encoder", "decoder"):
                    place = f"{half}.mid_block.attentions.0."
                    state[f"{place}{old}.{kind}"] = state.pop(f"{place}{new}.{kind}")

    rewritten(folder, rename)
    assert any("proj_attn" in name for name in load_file(folder / WEIGHTS))
    z = latents()
    assert torch.equal(load_decoder(folder)(z), load_decoder(source)(z))


def test_half_precision_weights_become_float32(source: Path, tmp_path: Path) -> None:
    folder = copied(source, tmp_path / "half")
    rewritten(folder, lambda state: state.update({name: value.half() for name, value in state.items()}))
    decoder = load_decoder(folder)
    assert {value.dtype for value in decoder.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(decoder(latents()), load_decoder(source)(latents()), rtol=0, atol=0.05)


def test_the_decoder_of_stable_diffusion_has_its_published_size_and_no_encoder() -> None:
    with torch.device("meta"):
        decoder = LatentDecoder(AutoencoderKL(**SD_CONFIG))
    assert sum(each.numel() for each in decoder.parameters()) == 49_490_199
    assert (decoder.scale_factor, decoder.in_channels) == (8, 4)
    assert {name.split(".")[0] for name in decoder.state_dict()} == {"post_quant_conv", "decoder"}


def test_a_loaded_decoder_is_ready_to_run_and_not_to_train(source: Path) -> None:
    decoder = load_decoder(source)
    assert not decoder.training and not any(each.requires_grad for each in decoder.parameters())


def test_random_weights_follow_the_seed_and_leave_torchs_own_randomness_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = {**SD_CONFIG, "block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4}
    monkeypatch.setattr(autoencoder, "SD_CONFIG", small)
    before = torch.random.get_rng_state()
    first, again, other = (load_decoder(None, seed)(latents()) for seed in (5, 5, 6))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, again) and not torch.equal(first, other)


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda found: found.pop(name)


def with_value(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda found: found.update({name: value})


BIAS = "decoder.conv_out.bias"


@pytest.mark.parametrize(
    ("config", "weights", "message"),
    [
        (None, without(BIAS), f"1 of 176 tensors are missing, first {BIAS}"),
        (None, with_value(BIAS, torch.zeros(4)), "first decoder.conv_out.bias: file [4], model [3]"),
        (None, with_value("decoder.more", torch.zeros(4)), "1 are unknown, first decoder.more"),
        (None, without("encoder.conv_in.bias"), "first encoder.conv_in.bias"),
        (with_value("block_out_channels", [8, 8, 8, 16]), None, "have another shape"),
        (with_value("_class_name", "VQModel"), None, "describes VQModel, not an AutoencoderKL"),
        (without("_class_name"), None, "describes no model of diffusers"),
        (with_value("shift_factor", 0.0609), None, "moved by shift_factor"),
        (with_value("latents_mean", [0.0] * 4), None, "moved by latents_mean"),
        (with_value("novelty", 1), None, "does not know 'novelty'"),
        (with_value("norm_num_groups", 3), None, "no autoencoder can be built from its config.json"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    source: Path, tmp_path: Path, config: Any, weights: Any, message: str
) -> None:
    folder = copied(source, tmp_path / "a", config or (lambda found: None))
    if weights:
        rewritten(folder, weights)
    with pytest.raises(CheckpointError) as caught:
        load_decoder(folder)
    assert message in str(caught.value) and str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_folders_and_files_that_hold_no_autoencoder_are_refused(source: Path, tmp_path: Path) -> None:
    folder = copied(source, tmp_path / "a")
    (folder / WEIGHTS).unlink()
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("{")
    torch.save({"decoder": Path("code")}, folder / "diffusion_pytorch_model.bin")
    for place, message in (
        (folder, "does not unpickle"),
        (tmp_path / "empty", "has no config.json"),
        (tmp_path / "bad", "cannot be read"),
        (tmp_path / "nowhere", "no such file"),
        (source / WEIGHTS, "is not the AutoencoderKL that Stable Diffusion has"),
    ):
        with pytest.raises(CheckpointError) as caught:
            load_decoder(place)
        assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_single_file_is_read_as_stable_diffusions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {**SD_CONFIG, "block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    folder = make_autoencoder_files(tmp_path / "a", seed=2)
    monkeypatch.setattr(autoencoder, "SD_CONFIG", small)
    torch.save(load_file(folder / WEIGHTS), tmp_path / "vae.pt")
    assert torch.equal(load_decoder(tmp_path / "vae.pt")(latents()), load_decoder(folder)(latents()))
    assert torch.equal(load_decoder(folder / WEIGHTS)(latents()), load_decoder(folder)(latents()))


def test_without_diffusers_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(ConfigError, match=r"pip install 'ditbench\[latent\]'"):
        load_decoder(None)


# Tiles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "side"), [(8, 8), (9, 8), (16, 8), (32, 24), (37, 11), (64, 32), (8, 64)])
def test_tiles_cover_the_axis_overlap_by_a_quarter_and_their_weights_add_up_to_one(length: int, side: int) -> None:
    found, size = windows(length, side, 8), min(side, length)
    starts = [start for start, _ in found]
    assert starts[0] == 0 and starts[-1] == length - size
    assert all(second <= first + size - size // 4 for first, second in pairwise(starts))
    total, alone = torch.zeros(length * 8), torch.zeros(length * 8)
    for start, weight in found:
        assert len(weight) == size * 8 and (weight > 0).all()
        total[start * 8 : (start + size) * 8] += weight
        alone[start * 8 : (start + size) * 8] += 1
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)
    for start, weight in found:
        assert (weight[alone[start * 8 : (start + size) * 8] == 1] == 1).all()


def test_a_tile_that_covers_the_latent_changes_nothing(source: Path) -> None:
    z = latents(2, 8, 12)
    whole = bind_decoder(DecoderSpec(), source, "cpu").decode(z)
    for tile in (12, 64):
        assert torch.equal(bind_decoder(DecoderSpec(tile=tile), source, "cpu").decode(z), whole)
    assert not torch.equal(bind_decoder(DecoderSpec(tile=8), source, "cpu").decode(z), whole)


def local_decoder() -> LatentDecoder:
    """A decoder that only enlarges: what tiles give of it must be what the whole gives, seams and all."""

    class Enlarge(torch.nn.Module):
        scale_factor, in_channels = 8, 4

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return z[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3)

    return Enlarge()  # type: ignore[return-value]


@pytest.mark.parametrize("shape", [(16, 16), (9, 30), (24, 8)])
def test_tiles_of_a_decoder_that_looks_at_no_neighbours_are_seamless(shape: tuple[int, int]) -> None:
    z = latents(3, *shape)
    whole = PictureDecoder(local_decoder(), DecoderSpec(), "cpu").decode(z)
    tiled = PictureDecoder(local_decoder(), DecoderSpec(tile=8, batch=2), "cpu").decode(z)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


def test_tiles_stay_near_the_whole_and_the_nearer_the_larger_they_are(source: Path) -> None:
    z = latents(1, 32)
    whole = bind_decoder(DecoderSpec(), source, "cpu").decode(z)
    errors = [(bind_decoder(DecoderSpec(tile=tile), source, "cpu").decode(z) - whole).std() for tile in (24, 16, 8)]
    # norms and attention see one tile only: near, not equal
    assert 0 < errors[0] < 0.1 * whole.std() and errors[0] < errors[1] < errors[2] < 0.6 * whole.std()


def test_between_two_tiles_the_picture_goes_over_in_small_steps() -> None:
    class Numbered(torch.nn.Module):
        """Every call gives pictures of one value: 0, 1, 2, …"""

        scale_factor, in_channels, calls = 8, 4, -1

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return torch.full((len(z), 3, 8 * z.shape[2], 8 * z.shape[3]), float(self.calls))

    decoder = PictureDecoder(Numbered(), DecoderSpec(tile=16), "cpu")  # type: ignore[arg-type]
    line = decoder.decode(latents(1, 16, 28))[0, 0, 0]  # tiles from 0 and from 12: pixels 96 to 128 are in both
    assert (line[:96] == 0).all() and (line[128:] == 1).all()
    steps = line[96:128].diff()
    torch.testing.assert_close(steps, torch.full((31,), 1 / 32), rtol=1e-3, atol=0)
    assert line[96] < 1 / 32 and line[127] > 31 / 32


# Numbers ----------------------------------------------------------------------------------------------


def test_latents_are_divided_by_the_scale_and_decoded_in_calls_of_the_batch() -> None:
    seen: list[torch.Tensor] = []

    class Spy(torch.nn.Module):
        scale_factor, in_channels = 8, 4

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            seen.append(z)
            return z[:, :3]

    z = latents(5)
    decoder = PictureDecoder(Spy(), DecoderSpec(scale=0.5, batch=2, dtype="bfloat16"), "cpu")  # type: ignore[arg-type]
    found = decoder.decode(z.numpy())
    assert [len(each) for each in seen] == [2, 2, 1] and {each.dtype for each in seen} == {torch.bfloat16}
    assert torch.equal(torch.cat(seen), (z / 0.5).bfloat16())
    assert found.dtype == torch.float32 and torch.equal(found, (z / 0.5).bfloat16()[:, :3].float())


def test_the_module_is_cast_to_the_decoders_number_type(source: Path) -> None:
    decoder = bind_decoder(DecoderSpec(dtype="bfloat16"), source, "cpu")
    assert {each.dtype for each in decoder.model.parameters()} == {torch.bfloat16}
    exact = bind_decoder(DecoderSpec(), source, "cpu").decode(latents())
    error = (decoder.decode(latents()) - exact).std()
    assert 0 < error < 0.05 * exact.std()


@pytest.mark.parametrize(("dtype", "expected"), [("float32", [False, False]), ("bfloat16", [True, True])])
def test_float32_is_never_rounded_by_the_device_and_its_settings_are_put_back(dtype: str, expected: list[bool]) -> None:
    places = (torch.backends.cudnn, torch.backends.cuda.matmul)
    seen: list[list[bool]] = []

    class Spy(torch.nn.Module):
        scale_factor, in_channels = 8, 4

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            seen.append([place.allow_tf32 for place in places])
            return z[:, :3]

    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = True
        PictureDecoder(Spy(), DecoderSpec(dtype=dtype), "cpu").decode(latents())  # type: ignore[arg-type]
        assert seen == [expected] and [place.allow_tf32 for place in places] == [True, True]
    finally:
        for place, allowed in zip(places, before, strict=True):
            place.allow_tf32 = allowed


def test_weights_that_changed_since_the_plan_are_refused(source: Path, tmp_path: Path) -> None:
    folder = copied(source, tmp_path / "a")
    spec = DecoderSpec(weights=str(folder), weights_sha256=sha256_of(folder))
    bind_decoder(spec, folder, "cpu")
    rewritten(folder, with_value(BIAS, torch.ones(3)))
    with pytest.raises(CheckpointError, match="changed since the plan"):
        bind_decoder(spec, folder, "cpu")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("decoder: {}, measure: [decode]", "decoder: dit-digits makes pictures of 1 channel, not latents"),
        (
            "config: {in_channels: 4}, decoder: {}, measure: [decode, quality]",
            "quality of pictures by a random decoder",
        ),
        ("config: {in_channels: 4}, decoder: {}, measure: [paired]", "paired of pictures by a random decoder"),
    ],
)
def test_a_suite_that_decodes_for_nothing_is_refused(tmp_path: Path, cell: str, message: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        f"suite: s\ncells:\n  - {{method: dit-digits, weights: 'zoo:dit-digits', dataset: digits, {cell}}}\n"
    )
    found = fault(lambda: make_plan(load_suite(str(file))))
    assert message in found and found.startswith(f"{file}:3:")


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


def fault(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


def latent_record(measurement: str, values: dict[str, Quantity], detail: dict[str, Any], cell: str = "a") -> Record:
    return Record(
        identity=f"{measurement}-{cell}",
        suite="s",
        spec=CellSpec(cell=cell, method="dit-s-2", sampler="ddim", steps=2, decoder=DecoderSpec(tile=32)),
        measurement=measurement,
        options={"samples": 15, "shard": 5},
        status="ok",
        values=values,
        detail=detail,
        provenance=Provenance(
            command="",
            started="2026-01-01T00:00:00Z",
            seconds=1.0,
            seed=0,
            device="cpu",
            device_name="CPU",
            threads=1,
            versions={"torch": "2"},
            git=None,
            weights_sha256=None,
        ),
    )


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


# Costs ------------------------------------------------------------------------------------------------


def macs_by_hand(channels: tuple[int, ...], layers: int, side: int) -> dict[str, int]:
    """The decoder's layers one by one; a norm counts 5 an element, enlarging 1 a pixel."""
    *_, last = channels
    pixels = side * side
    conv, norm, larger = 16 * pixels + 9 * 4 * last * pixels, 0, 0

    def residual(here: int, there: int) -> None:
        nonlocal conv, norm
        conv += pixels * (9 * here * there + 9 * there * there + (here * there if here != there else 0))
        norm += 5 * pixels * (here + there)

    residual(last, last)
    linear, attention = 4 * last * last * pixels, 2 * last * pixels**2
    norm += 5 * pixels * last
    residual(last, last)
    here = last
    for place, there in enumerate(reversed(channels)):
        for _ in range(layers + 1):
            residual(here, there)
            here = there
        if place + 1 < len(channels):
            pixels *= 4
            larger += pixels * here
            conv += 9 * here * here * pixels
    norm += 5 * pixels * here
    conv += 9 * here * 3 * pixels
    return {
        "conv": conv,
        "group_norm": norm,
        "linear": linear,
        "attention": attention,
        "upsample_nearest2d": larger,
    }


def test_macs_are_those_of_the_layers_one_by_one(tmp_path: Path) -> None:
    channels = (4, 8, 8, 16)
    folder = make_autoencoder_files(tmp_path, 0, channels)
    assert dict(count_decoder(bind_decoder(DecoderSpec(), folder, "cpu"), 8)) == macs_by_hand(channels, 1, 8)


def test_tiles_are_counted_whole(source: Path) -> None:
    one = macs_by_hand((8, 8, 8, 8), 1, 8)
    assert dict(count_decoder(bind_decoder(DecoderSpec(tile=64), source, "cpu"), 8)) == one
    tiled = count_decoder(bind_decoder(DecoderSpec(tile=8), source, "cpu"), 16)
    assert dict(tiled) == {name: 9 * value for name, value in one.items()}


def test_the_measurement_agrees_with_itself(source: Path) -> None:
    spec = CellSpec(cell="a", method="dit-s-2", sampler="ddim", steps=2, decoder=DecoderSpec(batch=2))
    options = DecodeOptions(batch=4, rounds=6, warmup_s=0.0, budget_s=0.3, precision=0.5)
    result = measure_decode(spec, source, options, 4)
    values, detail = result.values, result.detail
    assert values["decode_ms"].value == pytest.approx(detail["median_ms"] / 4)
    assert values["decode_ms"].value * values["decode_images_per_s"].value == pytest.approx(1000)
    low, high = values["decode_ms"].low, values["decode_ms"].high
    assert low is not None and high is not None and low <= values["decode_ms"].value <= high
    assert values["decode_images_per_s"].low == pytest.approx(1000 / high)
    assert values["decode_gmacs"].value == pytest.approx(sum(macs_by_hand((8, 8, 8, 8), 1, 4).values()) / 1e9)
    assert values["decoder_params"].value == sum(each.numel() for each in load_decoder(source).parameters())
    assert values["decode_peak_mib"].value == pytest.approx(detail["weights_mib"] + detail["activations_mib"])
    # pictures of the whole batch, 4 x 3 x 32 x 32 float32, are held at once
    assert detail["activations_mib"] > 4 * 3 * 32 * 32 * 4 / 2**20
    assert (detail["batch"], detail["call"], detail["picture"], detail["cost_only"]) == (4, 2, 32, False)


def test_a_decoder_that_gives_nan_is_not_timed(source: Path, tmp_path: Path) -> None:
    folder = rewritten(copied(source, tmp_path / "nan"), with_value(BIAS, torch.full((3,), torch.nan)))
    spec = CellSpec(cell="a", method="dit-s-2", sampler="ddim", steps=2, decoder=DecoderSpec())
    with pytest.raises(NotFiniteError, match="decoder's pictures"):
        measure_decode(spec, folder, DecodeOptions(batch=1, warmup_s=0.0, budget_s=0.1), 4)


def number(value: float, unit: str) -> Quantity:
    return Quantity(value=value, unit=unit, interval="")


def test_the_reports_table_sets_the_decoder_beside_the_loop(tmp_path: Path) -> None:
    values = {"decode_ms": number(25.0, "ms"), "decode_gmacs": number(312.5, "GMAC")}
    detail = {"batch": 8, "picture": 256, "tile": 32, "tiles": 1, "dtype": "float32", "cost_only": True}
    loop = latent_record("latency", {"image_ms": number(75.0, "ms")}, {"batch": 4})
    timed = {"latency": loop, "decode": latent_record("decode", values, detail)}
    alone = {"decode": latent_record("decode", values, {**detail, "tiles": 9, "cost_only": False}, "b")}
    rows = [Row(cell, loop.spec, tuple(each), each) for cell, each in {"a": timed, "b": alone}.items()]
    bare = Row("c", loop.spec, ("latency",), {"latency": loop})
    view = RunView(tmp_path, "s", "", "", "", None, (*rows, bare))
    table = decode_table(view)
    assert table is not None
    columns = {column.key: column for column in table.columns}
    assert [value.raw for value in columns["cell"].values] == ["a", "b"], "a cell without a decoder has no row"
    assert [value.shown for value in columns["share"].values] == ["25.0", ""]
    assert columns["decode_ms"].values[0].raw == 25.0 and columns["decode_gmacs"].values[0].raw == 312.5
    assert "decode_peak_mib" not in columns, "nobody measured it here"
    tags = [value.tag for value in columns["cell"].values]
    assert "random decoder" in tags[0] and "tiles" not in tags[0]
    assert "tiles of 32" in tags[1] and "random" not in tags[1]
    assert "different batches" in table.notes[0]
    assert decode_table(RunView(tmp_path, "s", "", "", "", None, (bare,))) is None
