"""A distribution of its own trains, converts, adapts and ships its models by the calls that ours are used by."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from ditbench import methods
from ditbench.cli import app
from ditbench.harness.assets.locations import verify_weights, weights_path
from ditbench.harness.errors import InputError
from ditbench.harness.measure.flops import WorkCounter
from ditbench.harness.measure.options import TrainingOptions
from ditbench.harness.measure.training import Trainee, measure_training, step_call
from ditbench.harness.store.records import CellSpec
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import make_plan
from ditbench.methods import registry
from ditbench.methods.errors import CheckpointError, ConfigError
from ditbench.methods.loading import checkpoint_mismatch
from ditbench.methods.recognise import fits
from ditbench.methods.training.accounting import full_accounting
from ditbench.methods.training.loop import Training
from ditbench.methods.training.recipe import Recipe
from ditbench.methods.training.run import adaptation_of, run_recipe
from ditbench.methods.weights import read_state, sha256_file

PLUGIN = Path(__file__).parent / "plugin_trained"
RECIPES = PLUGIN / "ditbench_tiny" / "recipes"
SHIPPED = "zoo:ditbench-tiny/tiny"
LORA = {"rank": 2, "alpha": 1.0}
KINDS: dict[str, dict[str, Any]] = {
    "static": {"method": "tiny", "config": {"adapter": LORA}},
    "by timestep": {"method": "tiny", "config": {"adapter": {**LORA, "experts": 3}}},
    "one layer": {"method": "tiny", "config": {"adapter": {**LORA, "targets": ["outer"]}}},
    "dynamic": {"method": "ditbench-tiny/narrow", "config": {"adapter": LORA}, "options": {"cut": 300}},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The distribution is installed: its metadata and package are on the path. Returns a copy that may be changed."""
    return installed(PLUGIN, monkeypatch)


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "ditbench_tiny"]:
        monkeypatch.delitem(sys.modules, name)
    registry.methods.cache_clear()
    return folder


@pytest.fixture(autouse=True, scope="module")
def leave_nothing():
    yield
    registry.methods.cache_clear()


def recipe(**fields: Any) -> Recipe:
    given = {"recipe": "r", "method": "tiny", "steps": 4, "batch": 16, "ema": 0.0, "optimizer": {"rate": 1e-2}}
    return Recipe.model_validate({**given, **fields})


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 1, 8, 8, generator=generator), torch.tensor([10.0, 400.0, 990.0]), torch.tensor([1, 2, 10])


def static() -> torch.nn.Module:
    return methods.load_weights(methods.build("tiny"), weights_path(SHIPPED))


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert text and "\n" not in text
    return text


# Weights that a distribution ships


def test_shipped_weights_are_found_by_distribution_and_name_and_are_what_the_entry_says(tmp_path):
    assert weights_path(SHIPPED) == PLUGIN / "ditbench_tiny" / "weights" / "tiny.safetensors"
    verify_weights(SHIPPED)
    suite = tmp_path / "s.yaml"
    suite.write_text(f"suite: s\ncells:\n  - {{method: tiny, weights: '{SHIPPED}', measure: [flops]}}\n")
    (cell,) = make_plan(load_suite(suite)).cells
    assert cell.spec.weights_sha256 == sha256_file(weights_path(SHIPPED))


def test_shipped_weights_that_are_no_longer_those_of_the_entry_are_refused(tmp_path, monkeypatch):
    shutil.copytree(PLUGIN, tmp_path / "changed")
    place = installed(tmp_path / "changed", monkeypatch) / "ditbench_tiny" / "weights" / "tiny.safetensors"
    place.write_bytes(place.read_bytes() + b" ")
    assert weights_path(SHIPPED) == place
    with pytest.raises(InputError, match="SHA-256") as caught:
        verify_weights(SHIPPED)
    assert SHIPPED in one_line(caught)
    done = CliRunner().invoke(app, ["train", str(RECIPES / "narrow.yaml"), "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, InputError) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "words"), [
    ("zoo:ditbench-tiny/tyny", "did you mean 'tiny'"),
    ("zoo:ditbench-tin/tiny", "did you mean 'ditbench-tiny'"),
    ("zoo:ditbench-tiny/absent", "absent.safetensors is no file"),
    ("zoo:digits-dit", "did you mean"),
])  # fmt: skip
def test_weights_that_nobody_ships_are_one_line(name, words):
    with pytest.raises(InputError, match=words) as caught:
        weights_path(name)
    one_line(caught)


