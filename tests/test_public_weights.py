"""Public checkpoints: what asset:NAME finds, what is trusted, what loads, and what is refused in which words."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ditbench import methods
from ditbench.cli.fit import compared
from ditbench.harness.assets import KNOWN, digests, status
from ditbench.harness.assets.locations import asset_config, sha256_of, verify_weights, weights_digest, weights_path
from ditbench.harness.errors import InputError, MissingFileError
from ditbench.harness.sample.generate import checkpoint_problem
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import make_plan
from ditbench.methods import weights as reading
from ditbench.methods.errors import CheckpointError
from ditbench.methods.loading import checkpoint_mismatch, load_into
from ditbench.methods.recognise import described, fits
from ditbench.methods.weights import randomise, read_shapes, read_state

DIGEST = "ab" * 32
SMALL = {"depth": 2, "hidden_size": 32, "num_heads": 2}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, which has the configuration, and an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DITBENCH_CONFIG", raising=False)
    return tmp_path


def configure(name: str, path: Path | str, digest: str | None = None, config: str = "") -> None:
    pinned = f'sha256 = "{digest}"\n' if digest else ""
    shape = f'[assets."{name}".config]\n{config}\n' if config else ""
    Path("ditbench.toml").write_text(f"[assets.\"{name}\"]\npath = '{path}'\n{pinned}{shape}")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# asset:NAME -------------------------------------------------------------------------------------------


def test_an_asset_is_the_file_that_the_configuration_names(folder: Path) -> None:
    Path("a.pt").write_bytes(b"weights")
    configure("dydit-xl-2-0.7", "a.pt")
    assert weights_path("asset:dydit-xl-2-0.7") == folder / "a.pt"
    assert weights_digest("asset:dydit-xl-2-0.7") == sha256(b"weights") == weights_digest(str(folder / "a.pt"))


def test_what_is_missing_is_told_with_its_address_and_the_lines_to_write() -> None:
    with pytest.raises(MissingFileError) as caught:
        weights_path("asset:dydit-xl-2-0.7")
    message = str(caught.value)
    assert "\n" not in message and "new_dydit0.7.pt (https://huggingface.co/heisejiasuo/DyDiT" in message
    assert 'add two lines to ditbench.toml: [assets."dydit-xl-2-0.7"] and path = "new_dydit0.7.pt"' in message
    configure("dydit-xl-2-0.7", "gone.pt")
    with pytest.raises(MissingFileError, match=r"ditbench\.toml:1:9: .*gone\.pt cannot be read: No such file"):
        weights_path("asset:dydit-xl-2-0.7")


def test_a_slip_and_a_file_of_another_role_are_faults_that_no_plan_waits_for() -> None:
    Path("a").mkdir()
    Path("a/x").write_bytes(b"1")
    configure("sd-vae-ft-ema", "a")
    assert weights_path("asset:sd-vae-ft-ema", folder=True) == Path("a").absolute()
    for name, as_decoder, words in (
        ("asset:dit-xl2-256", False, "did you mean 'dit-xl-2-256'?"),
        ("asset:inception-2015", False, "is not the weights of a model"),
        ("asset:sd-vae-ft-ema", False, "is not the weights of a model"),
        ("asset:dit-xl-2-256", True, "is not the weights of an autoencoder"),
    ):
        with pytest.raises(InputError, match=words.replace("?", r"\?")) as caught:
            weights_path(name, folder=as_decoder)
        assert not isinstance(caught.value, MissingFileError)
    configure("dit-xl-2-256", "a")
    with pytest.raises(InputError, match="is a folder, not a file"):
        weights_path("asset:dit-xl-2-256")


def test_a_declared_digest_is_trusted_by_plans_and_checked_before_a_run() -> None:
    Path("a.pt").write_bytes(b"weights")
    configure("dit-xl-2-256", "a.pt", DIGEST)
    assert weights_digest("asset:dit-xl-2-256") == DIGEST
    with pytest.raises(InputError, match=rf"begins with {sha256(b'weights')[:8]}, but .* begins with abababab"):
        verify_weights("asset:dit-xl-2-256")
    configure("dit-xl-2-256", "a.pt", sha256(b"weights"))
    verify_weights("asset:dit-xl-2-256")


def test_weights_without_a_digest_are_taken_and_doctor_shows_theirs() -> None:
    Path("a.pt").write_bytes(b"weights")
    configure("dit-xl-2-256", "a.pt")
    verify_weights("asset:dit-xl-2-256")
    (found,) = [each for each in status() if each.name == "dit-xl-2-256"]
    assert (found.state, found.digest, found.faulty) == ("unpinned", sha256(b"weights"), False)


def test_a_folder_of_weights_has_the_digest_that_doctor_shows() -> None:
    Path("vae").mkdir()
    Path("vae/config.json").write_bytes(b"{}")
    configure("sd-vae-ft-ema", "vae")
    expected = sha256(f"{sha256(b'{}')}  config.json\n".encode())
    assert weights_digest("asset:sd-vae-ft-ema", folder=True) == sha256_of(Path("vae").absolute()) == expected


# Digests that are kept --------------------------------------------------------------------------------


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is large enough to be kept and settled, in a process that has read nothing yet."""
    monkeypatch.setattr(digests, "KEPT_BYTES", 4)
    monkeypatch.setattr(digests, "_SETTLED_NS", -1)
    monkeypatch.setattr(digests, "_digests", {})
    Path("large").write_bytes(b"large file")
    return Path("large").absolute()


