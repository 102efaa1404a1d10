"""Training at many patch sizes: every size is drawn and reached, the teacher stays, and the sizes come together.

What concerns the model's process runs on both backbones, so that a FlexiSiT is held to what a FlexiDiT is.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from dydit_models import both_backbones
from pydantic import ValidationError
from test_flexidit import enlivened
from torch import Tensor

import ditbench.methods.flexidit.training as flexible_module
import ditbench.methods.training.loop as loop_module
from ditbench import methods
from ditbench.methods.errors import ConfigError
from ditbench.methods.flexidit.training import flexible_denoising, matching_loss, squared_mmd
from ditbench.methods.training.data.digits import digits
from ditbench.methods.training.loop import learning_rate, step_generator
from ditbench.methods.training.recipe import MatchingRecipe, Recipe
from ditbench.methods.training.run import run_recipe
from ditbench.methods.weights import read_state, save_state

DISTILLING: dict[str, Any] = {"objective": "distillation", "probabilities": {4: 1.0}}
LORA: dict[str, Any] = {"config": {"recipe": "lora", "adapter": {"rank": 4}}}
MATCHING: dict[str, Any] = {"every": 3, "weight": 0.5, "batch": 8, "grid": 50}


def recipe(flexible: dict[str, Any] | None = None, **fields: Any) -> Recipe:
    given = {"recipe": "tiny", "method": "flexidit-testing", "steps": 12, "batch": 8, "ema": 0.5, "checkpoint_every": 5}
    optimizer = {"rate": 1e-3, "schedule": "cosine", "warmup": 2}
    return Recipe.model_validate({**given, "optimizer": optimizer, "flexible": flexible or {}, **fields})


def in_training(backbone: str = "dit", **config: Any):
    torch.manual_seed(0)
    static = enlivened(methods.build(f"{backbone}-testing"))
    return methods.convert(static, f"flexi{backbone}-testing", **config).train()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def calls_of(model) -> list[tuple[int | None, Tensor]]:
    """Patch size and timesteps of each call that is made from now on."""
    seen, real = [], model.forward

    def forward(x, t, y, *, patch_size=None):
        seen.append((patch_size, t))
        return real(x, t, y, patch_size=patch_size)

    model.forward = forward
    return seen


# One size a batch


@torch.no_grad()
@pytest.mark.parametrize(("probabilities", "share"), [({2: 0.5, 4: 0.5}, 0.5), ({2: 3.0, 4: 1.0}, 0.25), ({4: 1}, 1.0)])
def test_batches_have_the_sizes_that_the_recipe_says(probabilities, share):
    model, draws = in_training(), 250
    loss, seen = flexible_denoising(digits(), recipe({"probabilities": probabilities}, batch=2)), calls_of(model)
    for step in range(draws):
        loss(model, step_generator(0, step), step)
    assert len(seen) == draws, "one size a batch"
    found = sum(size == 4 for size, _ in seen) / draws
    assert found == pytest.approx(share, abs=4 * (share * (1 - share) / draws) ** 0.5)
    assert {size for size, _ in seen} == {size for size, each in probabilities.items() if each}


@torch.no_grad()
def test_distillation_draws_new_sizes_alone_and_asks_the_base_at_every_step():
    model = in_training(recipe="lora", patch_sizes=[2, 4, 8])
    chosen = recipe({"objective": "distillation", "probabilities": {2: 9.0, 4: 1.0, 8: 1.0}}, batch=2)
    loss, seen = flexible_denoising(digits(), chosen), calls_of(model)
    for step in range(60):
        loss(model, step_generator(0, step), step)
    drawn, teacher = [size for size, _ in seen[::2]], [size for size, _ in seen[1::2]]
    assert set(drawn) == {4, 8} and 15 < drawn.count(4) < 45 and teacher == [None] * 60


@both_backbones
@pytest.mark.parametrize("size", [2, 4, 8])
def test_every_size_reaches_the_stored_kernels_and_what_is_its_own(size, backbone):
    model = in_training(backbone, patch_sizes=[2, 4, 8], size_norm=True)
    flexible_denoising(digits(), recipe({"probabilities": {size: 1.0}}))(model, generator(), 0).backward()
    ends = (f"{end}.{kind}" for end in ("x_embedder.proj", "final_layer.linear") for kind in ("weight", "bias"))
    for name in (*ends, "blocks.1.mlp.fc2.weight", f"size_embed.{size}"):
        assert model.get_parameter(name).grad.abs().max() > 0, name
    marks = {name for name, p in model.named_parameters() if p.grad is not None and name.startswith("size_")}
    norms = set() if size == 2 else {f"size_norms.{size}.weight", f"size_norms.{size}.bias"}
    assert marks == {f"size_embed.{size}", *norms}, "of no other size"


# Distillation


PROBE = (torch.randn(64, 1, 8, 8, generator=generator(5)), torch.linspace(0, 999, 64).long(), torch.arange(64) % 11)
PROBES = {"dit": PROBE, "sit": (PROBE[0], torch.linspace(1, 0, 64), PROBE[2])}


@torch.no_grad()
def distance(model) -> float:
    """Mean squared difference of the sizes' predictions, on images that do not change."""
    probe = PROBES["dit" if model.config.flow is None else "sit"]
    return (model(*probe, patch_size=4) - model(*probe)).square().mean().item()