def test_telling_what_a_checkpoint_fits_imports_no_plugin_and_stops_at_none():
    with torch.device("meta"):
        state = methods.build("dit-s-8").state_dict()
    assert ("dit-s-8", {}) in fits(state)
    assert not [name for name in sys.modules if name.startswith("ditbench_tiny")]


def test_weights_of_another_shape_are_refused_without_words_on_models_that_they_have_nothing_to_do_with():
    told = checkpoint_mismatch(methods.build("tiny", width=8), weights_path(SHIPPED))
    assert told is not None and "another shape" in told and "DiT" not in told
    assert checkpoint_mismatch(methods.build("tiny"), weights_path(SHIPPED)) is None


# Conversion


@torch.no_grad()
def test_a_static_model_becomes_its_own_dynamic_one_and_computes_the_same():
    base = static()
    narrow = methods.convert(base, "ditbench-tiny/narrow")
    assert not torch.equal(narrow.inner.weight, base.inner.weight), "its channels have another order"
    assert torch.allclose(narrow(*batch()), base(*batch()), atol=1e-5)
    kept = methods.convert(base, "narrow", order=False)
    assert torch.equal(kept(*batch()), base(*batch()))
    with pytest.raises(ConfigError, match="width is 16 in the model and 8"):
        methods.convert(base, "narrow", width=8)


@pytest.mark.parametrize("name", ["tiny", "dydit-testing", "flexidit-testing"])
def test_a_model_becomes_nothing_that_is_made_from_another(name):
    with pytest.raises(ConfigError) as caught:
        methods.convert(static(), name)
    assert name in one_line(caught) or "Tiny" in str(caught.value)


# Its own objective


def test_a_recipe_is_trained_from_its_path_on_shipped_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("ditbench.cli.training._generation_figures", lambda *_: {})
    done = CliRunner().invoke(app, ["train", str(RECIPES / "narrow.yaml"), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "entry.json").read_text())["recipe"]["options"] == {"cut": 600, "every": 2}
    model = methods.load_weights(methods.build("narrow"), tmp_path / "narrow.safetensors")
    assert [len(plan.choices) for plan in model.plan([100.0, 900.0])] == [1, 1]
    assert [plan.choices[0].kept for plan in model.plan([599.0, 600.0])] == [16, 8]
    start = methods.convert(static(), "narrow").state_dict()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, start[name])}
    assert {"inner.weight", "outer.weight", "labels.weight", "cut"} <= moved
    assert all((model.state_dict()[name] - start[name]).abs().max() < 0.1 for name in moved - {"cut"}), "began there"


def test_every_option_of_an_objective_reaches_training(tmp_path):
    def trained(name: str, **options: Any) -> dict[str, torch.Tensor]:
        made = recipe(method="narrow", base=SHIPPED, options=options)
        return read_state(run_recipe(made, tmp_path / name, weights_path(SHIPPED), progress=False).path)

    plain = trained("plain")
    assert all(torch.equal(value, plain[name]) for name, value in trained("again").items())
    for name, options in {"cut": {"cut": 7}, "every": {"every": 2}, "order": {"order": False}}.items():
        assert any(not torch.equal(value, plain[key]) for key, value in trained(name, **options).items()), name


@pytest.mark.parametrize(("fields", "words"), [
    ({"method": "narrow", "options": {"cat": 1}}, "did you mean 'cut'"),
    ({"method": "narrow", "options": {"cut": 2000}}, "timestep of 0..1000"),
    ({"method": "narrow", "dynamic": {"target": 0.5}}, "dynamic: narrow"),
    ({"method": "tiny", "options": {}}, "options: tiny is trained without"),
    ({"method": "dit-testing", "options": {}}, "options: dit-testing"),
    ({"method": "tiny", "config": {"adapter": {"targets": ["mlp.fc1"]}}}, "inner, outer"),
])  # fmt: skip
def test_a_recipe_that_a_method_is_not_trained_by_is_one_line(fields, words, tmp_path):
    with pytest.raises(ConfigError, match=words) as caught:
        run_recipe(recipe(**fields), tmp_path, progress=False)
    one_line(caught)


