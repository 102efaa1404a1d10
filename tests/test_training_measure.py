"""What training takes: counts by closed formulas, memory by what is really held, and steps that training runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import ditbench
from typer.testing import CliRunner

from ditbench import methods
from ditbench.cli import app
from ditbench.cli.training import seeded
from ditbench.harness.environment import fingerprint
from ditbench.harness.errors import InputError
from ditbench.harness.measure import training as measuring
from ditbench.harness.measure.allocations import held_at_once
from ditbench.harness.measure.options import TrainingOptions
from ditbench.harness.measure.training import Trainee, measure_training, recipe_of, step_call
from ditbench.harness.measurements.registry import measurement_identity
from ditbench.harness.store.records import CellSpec
from ditbench.harness.store.store import RunStore
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import make_plan
from ditbench.methods.lora.config import AdapterConfig
from ditbench.methods.older_records import upgrade
from ditbench.methods.training.accounting import accounting, full_accounting
from ditbench.methods.training.loop import Training, train
from ditbench.methods.training.recipe import Recipe
from ditbench.methods.training.run import adaptation_of, prepared, run_recipe
from ditbench.methods.weights import save_state

ROOT = Path(__file__).parent.parent
HIDDEN, DEPTH, MLP, RANK, EXPERTS = 32, 2, 128, 2, 3
QUICK = TrainingOptions(budget_s=0.05, warmup_s=0.0, precision=0.9)


def recipe(**fields: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "recipe": "tiny",
            "method": "dit-testing",
            "steps": 3,
            "batch": 16,
            "ema": 0.5,
            "checkpoint_every": 99,
            **fields,
        }
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    return run_recipe(recipe(recipe="base"), folder, progress=False).path


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trainee]:
    """The tiny model tuned on ``base`` in full, by LoRA and by TD-LoRA, as a suite's cells would have them."""
    folder = tmp_path_factory.mktemp("tuned")
    made = {}
    for name, config in (
        ("full", {}),
        ("lora", {"adapter": {"rank": RANK}}),
        ("td-lora", {"adapter": {"rank": RANK, "experts": EXPERTS}}),
    ):
        chosen = recipe(recipe=name, config=config, base=str(base))
        path = run_recipe(chosen, folder / name, base, progress=False).path
        made[name] = Trainee(CellSpec(cell=name, method="dit-testing", config=config, sampler="ddpm", steps=5), path)
    return made


def lora_parameters(td: bool) -> int:
    """Of rank r on qkv, proj, fc1, fc2 of every block; TD-LoRA: E times the up factor, and a router of the width."""
    layers = ((HIDDEN, 3 * HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, MLP), (MLP, HIDDEN))
    experts, routers = (EXPERTS, EXPERTS * HIDDEN) if td else (1, 0)
    return DEPTH * sum(RANK * (c_in + experts * c_out) + routers for c_in, c_out in layers)


@pytest.mark.parametrize("name", ["full", "lora", "td-lora"])
def test_counts_are_those_of_a_closed_formula_and_of_the_model(tuned: dict[str, Trainee], name: str) -> None:
    result = measure_training(tuned[name], None, QUICK)
    values, whole = result.values, full_accounting("dit-testing", {})
    expected = whole.trainable if name == "full" else lora_parameters(name == "td-lora")
    assert values["trainable"].value == expected
    assert values["parameters"].value == whole.parameters + (0 if name == "full" else expected)
    assert values["trainable_share"].value == expected / values["parameters"].value
    assert values["gradient_mib"].value * 2**20 == 4 * expected
    assert values["optimizer_mib"].value * 2**20 == 8 * expected
    adapted = {"full": ("full", ""), "lora": ("LoRA", "r=2"), "td-lora": ("TD-LoRA", "r=2 ×3")}[name]
    assert (result.detail["adaptation"]["kind"], result.detail["adaptation"]["size"]) == adapted
    assert result.detail["full"]["trainable"] == whole.trainable
    assert values["checkpoint_mib"].value * 2**20 == tuned[name].weights.stat().st_size


