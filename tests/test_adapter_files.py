"""Files of adapters: small, bound to one base, and put back to the bit."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from dydit_models import inputs, one_line
from safetensors import safe_open
from safetensors.torch import save_file
from test_flexidit import enlivened

from ditbench import methods
from ditbench.methods.errors import CheckpointError
from ditbench.methods.loading import checkpoint_mismatch
from ditbench.methods.lora.files import Origin, added
from ditbench.methods.training.accounting import accounting
from ditbench.methods.training.recipe import Recipe
from ditbench.methods.training.run import run_recipe
from ditbench.methods.weights import read_state, save_state, sha256_file
from ditbench.methods.zoo import checkpoint, manifest

ADAPTER: dict[str, Any] = {"rank": 2, "experts": 3, "alpha": 1.0}
KINDS: dict[str, dict[str, Any]] = {
    "dit": {"adapter": ADAPTER},
    "dydit": {"adapter": ADAPTER},
    "flexidit": {"adapter": ADAPTER},
    "flexidit-lora": {"adapter": ADAPTER, "recipe": "lora", "size_norm": True},
}
every = pytest.mark.parametrize("kind", KINDS)


def build(kind: str, **changed: Any):
    return methods.build(f"{kind.removesuffix('-lora')}-testing", **{**KINDS[kind], **changed})


@pytest.fixture
def base(tmp_path) -> Path:
    path = tmp_path / "base.safetensors"
    save_state(path, enlivened(methods.build("dit-testing"), 1).state_dict(), {})
    return path


def trained(kind: str, base: Path, rank: bool = True):
    """A model on the base whose added parts are random."""
    static = methods.load_weights(methods.build("dit-testing"), base)
    if kind == "dit":
        model = build("dit")
        model.load_state_dict({**model.state_dict(), **static.state_dict()})
    else:
        options = {"rank": rank} if kind == "dydit" else {}
        model = methods.convert(static, f"{kind.removesuffix('-lora')}-testing", **KINDS[kind], **options)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if model.is_added(name):
                parameter.normal_(0, 0.3, generator=generator)
    return model


def saved(kind: str, base: Path, model, name: str = "base.safetensors", rank: bool = True, half: bool = False) -> Path:
    path = base.parent / "adapters.safetensors"
    origin = Origin.of(model, f"{kind}-testing", name, base, {"rank": rank} if kind == "dydit" else {})
    state = added(model, model.state_dict())
    save_state(path, {k: v.half() if half else v for k, v in state.items()}, {"recipe": {}, **origin.metadata()})
    return path


@torch.no_grad()
@every
@pytest.mark.parametrize("rank", [True, False])
def test_a_file_of_adapters_brings_back_the_whole_model_to_the_bit(kind, rank, base):
    model = trained(kind, base, rank)
    path = saved(kind, base, model, rank=rank)
    loaded = methods.load_weights(build(kind), path)
    state = loaded.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(loaded(*inputs(3)), model(*inputs(3)))
    assert loaded.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    names = set(read_state(path))
    assert names == {name for name in state if loaded.is_added(name)} and not names & set(read_state(base))
    assert path.stat().st_size < base.stat().st_size
    with torch.device("meta"):
        assert checkpoint_mismatch(build(kind), path) is None


@torch.no_grad()
def test_halves_load_into_float32(base):
    model = trained("dydit", base)
    loaded = methods.load_weights(build("dydit"), saved("dydit", base, model, half=True))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    for name, value in added(model, model.state_dict()).items():
        assert torch.equal(loaded.state_dict()[name], value.half().float())


@every
def test_another_base_is_refused_and_the_model_stays_as_it_was(kind, base, tmp_path):
    path = saved(kind, base, trained(kind, base))
    other = tmp_path / "other.safetensors"
    save_state(other, enlivened(methods.build("dit-testing"), 2).state_dict(), {})
    model = build(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"was made on another base: base\.safetensors") as caught:
        methods.load_weights(model, path, other)
    one_line(caught.value)
    shutil.copy(other, base)
    for call in (lambda: methods.load_weights(model, path), lambda: methods.load_weights(model, path, base)):
        with pytest.raises(CheckpointError, match="was made on another base"):
            call()
    with torch.device("meta"):
        assert "was made on another base" in checkpoint_mismatch(build(kind), path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_base_is_found_beside_the_file_given_or_in_the_zoo(base, tmp_path, monkeypatch):
    model = trained("dit", base)
    path = saved("dit", base, model)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    methods.load_weights(build("dit"), path)
    moved = Path(shutil.move(base, tmp_path / "elsewhere" / "moved.safetensors"))
    with pytest.raises(CheckpointError, match="no file: give the base"):
        methods.load_weights(build("dit"), path)
    methods.load_weights(build("dit"), path, moved)
    digits = methods.build("dit-digits", adapter=ADAPTER)
    for name, words in (("zoo:dit-digits", None), ("zoo:dit-digit", "not in the zoo")):
        origin = Origin.of(digits, "dit-digits", name, checkpoint("dit-digits"), {})
        save_state(path, added(digits, digits.state_dict()), origin.metadata())
        if words is None:
            loaded = methods.load_weights(methods.build("dit-digits", adapter=ADAPTER), path)
            static = methods.load_weights(methods.build("dit-digits"), checkpoint("dit-digits"))
            assert torch.equal(loaded(*inputs(2)), static(*inputs(2))), "new adapters do nothing"
            assert origin.base_sha256 == manifest()["dit-digits"]["sha256"]
        else:
            with pytest.raises(CheckpointError, match=words):
                methods.load_weights(digits, path)


@pytest.mark.parametrize(("config", "words"), [
    ({"adapter": None}, ["adapters of dit-testing", "config an adapter"]),
    ({"adapter": {**ADAPTER, "rank": 3}}, ["another shape", "adapters.all"]),
    ({"adapter": {**ADAPTER, "experts": 4}}, ["another shape", "adapters.all"]),
    ({"adapter": {**ADAPTER, "expert_factor": "down"}}, ["another shape"]),
    ({"adapter": {**ADAPTER, "targets": ["mlp.fc1"]}}, ["unknown", "attn.proj.adapters"]),
    ({"adapter": {"rank": 2}}, ["unknown", "router"]),
    ({"adapter": {"rank": 2, "experts": 3}}, ["scaled by 0.5", "by 1"]),
    ({"depth": 3}, ["missing", "blocks.2"]),
    ({"num_classes": 5}, ["base", "y_embedder"]),
], ids=str)  # fmt: skip
def test_a_model_that_the_file_is_not_for_is_told_why(config, words, base):
    path = saved("dit", base, trained("dit", base))
    with torch.device("meta"):
        problem = checkpoint_mismatch(build("dit", **config), path)
    with pytest.raises(CheckpointError) as caught:
        methods.load_weights(build("dit", **config), path)
    assert all(word in problem for word in words), problem
    assert all(word in one_line(caught.value) for word in words), caught.value


def test_tensors_too_many_and_too_few_are_told(base):
    model = trained("dydit", base)
    path = saved("dydit", base, model)
    state = read_state(path)
    gone = state.pop("blocks.0.attn.proj.adapters.all.up")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    for changed, words in ((state, "missing, first blocks.0.attn.proj"), ({**state, "x.up": gone}, "unknown, first x")):
        save_file(changed, path, metadata)
        with pytest.raises(CheckpointError, match=words):
            methods.load_weights(build("dydit"), path)


@pytest.mark.parametrize("text", ["no json", "[]", '{"base": "x"}', json.dumps({"base": 1, "base_sha256": 2,
                                  "method": 3, "options": {}, "scale": 5}),
                                  json.dumps({"base": "x", "base_sha256": "y", "method": "z", "options": [],
                                  "scale": 1.0})])  # fmt: skip
def test_a_broken_origin_is_one_line(text, base):
    path = saved("dit", base, trained("dit", base))
    save_file(read_state(path), path, {"adapter": text})
    with pytest.raises(CheckpointError, match="says of its base") as caught:
        methods.load_weights(build("dit"), path)
    one_line(caught.value)


def test_files_of_all_weights_load_as_ever_and_take_no_base(base):
    model = trained("dit", base)
    whole = base.parent / "whole.safetensors"
    save_state(whole, model.state_dict(), {"recipe": {}})
    loaded = methods.load_weights(build("dit"), whole)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in model.state_dict().items())
    with pytest.raises(CheckpointError, match="give no base"):
        methods.load_weights(build("dit"), whole, base)
    with torch.device("meta"):
        assert checkpoint_mismatch(build("dit"), whole) is None
        assert "missing" in checkpoint_mismatch(build("dit"), base), "a base alone lacks the adapters"
        assert checkpoint_mismatch(methods.build("dit-testing"), base) is None


def test_routers_of_both_formats_come_back(base):
    old = trained("dydit", base)
    old.adopt_format({"blocks.0.attn_rate.router.weight": torch.empty(2, 32)})
    path = saved("dydit", base, old)
    loaded = methods.load_weights(build("dydit"), path)
    assert loaded.blocks[0].attn_rate.router.weight.shape[0] == 2
    assert torch.equal(loaded.state_dict()["blocks.1.mlp_rate.router.weight"], old.blocks[1].mlp_rate.router.weight)


def test_the_digest_of_a_file_with_two_entries_of_metadata_is_always_the_same(tmp_path):
    entries = {key: {"x": "ä"} for key in "gfedcba"}
    state = {"a": torch.arange(5.0), "b": torch.ones(2, 3)}
    digests = {save_state(tmp_path / "x.safetensors", state, entries) for _ in range(10)}
    assert digests == {sha256_file(tmp_path / "x.safetensors")}
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {key: json.dumps(value) for key, value in entries.items()}
    assert all(torch.equal(value, state[name]) for name, value in read_state(tmp_path / "x.safetensors").items())


# Training writes them


def recipe(kind: str, **fields: Any) -> Recipe:
    method = f"{kind.removesuffix('-lora')}-testing"
    sections: dict[str, Any] = {}
    if kind == "dydit":
        sections["dynamic"] = {"target": 0.7, "router_bias": 2.0}
    if kind.startswith("flexidit"):
        objective = "distillation" if kind.endswith("lora") else "denoising"
        sections["flexible"] = {"probabilities": {4: 1.0}, "objective": objective}
    given = {"recipe": "tiny", "method": method, "steps": 3, "batch": 8, "ema": 0.5, "config": KINDS[kind]}
    return Recipe.model_validate({**given, **sections, **fields, "optimizer": {"rate": 1e-2}})


@every
def test_training_on_a_base_writes_what_it_trained_and_nothing_else(kind, base, tmp_path):
    done = run_recipe(recipe(kind, base="../base.safetensors"), tmp_path / "run", base, progress=False)
    model = methods.load_weights(build(kind), done.path)
    names = set(read_state(done.path))
    assert names == {name for name in model.state_dict() if model.is_added(name)}
    model.freeze_base()
    figures = accounting(model)
    assert done.figures["trainable"] == figures.trainable == sum(p.numel() for p in read_state(done.path).values())
    assert done.figures["parameters"] == figures.parameters
    assert done.figures["gradient_bytes"] == 4 * figures.trainable
    assert done.figures["optimizer_bytes"] == 8 * figures.trainable
    assert done.sha256 == model.weights_sha256
    ups = [value for name, value in read_state(done.path).items() if name.endswith(".up")]
    assert all(value.abs().max() > 0 for value in ups), "every update took part"
    static = methods.load_weights(model.static_base(), base)
    if kind == "dydit":
        assert torch.equal(model.pos_embed, static.pos_embed)
        ranked = methods.convert(static, "dydit-testing")
        assert torch.equal(model.blocks[1].mlp.fc1.weight, ranked.blocks[1].mlp.fc1.weight), "on the ranked base"
    else:
        assert torch.equal(model.blocks[1].mlp.fc1.weight, static.blocks[1].mlp.fc1.weight)


def test_training_without_a_base_writes_all(tmp_path):
    done = run_recipe(recipe("dit"), tmp_path, progress=False)
    assert set(read_state(done.path)) == set(build("dit").state_dict())
    methods.load_weights(build("dit"), done.path)


def test_near_ties_of_magnitude_are_ordered_by_all_of_their_digits():
    """Machines sum in other orders; in float32 two near channels could swap, and adapters would sit on wrong ones."""
    from ditbench.methods.dydit.ranking import rank_by_magnitude

    model = methods.build("dit-testing")
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.fc1.weight.fill_(1.0)
            block.mlp.fc2.weight.fill_(1.0)
            block.mlp.fc1.weight[:, 0] = 1 + torch.arange(128) * 2.0**-22
            block.mlp.fc1.bias.copy_(torch.arange(128.0))
    rank_by_magnitude(model)
    assert torch.equal(model.blocks[0].mlp.fc1.bias, torch.arange(127.0, -1, -1)), "all are told apart"
