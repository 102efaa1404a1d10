"""``train``: a recipe, its figures, and the zoo's manifest."""

from __future__ import annotations

import json
import shlex
import shutil
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditbench.harness.environment import resolve_threads
from ditbench.harness.errors import InputError, did_you_mean
from ditbench.harness.store.store import write_json

if TYPE_CHECKING:
    from ditbench.methods.training.recipe import Recipe


def shipped_recipes() -> dict[str, Path]:
    """name -> file of the recipes in the package."""
    folder = Path(str(files("ditbench.methods"))) / "training" / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def recipe_path(recipe: str) -> Path:
    """A file, or a shipped recipe's. Raises InputError."""
    if Path(recipe).is_file():
        return Path(recipe)
    shipped = shipped_recipes()
    if recipe in shipped:
        return shipped[recipe]
    raise InputError(f"no recipe {recipe!r}{did_you_mean(recipe, shipped) or ' (shipped: ' + ', '.join(shipped) + ')'}")


def train_recipe(recipe: str, out: Path | None, publish: bool, device: str = "cpu", seed: int | None = None) -> None:
    """Train, evaluate, print the figures; with ``publish`` put the checkpoint into the zoo.

    ``seed`` in place of the recipe's own gives the run and its checkpoint a name of their own.
    """
    import torch

    from ditbench.harness.assets.locations import verify_weights, weights_path
    from ditbench.harness.suite.positions import parse, read_text
    from ditbench.harness.suite.validation import validate
    from ditbench.methods.entries import UnknownNameError
    from ditbench.methods.errors import CheckpointError, ConfigError
    from ditbench.methods.training.recipe import Recipe
    from ditbench.methods.training.run import run_recipe

    torch.set_num_threads(resolve_threads(0))
    path = recipe_path(recipe)
    chosen = seeded(validate(Recipe, parse(read_text(path), path)), seed)
    folder = out or Path("runs") / "train" / chosen.recipe
    base = None
    if chosen.base is not None:
        base = weights_path(chosen.base)
        verify_weights(chosen.base)
    try:
        result = run_recipe(chosen, folder, base, device=device)
    except (UnknownNameError, CheckpointError, ConfigError) as error:
        raise InputError(str(error)) from None
    figures = dict(result.figures)
    if chosen.kind == "denoiser" and chosen.dataset == "digits" and not chosen.method.endswith("-testing"):
        figures |= _generation_figures(chosen, result.path, folder)
    entry = {
        "file": result.path.name,
        "sha256": result.sha256,
        "bytes": result.path.stat().st_size,
        "command": shlex.join(
            ["ditbench", "train", recipe, *([] if seed is None else ["--seed", str(seed)]), "--publish"]
        ),
        "recipe": chosen.model_dump(mode="json"),
        "figures": figures,
    }
    write_json(folder / "entry.json", entry)
    if publish:
        _publish(chosen.recipe, result.path, entry)
    print(json.dumps({"checkpoint": str(result.path), "sha256": result.sha256, "figures": figures}, indent=1))


def seeded(recipe: Recipe, seed: int | None) -> Recipe:
    """``recipe`` with this seed, called NAME-sSEED where that is not its own."""
    if seed is None or seed == recipe.seed:
        return recipe
    return recipe.model_copy(update={"seed": seed, "recipe": f"{recipe.recipe}-s{seed}"})


def _generation_figures(recipe: Recipe, path: Path, folder: Path) -> dict[str, Any]:
    """Quality of 1,000 unguided samples under the embedded protocol: 50 DDPM steps, or 25 of Heun's for a flow."""
    from ditbench.harness.quality.evaluate import SeedBlock, score
    from ditbench.harness.quality.options import QualityOptions
    from ditbench.harness.sample.generate import bind
    from ditbench.harness.sample.making import generate_shards
    from ditbench.harness.store.records import CellSpec
    from ditbench.methods.registry import facts_of

    flows = facts_of(recipe.method, recipe.config).predicts == "velocity"
    sampler, steps = ("heun", 25) if flows else ("ddpm", 50)
    spec = CellSpec(
        cell="trained",
        method=recipe.method,
        config=recipe.config,
        sampler=sampler,
        sampler_options={} if flows else {"clip": True},
        steps=steps,
    )
    options = QualityOptions()
    samples = folder / "samples"
    shutil.rmtree(samples, ignore_errors=True)
    shards = generate_shards(bind(spec, path), options.samples, options.shard, samples, lambda _done, _total: None)
    scored = score([SeedBlock(spec.seed, shards)], options, None, "cpu")
    return {
        "generation": {
            "what": f"1000 samples, {sampler} {steps} steps, no guidance, seed 0",
            "protocol": scored.protocol,
            **{name: round(quantity.value, 5) for name, quantity in scored.values.items()},
        }
    }


def _publish(name: str, path: Path, entry: dict[str, Any]) -> None:
    from ditbench.methods.zoo import FOLDER, MANIFEST, manifest

    shutil.copyfile(path, FOLDER / path.name)
    write_json(MANIFEST, dict(sorted({**manifest(), name: entry}.items())))
