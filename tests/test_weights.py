"""Checkpoints: what loads, what is refused, and in which words."""

import hashlib
import pickle

import pytest
import torch
from safetensors.torch import save_file

from ditbench import methods
from ditbench.methods.entries import MethodEntry, Registry
from ditbench.methods.errors import CheckpointError, ConfigError
from ditbench.methods.registry import UnknownNameError, names
from ditbench.methods.zoo import checkpoint, manifest


@pytest.fixture
def model():
    torch.manual_seed(0)
    return methods.build("dit-testing")


def other():
    torch.manual_seed(1)
    built = methods.build("dit-testing")
    return {name: value + 0.5 for name, value in built.state_dict().items()}


def test_all_three_kinds_of_file_load_the_same_weights(model, tmp_path):
    state = other()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pt")
    torch.save({"model": model.state_dict(), "ema": state, "opt": {}, "args": None}, tmp_path / "c.pt")
    for name in ("a.safetensors", "b.pt", "c.pt"):
        loaded = methods.load_weights(methods.build("dit-testing"), tmp_path / name)
        assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items()), name
        assert loaded.weights_sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


def test_code_in_a_checkpoint_is_never_run(model, tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").write_text, ("x",))

    torch.save({"weights": Trap()}, tmp_path / "trap.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap()))
    for name in ("trap.pt", "plain.pt"):
        with pytest.raises(CheckpointError):
            methods.load_weights(model, tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_a_mismatch_names_the_first_tensor_of_each_kind(model):
    state = dict(model.state_dict())
    state["blocks.0.attn.qkvv.weight"] = state.pop("blocks.0.attn.qkv.weight")
    state["pos_embed"] = torch.zeros(1, 4, 32)
    with pytest.raises(CheckpointError) as caught:
        methods.load_weights(model, state)
    message = str(caught.value)
    assert "\n" not in message
    assert "first blocks.0.attn.qkv.weight" in message
    assert "blocks.0.attn.qkvv.weight (the model has blocks.0.attn.qkv.weight)" in message
    assert "pos_embed: file [1, 4, 32], model [1, 16, 32]" in message


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", bytes(range(256)) * 8])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_broken_file_is_one_readable_line(model, tmp_path, content, suffix):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        methods.load_weights(model, path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_methods_and_config_keys_get_a_suggestion():
    with pytest.raises(UnknownNameError, match="did you mean 'dit-xl-2'"):
        methods.build("dit-xl2")
    with pytest.raises(ConfigError, match="did you mean 'patch_size'"):
        methods.build("dit-testing", patchsize=4)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"patch_size": 3}, "does not divide input_size"),
        ({"num_heads": 5}, "does not divide hidden_size"),
        ({"depth": 0}, "at least 1"),
        ({"depth": "six"}, "whole number"),
    ],
)
def test_an_impossible_config_says_what_is_wrong(config, words):
    with pytest.raises(ConfigError, match=words):
        methods.build("dit-testing", **config)


def test_a_name_registered_twice_is_an_error():
    registry = Registry("methods", MethodEntry)
    registry.add("a", MethodEntry("x:y", "first"))
    with pytest.raises(ValueError, match="registered twice"):
        registry.add("a", MethodEntry("x:z", "second"))


@pytest.mark.parametrize("name", names())
def test_every_registered_method_builds_without_memory(name):
    with torch.device("meta"):
        model = methods.build(name)
    assert next(model.parameters()).is_meta and not model.training


@pytest.mark.parametrize("name", list(manifest()))
def test_every_shipped_checkpoint_is_the_one_in_the_manifest_and_small(name):
    entry = manifest()[name]
    data = checkpoint(name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    assert len(data) == entry["bytes"] <= 2_500_000
    assert entry["recipe"]["recipe"] == name and entry["figures"]


def test_the_shipped_digits_model_is_recognised_in_at_least_95_of_100_samples():
    assert manifest()["dit-digits"]["figures"]["generation"]["accuracy"] >= 0.95
    assert manifest()["digit-classifier"]["figures"]["held_out_accuracy"] >= 0.97