@pytest.mark.parametrize("name", ["full", "lora", "td-lora"])
def test_optimiser_and_gradients_take_what_torch_really_holds(tuned: dict[str, Trainee], name: str, base: Path) -> None:
    chosen = recipe_of(tuned[name].weights)
    assert chosen is not None
    model, loss = prepared(chosen, base)
    training = Training(model.train(), loss, chosen)
    training.step(0)
    moments = [state[key] for state in training.optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
    counted = accounting(model)
    assert sum(each.numel() * each.element_size() for each in moments) == counted.optimizer_bytes
    held = [p.grad.numel() * p.grad.element_size() for p in model.parameters() if p.grad is not None]
    assert sum(held) == counted.gradient_bytes
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    assert sum(each.numel() for each in training.ema.values()) == counted.trainable


@pytest.mark.parametrize(
    ("method", "config", "sections", "word"),
    [
        ("dit-testing", {}, {}, "full"),
        ("dydit-testing", {"adapter": {"rank": 3, "experts": 2}}, {"dynamic": {"target": 0.5}}, "td-lora"),
        ("flexidit-testing", {"recipe": "lora", "adapter": {"rank": 3}},
         {"flexible": {"objective": "distillation"}}, "lora"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_records_of_older_versions_are_compared_with_new_ones_of_the_same_recipe(
    method: str, config: dict[str, Any], sections: dict[str, Any], word: str
) -> None:
    chosen = recipe(method=method, config=config, base="zoo:x", **sections)
    with torch.device("meta"):
        now = adaptation_of(chosen, methods.build(method, **config))
    adapter = asdict(AdapterConfig.parse(config["adapter"])) if config else None
    old = {"recipe": chosen.model_dump(mode="json"), "adaptation": word, **({"adapter": adapter} if adapter else {})}
    assert upgrade("training", {"config": config}, old)["adaptation"] == now


def test_adapters_train_in_less_memory_than_the_whole_model(tuned: dict[str, Trainee]) -> None:
    full, lora = (measure_training(tuned[name], None, QUICK) for name in ("full", "lora"))
    assert lora.values["training_peak_mib"].value < full.values["training_peak_mib"].value
    for result in (full, lora):
        parts = result.detail["held_mib"] + result.detail["step_mib"]
        assert result.values["training_peak_mib"].value == pytest.approx(parts)
    # weights, two averages and their copy; AdamW also counts its steps, a float a tensor
    parameters, trained = (full.values[name].value for name in ("parameters", "trainable"))
    assert full.detail["held_mib"] * 2**20 == pytest.approx(4 * (parameters + 3 * trained), rel=0.01)
    assert full.detail["step_mib"] > full.values["gradient_mib"].value


def test_what_is_held_at_once_is_the_peak_and_not_the_sum() -> None:
    def run() -> None:
        for _ in range(3):
            both = [torch.empty(2**20), torch.empty(2**20)]
            del both

    assert held_at_once(run, "cpu") == 2 * 4 * 2**20


def test_measuring_leaves_the_checkpoints_values_as_they_are(
    tuned: dict[str, Trainee], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Training] = []
    original = measuring._begun

    def keep(*given: Any) -> Training:
        begun.append(original(*given))
        return begun[-1]

    monkeypatch.setattr(measuring, "_begun", keep)
    measure_training(tuned["td-lora"], None, QUICK)
    stored = methods.load_weights(
        methods.build("dit-testing", **tuned["td-lora"].spec.config), tuned["td-lora"].weights
    ).state_dict()
    model = begun[0].model.state_dict()
    assert all(torch.equal(stored[name], value) for name, value in model.items())
    assert any(value.abs().sum() > 0 for name, value in stored.items() if name.endswith(".up")), "trained, not fresh"


def test_times_follow_from_one_another_and_from_the_recipe(tuned: dict[str, Trainee]) -> None:
    # six calls are the least that a median's interval needs
    values = measure_training(tuned["lora"], None, QUICK.model_copy(update={"rounds": 6})).values
    step, image, run = (values[f"training_{name}"] for name in ("step_ms", "image_ms", "s"))
    assert step.value > 0 and step.low is not None
    assert image.value == pytest.approx(step.value / 16) and image.low == pytest.approx(step.low / 16)
    assert run.value == pytest.approx(3 * step.value / 1e3) and run.low == pytest.approx(3 * step.low / 1e3)
    assert "training_ratio" not in values


def slowed(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> list[str]:
    """Steps that only wait, by the recipe's name; the order in which they come."""
    import time

    log: list[str] = []

    def step(self: Training, index: int) -> torch.Tensor:
        log.append(self.recipe.recipe)
        time.sleep(seconds[self.recipe.recipe])
        return torch.zeros(())

    monkeypatch.setattr(Training, "step", step)
    return log


def test_the_ratio_is_of_time_an_image_against_the_baselines_in_turns(
    tuned: dict[str, Trainee], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = methods.build("dit-testing").state_dict()
    half = recipe(recipe="half", batch=8)
    save_state(tmp_path / "half.safetensors", state, {"recipe": half.model_dump()})
    other = Trainee(CellSpec(cell="half", method="dit-testing", sampler="ddpm", steps=5), tmp_path / "half.safetensors")
    log = slowed(monkeypatch, {"full": 0.042, "half": 0.021})
    result = measure_training(tuned["full"], other, TrainingOptions(budget_s=0.05, warmup_s=0.0, rounds=4))
    ratio = result.values["training_ratio"]
    # twice the time for twice the images
    assert 0.9 < ratio.value < 1.1 and ratio.low is not None and ratio.low <= ratio.value
    assert "".join(name[0] for name in log).endswith("fhhf" * 4)
    assert (result.detail["baseline"], result.detail["order"], result.detail["rounds"]) == ("half", "A B B A", 4)


def test_a_baseline_without_a_recipe_gives_no_ratio(tuned: dict[str, Trainee], tmp_path: Path) -> None:
    save_state(tmp_path / "bare.safetensors", methods.build("dit-testing").state_dict(), {})
    bare = Trainee(CellSpec(cell="bare", method="dit-testing", sampler="ddpm", steps=5), tmp_path / "bare.safetensors")
    result = measure_training(tuned["full"], bare, QUICK)
    assert "training_ratio" not in result.values and result.detail["order"] == "A"
    with pytest.raises(InputError, match="keeps no recipe"):
        measure_training(bare, None, QUICK)


def test_steps_that_differ_are_drawn_evenly_from_the_whole_run(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(Training, "step", lambda self, step: asked.append(step))
    flexible = recipe(method="flexidit-testing", flexible={}, steps=1600)
    call, weights = step_call(Training(torch.nn.Linear(1, 1), lambda *_: torch.zeros(()), flexible))
    for index in range(32):
        call(index)
    assert weights == (1 / 16,) * 16
    assert [step // 100 for step in asked] == [*range(16)] * 2 and asked[:16] != asked[16:]
    _, alone = step_call(Training(torch.nn.Linear(1, 1), lambda *_: torch.zeros(()), recipe(steps=1600)))
    assert alone == (1.0,)


# --- the loop ----------------------------------------------------------------------------------------------


def test_the_average_is_of_trained_parameters_alone_and_its_state_dict_is_whole(base: Path, tmp_path: Path) -> None:
    chosen = recipe(base=str(base), config={"adapter": {"rank": RANK}})
    model, loss = prepared(chosen, base)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = train(model, loss, chosen, tmp_path, progress=False)
    assert trained.ema.keys() == before.keys()
    moved = {name for name, value in trained.ema.items() if not torch.equal(value, before[name])}
    assert moved and all(".adapters." in name for name in moved)
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert sum(each.numel() for each in stored["trained"].values()) == lora_parameters(td=False)


def test_an_adapters_run_that_was_stopped_and_resumed_ends_in_the_same_weights(base: Path, tmp_path: Path) -> None:
    chosen = recipe(base=str(base), config={"adapter": {"rank": RANK}}, steps=6, checkpoint_every=2)

    def run(folder: Path, stop: int | None = None) -> Any:
        torch.manual_seed(0)
        model, loss = prepared(chosen, base)

        def stopping(*given: Any) -> torch.Tensor:
            if given[2] == stop:
                raise KeyboardInterrupt
            return loss(*given)

        return train(model, stopping, chosen, folder, progress=False)

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop=5)
    resumed = run(tmp_path / "cut")
    assert all(torch.equal(value, resumed.ema[name]) for name, value in whole.ema.items())


# --- the command line and the suite ------------------------------------------------------------------------


def test_another_seed_names_the_result_and_its_own_does_not() -> None:
    own = recipe(seed=3)
    assert seeded(own, None) == seeded(own, 3) == own
    assert (seeded(own, 0).recipe, seeded(own, 0).seed) == ("tiny-s0", 0)
    assert seeded(own, 0).model_copy(update={"seed": 3, "recipe": "tiny"}) == own


def test_train_with_a_seed_writes_a_checkpoint_of_that_name_and_says_its_command(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["train", "testing", "--seed", "7", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    entry = json.loads((tmp_path / "out" / "entry.json").read_text())
    assert entry["file"] == "testing-s7.safetensors" and entry["recipe"]["seed"] == 7
    assert entry["command"] == "ditbench train testing --seed 7 --publish"
    assert recipe_of(tmp_path / "out" / "testing-s7.safetensors") == Recipe.model_validate(entry["recipe"])


def test_a_bad_seed_is_one_line(tmp_path: Path) -> None:
    done = ditbench("train", "testing", "--seed", "-1", cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "--seed" in done.stderr


def test_parameters_are_counted_beside_those_of_full_fine_tuning() -> None:
    arguments = ["parameters", "dit-testing", "--set", f"adapter={{rank: {RANK}, experts: {EXPERTS}}}", "--json"]
    answer = json.loads(CliRunner().invoke(app, arguments).output)
    whole = full_accounting("dit-testing", {})
    trained = lora_parameters(td=True)
    assert answer["trainable"] == trained and answer["parameters"] == whole.parameters + trained
    assert answer["full"]["trainable"] == whole.trainable
    assert answer["fewer_than_full_percent"] == pytest.approx(100 * (1 - trained / whole.trainable))
    assert answer["optimizer_mib"] * 2**20 == 8 * trained


def test_training_of_random_weights_is_refused_at_its_place(tmp_path: Path) -> None:
    suite = tmp_path / "s.yaml"
    suite.write_text("suite: s\ncells:\n  - {method: dit-testing, measure: [flops, training]}\n")
    with pytest.raises(InputError, match="recipe that the weights keep") as caught:
        make_plan(load_suite(suite))
    assert caught.value.position is not None and caught.value.position.line == 3


def test_stored_records_of_other_measurements_keep_their_identities() -> None:
    """Made again from what the committed run says of its cells and its machine."""
    store = RunStore(ROOT / "results" / "quick-cpu")
    plan, machine = store.plan(), fingerprint(store.environment())
    records = [record for cell in store.cells().values() for record in cell.values()]
    baseline = next(record.spec for record in records if record.cell == plan["baseline"])
    assert {record.measurement for record in records} >= {"flops", "latency", "memory", "quality"}
    for record in records:
        again = measurement_identity(
            record.measurement,
            record.spec,
            record.options,
            fingerprint=machine,
            baseline=baseline,
            protocol=record.protocol and record.protocol.partition("@")[0],
        )
        assert again == record.identity, (record.cell, record.measurement)


def test_a_suite_measures_training_in_its_own_process(tuned: dict[str, Trainee], tmp_path: Path) -> None:
    suite = tmp_path / "s.yaml"
    cells = "".join(
        f"  - {{name: {name}, weights: {each.weights}, config: {json.dumps(each.spec.config)}}}\n"
        for name, each in tuned.items()
        if name != "td-lora"
    )
    suite.write_text(
        "suite: s\nbaseline: full\nthreads: 1\ntraining: {budget_s: 0.05, warmup_s: 0, precision: 0.9}\n"
        f"defaults: {{method: dit-testing, steps: 2, measure: [training]}}\ncells:\n{cells}"
    )
    done = ditbench("run", suite, "--out", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    records = {name: each["training"] for name, each in RunStore(tmp_path / "run").cells().items()}
    assert records["lora"].values["trainable"].value == lora_parameters(td=False)
    assert records["lora"].detail["baseline"] == "full" and "training_ratio" in records["lora"].values
    assert "training_ratio" not in records["full"].values
