"""A folder of latents is read from disk row by row, trains the published recipes, and is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ditbench

from ditbench import methods
from ditbench.cli.training import shipped_recipes
from ditbench.harness.suite.positions import parse, read_text
from ditbench.harness.suite.validation import validate
from ditbench.methods.errors import ConfigError
from ditbench.methods.training.data.latents import latents
from ditbench.methods.training.recipe import Recipe
from ditbench.methods.training.run import run_recipe
from ditbench.methods.weights import randomise, save_state


def write(folder: Path, count: int = 8, labels: int | None = None) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    np.save(folder / "latents.npy", rng.normal(size=(count, 4, 32, 32)).astype(np.float16))
    np.save(folder / "labels.npy", rng.integers(1000, size=labels or count))
    return folder


def shipped(name: str) -> Recipe:
    path = shipped_recipes()[name]
    return validate(Recipe, parse(read_text(path), path))


def test_rows_come_as_float32_with_their_labels(tmp_path):
    data = latents(str(write(tmp_path / "d")))
    images, labels = data.batch(torch.tensor([5, 0, 5]))
    assert images.shape == (3, 4, 32, 32) and images.dtype == torch.float32 and labels.dtype == torch.int64
    assert torch.equal(images[0], images[2]) and not torch.equal(images[0], images[1])
    assert len(data) == 8


def test_a_bad_folder_is_refused_in_one_line(tmp_path):
    write(tmp_path / "uneven", labels=3)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "latents.npy").write_text("no array")
    for folder, words in ((None, "name its folder"), ("nowhere", "no such file"), ("text", "not a readable array"),
                          ("uneven", "labels [3]")):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            latents(None if folder is None else str(tmp_path / folder))
        assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["dydit-s-0.5", "dydit-b-0.5", "dydit-xl-0.5", "dydit-xl-0.7"])
def test_the_published_recipes_are_readable_and_hold_the_published_settings(name):
    recipe = shipped(name)
    size, target = name.split("-")[1:]
    steps = {"s": 50_000, "b": 100_000, "xl": 150_000 if target == "0.7" else 200_000}[size]
    assert (recipe.method, recipe.steps, recipe.batch) == (f"dydit-{size}-2", steps, 256)
    assert recipe.dynamic is not None and recipe.dynamic.target == float(target) and recipe.dynamic.weight == 2.0
    assert recipe.dynamic.router_bias is None and recipe.ema == 0.9999
    assert recipe.optimizer.rate == (2.5e-5 if name == "dydit-xl-0.7" else 1e-4)


def test_the_published_recipe_of_dydit_s_runs_at_its_size(tmp_path):
    static = methods.build("dit-s-2")
    randomise(static, 0)
    base = tmp_path / "base.safetensors"
    save_state(base, static.state_dict(), {})
    recipe = shipped("dydit-s-0.5").model_copy(
        update={"data": str(write(tmp_path / "d")), "steps": 2, "batch": 4, "checkpoint_every": 100}
    )
    result = run_recipe(recipe, tmp_path / "run", base, progress=False)
    assert result.figures["parameters"] == 33_120_740
    trained = methods.load_weights(methods.build("dydit-s-2"), result.path)
    assert not torch.equal(
        trained.blocks[0].attn_rate.router.weight, methods.build("dydit-s-2").blocks[0].attn_rate.router.weight
    )


def test_quality_against_a_set_to_train_on_is_refused(tmp_path):
    text = (
        "suite: s\ncells:\n  - {method: dit-digits, weights: 'zoo:dit-digits', dataset: latents, measure: [quality]}\n"
    )
    (tmp_path / "s.yaml").write_text(text)
    done = ditbench("plan", "s.yaml", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("s.yaml:3:") and "to train on" in done.stderr