def train_on(model, loss_of, steps: int, rate: float) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    losses = []
    for step in range(steps):
        loss = loss_of(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@both_backbones
def test_distillation_moves_the_weak_prediction_towards_the_base_which_stays(backbone):
    base = enlivened(methods.build(f"{backbone}-testing"))
    model = in_training(backbone, recipe="lora", adapter={"rank": 8})
    before, loss = distance(model), flexible_denoising(digits(), recipe(DISTILLING, batch=32))
    losses = train_on(model, lambda step: loss(model, step_generator(0, step), step), 60, 1e-2)
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])
    assert distance(model.eval()) < 0.6 * before
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in base.state_dict().items())
    assert all((state[name] != 0).any() for name in state if name.endswith(".up")), "every update took part"


def test_a_distilled_model_is_its_base_at_the_pretrained_size_to_the_bit(tmp_path):
    base = static_checkpoint(tmp_path)
    done = run_recipe(recipe(DISTILLING, base="static", **LORA), tmp_path / "run", base, progress=False)
    static = methods.load_weights(methods.build("dit-testing"), base)
    fresh = methods.convert(static, "flexidit-testing", **LORA["config"])
    for merged in (True, False):
        model = methods.build("flexidit-testing", recipe="lora", adapter={"rank": 4, "folded": merged})
        methods.load_weights(model, done.path, base)
        assert not torch.allclose(model(*PROBE, patch_size=4), fresh(*PROBE, patch_size=4), atol=1e-4), "trained"
        assert torch.equal(model(*PROBE), static(*PROBE)), "also after another size was merged"
    torch.manual_seed(0)
    start = methods.build("flexidit-testing", **LORA["config"]).state_dict()
    alone = read_state(run_recipe(recipe(DISTILLING, **LORA), tmp_path / "alone", progress=False).path)
    assert all(torch.equal(alone[name], start[name]) for name in static.state_dict()), "without a file it stays too"


# Distribution matching


def test_the_discrepancy_is_that_of_its_definition():
    a, b = torch.randn(2, 5, 3, generator=generator()).unbind()
    scale = torch.stack([(p - q).square().sum() for p in a for q in b]).median()

    def kernel(p: Tensor, q: Tensor) -> Tensor:
        return sum(torch.exp(-(p - q).square().sum() / (width * scale)) for width in (0.25, 0.5, 1, 2, 4))

    within = sum(kernel(s[i], s[j]) for s in (a, b) for i in range(5) for j in range(5) if i != j) / 20
    across = sum(kernel(p, q) for p in a for q in b) / 25
    assert squared_mmd(a, b).item() == pytest.approx((within - 2 * across).item(), abs=1e-5)