def test_steps_differ_where_the_objective_says_so():
    for options, cycle in (({"every": 3}, 16), ({}, 1)):
        made = recipe(method="narrow", steps=160, options=options)
        training = Training(torch.nn.Linear(1, 1), lambda *_: torch.zeros(()), made)
        assert len(step_call(training)[1]) == cycle


# Adapters


def adapted(kind: str, folder: Path) -> tuple[torch.nn.Module, Path]:
    """What training on the shipped weights gives: the model that its file makes, and the file."""
    with torch.enable_grad():
        done = run_recipe(recipe(base=SHIPPED, **KINDS[kind]), folder, weights_path(SHIPPED), progress=False)
    given = KINDS[kind]
    return methods.load_weights(methods.build(given["method"], **given["config"]), done.path), done.path


@torch.no_grad()
@every_kind
def test_a_file_of_adapters_holds_what_was_trained_and_finds_its_shipped_base(kind, tmp_path):
    model, path = adapted(kind, tmp_path)
    assert {*read_state(path)} == {name for name in model.state_dict() if model.is_added(name)}
    ups = [value for name, value in read_state(path).items() if name.endswith(".up")]
    assert len(ups) == (1 if kind == "one layer" else 2) and all(value.abs().max() > 0 for value in ups)
    base = methods.convert(static(), "narrow") if kind == "dynamic" else static()
    state = model.state_dict()
    same = {name: value for name, value in base.state_dict().items() if not model.is_added(name)}
    assert len(same) >= 7 and all(torch.equal(state[name], value) for name, value in same.items())
    assert not torch.equal(model(*batch()), base(*batch()))
    assert checkpoint_mismatch(model, path) is None


@torch.no_grad()
@every_kind
def test_a_file_of_adapters_is_bound_to_its_base_and_to_the_shape_of_its_model(kind, tmp_path):
    _, path = adapted(kind, tmp_path)
    given = KINDS[kind]
    save_file(methods.build("tiny").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="made on another base"):
        methods.load_weights(methods.build(given["method"], **given["config"]), path, tmp_path / "other.safetensors")
    for config, words in (({}, "config an adapter"), ({"adapter": {"rank": 2}}, "scaled by 0.5|missing|unknown")):
        with pytest.raises(CheckpointError, match=words) as caught:
            methods.load_weights(methods.build(given["method"], **config), path)
        one_line(caught)


def test_options_of_the_conversion_lie_in_the_file_and_one_that_the_model_lacks_is_refused(tmp_path):
    _, path = adapted("dynamic", tmp_path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    origin = json.loads(metadata["adapter"])
    assert origin["options"] == {"order": True} and origin["base"] == SHIPPED
    save_file(read_state(path), path, {"adapter": json.dumps({**origin, "options": {"sort": True}})})
    with pytest.raises(CheckpointError, match="no option 'sort'") as caught:
        methods.load_weights(methods.build("narrow", adapter=LORA), path)
    one_line(caught)


@torch.no_grad()
def test_updates_run_beside_and_folded_alike_and_folded_ones_execute_no_more(tmp_path):
    model, path = adapted("static", tmp_path)
    beside = methods.load_weights(methods.build("tiny", adapter={**LORA, "folded": False}), path)
    assert torch.allclose(model(*batch()), beside(*batch()), atol=1e-5)
    macs = []
    for each in (static(), model, beside):
        (plan,) = each.plan([5.0])
        macs.append(WorkCounter(each).call(plan).total())
    assert macs[0] == macs[1] < macs[2]


def test_what_training_takes_is_told_in_the_objectives_words(tmp_path):
    _, path = adapted("dynamic", tmp_path)
    spec = CellSpec(cell="c", method="narrow", config={"adapter": LORA}, sampler="ddpm", steps=5)
    result = measure_training(Trainee(spec, path), None, TrainingOptions(budget_s=0.05, warmup_s=0.0, precision=0.9))
    way = result.detail["adaptation"]
    assert (way["kind"], way["size"], way["refines"]) == ("LoRA", "r=2", None)
    assert way["family"] == {"config": {}, "base": SHIPPED, "dataset": "digits", "target": 300}
    assert way["course"]["options"] == {"cut": 300}
    assert result.values["trainable"].value == 2 * 2 * (64 + 16)
    assert result.detail["full"]["trainable"] == full_accounting("tiny", {}).trainable
    whole = adaptation_of(recipe(), methods.build("tiny"))
    assert (whole["kind"], whole["size"]) == ("full", "")