def forget() -> None:
    digests._digests.clear()


def test_a_large_file_is_read_once_also_by_the_next_process(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sha256_of(large) == sha256(b"large file")
    forget()
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", None)
        assert sha256_of(large) == sha256(b"large file")
    # as cp -p does: same place, size and modification time
    before = large.stat()
    time.sleep(0.02)
    large.write_bytes(b"LARGE FILE")
    os.utime(large, ns=(before.st_atime_ns, before.st_mtime_ns))
    forget()
    assert sha256_of(large) == sha256(b"LARGE FILE")


def test_a_file_that_has_just_changed_is_not_kept(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_SETTLED_NS", 2_000_000_000)
    sha256_of(large)
    assert not digests.cache_file().exists()


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b"[1]", b'[{"path": "x"}]', b"\xff", b'{"a": {"sha256": 1}}'])
def test_a_damaged_cache_is_no_cache(large: Path, content: bytes) -> None:
    digests.cache_file().parent.mkdir(parents=True)
    digests.cache_file().write_bytes(content)
    assert sha256_of(large) == sha256(b"large file")
    assert [row["path"] for row in json.loads(digests.cache_file().read_text())] == [str(large)]


def test_what_is_gone_leaves_the_cache_and_a_cache_that_cannot_be_written_stops_nothing(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256_of(large)
    large.unlink()
    other = Path("other").absolute()
    other.write_bytes(b"other file")
    sha256_of(other)
    assert [row["path"] for row in json.loads(digests.cache_file().read_text())] == [str(other)]
    monkeypatch.setenv("XDG_CACHE_HOME", str(other))
    forget()
    assert sha256_of(other) == sha256(b"other file")


# The shape of stand-ins -------------------------------------------------------------------------------

SUITE = """
suite: s
cells:
  - {name: own, method: dit-xl-2, weights: "asset:dit-xl-2-256", variant: mine, config: {depth: 3},
     published: [dit-readme/xl-2]}
  - {name: other, method: dit-xl-2}
"""


def test_the_shape_of_a_stand_in_goes_under_the_cells_own_config_and_shows() -> None:
    Path("s.yaml").write_text(SUITE)
    Path("a.pt").write_bytes(b"weights")
    configure("dit-xl-2-256", "a.pt", DIGEST, "depth = 2\nhidden_size = 32")
    assert asset_config("asset:dit-xl-2-256") == {"depth": 2, "hidden_size": 32}
    assert asset_config("zoo:x") == asset_config(None) == asset_config("asset:dit-s-2-256") == {}
    own, other = (cell.spec for cell in make_plan(load_suite("s.yaml")).cells)
    assert (own.config, own.variant, own.weights_sha256) == ({"depth": 3, "hidden_size": 32}, "mine (stand-in)", DIGEST)
    assert own.published == (), "what is printed of the real model is not set beside a stand-in"
    assert (other.config, other.variant) == ({}, "")
    configure("dit-xl-2-256", "a.pt", DIGEST)
    (real, _) = (cell.spec for cell in make_plan(load_suite("s.yaml")).cells)
    assert (real.config, real.variant, real.published) == ({"depth": 3}, "mine", ("dit-readme/xl-2",))


def test_a_decoder_is_looked_for_beside_the_suite_that_names_it(folder: Path) -> None:
    cells = 'cells: [{decoder: vae}, {name: swept, matrix: {decoder: [vae, "asset:sd-vae-ft-ema"], steps: [1]}}]'
    Path("suites").mkdir()
    Path("suites/s.yaml").write_text(f"suite: s\ndefaults: {{method: dit-s-2, decoder: {{weights: ../else}}}}\n{cells}")
    suite = load_suite("suites/s.yaml").suite
    assert suite.cells[0].decoder is not None and suite.cells[0].decoder.weights == str(folder / "suites/vae")
    assert suite.defaults.decoder is not None and suite.defaults.decoder.weights == str(folder / "suites/../else")
    assert suite.cells[1].matrix is not None
    assert suite.cells[1].matrix["decoder"] == [str(folder / "suites/vae"), "asset:sd-vae-ft-ema"]


def test_a_suite_of_tf32_moved_to_the_cpu_is_one_of_float32() -> None:
    Path("s.yaml").write_text("suite: s\ncells: [{method: dit-s-2, device: cuda, dtype: tf32}]\n")
    assert make_plan(load_suite("s.yaml")).cells[0].spec.dtype == "tf32"
    assert make_plan(load_suite("s.yaml"), device="cpu").cells[0].spec.dtype == "float32"


# Reading ----------------------------------------------------------------------------------------------


def small(method: str, seed: int = 0, **config: object) -> torch.nn.Module:
    model = methods.build(method, **{**SMALL, **config})
    randomise(model, seed)
    return model


def training(model: torch.nn.Module, **more: object) -> dict[str, object]:
    """A checkpoint as DiT's training script writes it."""
    started = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    arguments = argparse.Namespace(model="DiT-XL/2", lr=1e-4, warmup=False, data_path=None, betas=[0.9, 0.999])
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 4, 32, 32), torch.zeros(1), torch.zeros(1, dtype=torch.long)).sum().backward()
    optimiser.step()
    return {"model": started, "ema": model.state_dict(), "opt": optimiser.state_dict(), "args": arguments, **more}