def test_the_discrepancy_is_zero_in_the_mean_for_equals_and_grows_with_a_shift():
    pairs = torch.randn(300, 2, 16, 1, 2, 2, generator=generator())

    def found(shift: float, stretch: float = 1.0) -> Tensor:
        return torch.stack([squared_mmd(a, stretch * b + shift) for a, b in pairs])

    equal = found(0.0)
    assert abs(equal.mean()) < 4 * equal.std() / 300**0.5, "unbiased"
    assert 0.1 < found(0.5).mean() < found(1.0).mean() and found(0.0, 2.0).mean() > 0.1


@both_backbones
def test_chains_run_weak_then_powerful_steps_of_the_grid_more_often_near_its_clean_end(backbone):
    model, chosen = (
        in_training(backbone, patch_sizes=[2, 4, 8]),
        MatchingRecipe(grid=101, weak_steps=2, powerful_steps=1, batch=2),
    )
    seen, drawn, last = calls_of(model), generator(), []
    with torch.no_grad():
        for _ in range(150):
            seen.clear()
            matching_loss(model, digits(), chosen, drawn)
            sizes = [size for size, _ in seen]
            times = [999 * model.process.noisiness(float(t[0])) for _, t in seen]
            assert sizes in ([4, 4, 2], [8, 8, 2])
            assert times == pytest.approx([times[2] + 20, times[2] + 10, times[2]], abs=1.01), "neighbours on the grid"
            last.append((sizes[0], times[2] / 10))
    assert {size for size, _ in last} == {4, 8}
    places = torch.tensor([place for _, place in last])
    assert places.min() < 2 and places.max() > 85 and 0.2 < places.mean() / 98 < 0.42, "a third, not a half"


@both_backbones
@pytest.mark.parametrize("recipe_name", ["shared", "lora"])
def test_matching_reaches_the_weak_path_through_powerful_steps(recipe_name, backbone):
    model = in_training(backbone, recipe=recipe_name)
    matching_loss(model, digits(), MatchingRecipe(batch=8, powerful_steps=2), generator()).backward()
    assert model.size_embed["4"].grad.abs().max() > 0
    kernel = model.new_sizes["4"].x_embedder.proj if recipe_name == "lora" else model.x_embedder.proj
    assert kernel.weight.grad.abs().max() > 0
    assert (model.blocks[0].mlp.fc1.weight.grad is None) == (recipe_name == "lora")


@both_backbones
def test_training_on_matching_alone_reduces_it(backbone):
    model, chosen = in_training(backbone), MatchingRecipe(weak_steps=3, powerful_steps=1, batch=32, grid=20)

    def found() -> float:
        with torch.no_grad():
            return sum(matching_loss(model, digits(), chosen, generator(1000 + k)).item() for k in range(20)) / 20

    before = found()
    train_on(model, lambda step: matching_loss(model, digits(), chosen, generator(step)), 60, 3e-3)
    assert found() < 0.7 * before


def test_matching_is_added_every_so_many_steps_with_its_weight(monkeypatch):
    calls: list[MatchingRecipe] = []
    monkeypatch.setattr(flexible_module, "matching_loss", lambda model, data, m, *rest: calls.append(m) or 10.0)
    model = in_training()
    with_it, without = (flexible_denoising(digits(), recipe(f)) for f in ({"matching": MATCHING}, {}))
    for step in range(7):
        calls.clear()
        extra = with_it(model, step_generator(0, step), step) - without(model, step_generator(0, step), step)
        assert len(calls) == (step % 3 == 0)
        assert extra.item() == pytest.approx(5.0 if calls else 0.0, abs=1e-5)


def test_a_chain_longer_than_its_grid_is_refused():
    with pytest.raises(ValidationError, match="grid"):
        recipe({"matching": {"grid": 3, "weak_steps": 2, "powerful_steps": 1}})


# Whole runs


