"""The decoder of latents: its weights are read as diffusers saves them, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from decoder_files import BIAS, WEIGHTS, copied, latents, rewritten, with_value
from safetensors.torch import load_file

from ditbench.harness.sample.picture_decoder import bind_decoder
from ditbench.harness.store.records import DecoderSpec
from ditbench.methods.errors import CheckpointError, ConfigError
from ditbench.methods.latent import autoencoder
from ditbench.methods.latent.autoencoder import SD_CONFIG, LatentDecoder, load_decoder, make_autoencoder_files
from ditbench.methods.torchvision_shim import ensure_torchvision_importable

ensure_torchvision_importable()
from diffusers import AutoencoderKL  # noqa: E402

OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_autoencoder_files(tmp_path_factory.mktemp("autoencoder"), seed=1)


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