def same(model: torch.nn.Module, other: torch.nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("always_on", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_both_releases_of_dydit_load_from_training_checkpoints_with_their_arguments(
    always_on: bool, zipped: bool
) -> None:
    public = small("dydit-xl-2", always_on=always_on)
    torch.save(training(public), "x.pt", _use_new_zipfile_serialization=zipped)
    rows = public.state_dict()["blocks.0.attn_rate.router.weight"].shape[0]
    assert rows == (1 if always_on else 2)
    with torch.device("meta"):
        blank = methods.build("dydit-xl-2", **SMALL)
    assert checkpoint_mismatch(blank, "x.pt") is None
    loaded = load_into(methods.build("dydit-xl-2", **SMALL), "x.pt")
    assert same(loaded, public)
    x, t, y = torch.randn(2, 4, 32, 32), torch.tensor([10, 900]), torch.tensor([0, 1000])
    with torch.no_grad():
        assert torch.equal(loaded(x, t, y), public(x, t, y))


def test_nothing_but_plain_arguments_is_unpickled_and_what_is_in_the_way_is_named() -> None:
    torch.save(training(small("dit-xl-2"), best=np.float64(2.27)), "x.pt")
    with pytest.raises(
        CheckpointError, match=r"objects other than tensors \(numpy\.\S+.*save its state dict"
    ) as caught:
        read_state("x.pt")
    assert "Namespace" not in str(caught.value)

    class Trap(argparse.Namespace):
        def __reduce__(self) -> object:
            return (Path("sprung").write_text, ("x",))

    torch.save({"ema": small("dit-xl-2").state_dict(), "args": Trap()}, "trap.pt")
    with pytest.raises(CheckpointError):
        read_state("trap.pt")
    assert not Path("sprung").exists()


def test_keys_are_checked_without_reading_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("dit-xl-2")
    save_file(model.state_dict(), "x.safetensors")
    torch.save(training(model), "x.pt")
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    data = bytearray(Path("x.safetensors").read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    Path("holes.safetensors").write_bytes(data[:start])
    os.truncate("holes.safetensors", len(data))  # the numbers are a hole in the file
    for name in ("x.safetensors", "holes.safetensors", "x.pt"):
        assert {key: value.shape for key, value in read_shapes(name).items()} == expected
    seen: list[bool] = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **named: seen.append(named["mmap"]) or load(*args, **named))
    read_shapes("x.pt")
    assert seen == [True], "a zipped file is mapped, not read"


BAD = {
    "empty.pt": (b"", "the file is empty"),
    "cut.pt": (b"PK\x03\x04" + bytes(100), "cut short"),
    "page.pt": (b"<!DOCTYPE html><html>", "a web page, not a checkpoint"),
    "pointer.pt": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "a pointer of Git LFS"),
    "text.pt": (b"hello", "not a readable checkpoint"),
    "text.safetensors": (b"hello", "not a safetensors file"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_a_failed_download_leaves_is_named(name: str) -> None:
    content, words = BAD[name]
    Path(name).write_bytes(content)
    for read in (read_state, read_shapes):
        with pytest.raises(CheckpointError, match=words) as caught:
            read(name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["x.pt", "old.pt", "x.safetensors"])
def test_a_truncated_checkpoint_is_one_line_wherever_it_ends(kind: str, share: float) -> None:
    state = small("dit-xl-2").state_dict()
    if kind == "x.safetensors":
        save_file(state, kind)
    else:
        torch.save(state, kind, _use_new_zipfile_serialization=kind == "x.pt")
    os.truncate(kind, int(Path(kind).stat().st_size * share))
    with pytest.raises(CheckpointError, match=kind) as caught:
        read_shapes(kind)
    assert "\n" not in str(caught.value)


def test_a_folder_and_a_file_without_permission_are_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("folder.pt").mkdir()
    with pytest.raises(CheckpointError, match=r"folder\.pt: this is a folder"):
        read_state("folder.pt")
    Path("locked.pt").write_bytes(b"x")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # tests may run as root, whom no mode stops
    with pytest.raises(CheckpointError, match=r"locked\.pt: cannot be read: Permission denied"):
        read_state("locked.pt")


# Another model's checkpoint ---------------------------------------------------------------------------


def on_meta(method: str, **config: object) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return methods.build(method, **config).state_dict()


def test_a_checkpoint_tells_which_presets_it_fits() -> None:
    assert fits(on_meta("dit-b-2")) == [("dit-b-2", {}), ("sit-b-2", {})]
    assert fits(on_meta("dit-s-4", input_size=64)) == [(name, {"input_size": 64}) for name in ("dit-s-4", "sit-s-4")]
    for always_on in (True, False):
        assert fits(on_meta("dydit-s-2", always_on=always_on)) == [("dydit-s-2", {}), ("dysit-s-2", {})]
    assert fits(on_meta("dit-xl-2", **SMALL)) == []
    assert fits({"a": torch.zeros(1)}) == fits({"pos_embed": torch.zeros(())}) == []


def test_another_models_checkpoint_is_refused_with_the_method_that_it_fits() -> None:
    assert described(on_meta("dit-b-2", input_size=64)) == (
        "it holds 132 tensors of width 768, depth 12, and would fit dit-b-2 or sit-b-2 with config input_size: 64"
    )
    assert "would fit no method of this size" in described(on_meta("dit-xl-2", **SMALL))
    assert "names of diffusers" in described({"transformer_blocks.0.attn1.to_q.weight": torch.zeros(1)})
    state = methods.build("dit-digits").state_dict()
    save_file(state, "digits.safetensors")
    with torch.device("meta"):
        model = methods.build("dit-xl-2")
    problem = checkpoint_mismatch(model, "digits.safetensors")
    assert problem is not None and "\n" not in problem
    assert problem.endswith(f"it holds {len(state)} tensors of width 96, depth 6, and would fit dit-digits")


def test_a_run_is_refused_with_that_line(folder: Path) -> None:
    Path("s.yaml").write_text(SUITE)
    save_file(methods.build("dit-digits").state_dict(), "digits.safetensors")
    configure("dit-xl-2-256", "digits.safetensors")
    spec = make_plan(load_suite("s.yaml"), only="own").cells[0].spec
    found = checkpoint_problem(spec, weights_path(str(spec.weights)))
    assert found is not None and found.field == "weights" and "would fit dit-digits" in found.message


# doctor -----------------------------------------------------------------------------------------------


def doctor_says(name: str) -> tuple[str, str]:
    (found,) = [compared(each) for each in status() if each.name == name]
    return found.state, found.hint


def test_doctor_tells_whether_weights_are_the_models() -> None:
    shape = "".join(f"{key} = {value}\n" for key, value in SMALL.items())
    torch.save(small("dit-xl-2").state_dict(), "small.pt")
    configure("dit-xl-2-256", "small.pt", sha256(Path("small.pt").read_bytes()), shape)
    state, hint = doctor_says("dit-xl-2-256")
    assert state == "present"
    assert hint.startswith("fits dit-xl-2 depth=2 hidden_size=32 num_heads=2; a stand-in")
    configure("dit-xl-2-256", "small.pt")
    state, hint = doctor_says("dit-xl-2-256")
    assert state == "wrong" and hint.startswith("does not fit dit-xl-2: ")
    configure("dit-xl-2-256", "small.pt", config="depht = 2")
    assert doctor_says("dit-xl-2-256")[0] == "wrong" and "did you mean 'depth'" in doctor_says("dit-xl-2-256")[1]
    Path("small.pt").write_bytes(b"PK\x03\x04")
    configure("dit-xl-2-256", "small.pt")
    assert doctor_says("dit-xl-2-256")[0] == "wrong" and "cut short" in doctor_says("dit-xl-2-256")[1]
    Path("small.pt").write_bytes(b"of before zip")
    assert doctor_says("dit-xl-2-256")[0] == "unpinned", "such a file would have to be read in full"


@pytest.mark.parametrize("name", [known.name for known in KNOWN.values() if known.method])
def test_every_known_checkpoint_names_a_method_that_builds(name: str) -> None:
    known = KNOWN[name]
    state = on_meta(known.method, **known.config)
    tokens = (512 if "512" in name else 256) // 16
    assert state["pos_embed"].shape[1] == tokens**2
    assert (known.method, dict(known.config)) in fits(state)
    assert reading.is_mapped("x.safetensors") and not reading.is_mapped("nowhere.pt")