def static_checkpoint(folder: Path, backbone: str = "dit") -> Path:
    path = folder / "static.safetensors"
    save_state(path, enlivened(methods.build(f"{backbone}-testing")).state_dict(), {})
    return path


@both_backbones
def test_a_run_starts_from_its_base(tmp_path, backbone):
    base = static_checkpoint(tmp_path, backbone)
    still = recipe(base="static", method=f"flexi{backbone}-testing", ema=0.0, steps=1, optimizer={"rate": 1e-9})
    done = run_recipe(still, tmp_path / "run", base, progress=False)
    model = methods.load_weights(methods.build(f"flexi{backbone}-testing"), done.path)
    static = methods.load_weights(methods.build(f"{backbone}-testing"), base)
    assert torch.allclose(model(*PROBES[backbone]), static(*PROBES[backbone]), atol=1e-5)


@pytest.mark.parametrize("fields", [{"flexible": {"matching": MATCHING}}, {"flexible": DISTILLING, **LORA}], ids=str)
def test_a_flexible_run_stopped_and_resumed_ends_in_the_same_weights(tmp_path, monkeypatch, fields):
    base = static_checkpoint(tmp_path)
    chosen = recipe(base="static", **fields)
    whole = run_recipe(chosen, tmp_path / "whole", base, progress=False)
    steps: list[int] = []

    def stop_at(last: int) -> None:
        def rate(optimizer, step, total):
            steps.append(step)
            if step == last:
                raise KeyboardInterrupt
            return learning_rate(optimizer, step, total)

        monkeypatch.setattr(loop_module, "learning_rate", rate)

    stop_at(8)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(chosen, tmp_path / "cut", base, progress=False)
    torch.manual_seed(1234)  # what else happened in between must not matter
    steps.clear()
    stop_at(-1)
    resumed = run_recipe(chosen, tmp_path / "cut", base, progress=False)
    assert steps == list(range(5, 12)), "went on from the last checkpoint"
    assert (resumed.sha256, resumed.figures) == (whole.sha256, whole.figures)


@pytest.mark.parametrize("change", [
    {"probabilities": {2: 0.1, 4: 0.9}}, {"matching": None}, *({"matching": {**MATCHING, **each}} for each in (
        {"weight": 5.0}, {"every": 1}, {"grid": 20}, {"weak_steps": 1}, {"powerful_steps": 0}, {"batch": 4})),
], ids=str)  # fmt: skip
def test_every_flexible_setting_changes_the_weights(tmp_path, change):
    settings = {"matching": MATCHING}, {"matching": MATCHING, **change}
    runs = [run_recipe(recipe(each, steps=4), tmp_path / str(k), progress=False) for k, each in enumerate(settings)]
    one, other = (read_state(done.path) for done in runs)
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(("fields", "words"), [
    ({"flexible": DISTILLING}, ["distillation", "frozen", "recipe: lora"]),
    ({"flexible": {}, **LORA}, ["denoising", "recipe: lora"]),
    ({"flexible": {"probabilities": {2: 0.5, 8: 0.5}}}, ["patch size 8", "2, 4"]),
    ({"flexible": {"probabilities": {2: 1.0, 4: -0.5}}}, ["patch size 4", "-0.5"]),
    ({"flexible": {"probabilities": {2: 1.0}}}, ["no new patch size"]),
    ({"flexible": {}, "method": "dit-digits"}, ["dit-digits", "one patch size"]),
    ({"flexible": None}, ["flexidit-testing", "section 'flexible'"]),
    ({"dynamic": {"target": 0.5}}, ["flexidit-testing", "no routers"]),
], ids=str)  # fmt: skip
def test_a_recipe_that_cannot_be_is_refused_in_one_line(tmp_path, fields, words):
    fields = {**fields, "flexible": fields.get("flexible", {})}
    with pytest.raises(ConfigError) as caught:
        run_recipe(Recipe.model_validate({**recipe().model_dump(), **fields}), tmp_path, progress=False)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value), caught.value
