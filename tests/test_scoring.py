"""Scoring files, references, protocols as values, the figures of a cell: each by the road that a user takes."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from extractor_weights import inception_state, pictures, write_inception
from PIL import Image

from ditbench.cli import main
from ditbench.harness.assets import load_assets
from ditbench.harness.errors import InputError
from ditbench.harness.quality.build import build_extractor_of
from ditbench.harness.quality.definitions import definition, definitions
from ditbench.harness.quality.extractors.extractor import Extractor
from ditbench.harness.quality.frechet import frechet_from_features
from ditbench.harness.quality.protocols import QualityProtocol, protocol
from ditbench.harness.quality.score import score_images
from ditbench.harness.store.store import RunStore
from ditbench.methods.weights import sha256_file

COUNT = 18  # too few for a jackknife, whose 2048 x 2048 decompositions would take minutes here


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: random Inception weights in ditbench.toml, real.npz and made.npz of images."""
    folder = tmp_path_factory.mktemp("desk")
    weights = write_inception(folder / "inception.pth", inception_state())
    np.savez(folder / "real.npz", arr_0=pictures(COUNT, 40, 40, seed=1).numpy())
    np.savez(folder / "made.npz", arr_0=pictures(COUNT, 40, 40, seed=2, contrast=0.5).numpy())
    (folder / "ditbench.toml").write_text(
        f'[assets.inception-2015]\npath = "inception.pth"\nsha256 = "{sha256_file(weights)}"\n'
    )
    return folder


@pytest.fixture(autouse=True)
def at_the_desk(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DITBENCH_CONFIG", str(desk / "ditbench.toml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ditbench.harness.quality.build.build_extractor_of", built_once)


@cache
def _built(name: str, device: str, config: str) -> Extractor:
    return build_extractor_of(name, device)


def built_once(name: str, device: str) -> Extractor:
    """Building an Inception takes seconds, and every test here needs the same two."""
    return _built(name, device, os.environ["DITBENCH_CONFIG"])


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    def command(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ditbench", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    yield command


def made_reference(run: Run, desk: Path, protocol_name: str = "adm", source: str = "real.npz") -> Path:
    out = desk / f"{protocol_name}-{source}"
    if not out.exists():
        code, said, wrong = run("reference", desk / source, "--protocol", protocol_name, "--out", out)
        assert code == 0, wrong
        assert sha256_file(out) in said and "[references." in said
    return out


# --- protocols as values -------------------------------------------------------------------------------------------


def test_every_field_of_a_protocol_but_the_references_name_changes_its_id() -> None:
    digits = protocol("digits")
    for each in fields(QualityProtocol):
        other = replace(digits, **{each.name: 99 if each.name == "version" else "other"})
        assert (other.id == digits.id) == (each.name == "reference")


@pytest.mark.parametrize("name", ["digits", "adm", "clean"])
def test_an_extractor_says_of_itself_what_the_protocol_says_of_it(name: str) -> None:
    extractor = built_once(name, "cpu")
    assert (extractor.name, extractor.resize) == (definition(name).extractor, definition(name).resize)


def test_two_protocols_on_the_same_weights_and_reference_have_two_ids(run: Run, desk: Path) -> None:
    reference = str(made_reference(run, desk))
    assert protocol("adm", reference).id != protocol("clean", reference).id
    assert protocol("adm", reference).extractor_sha256 == protocol("clean", reference).extractor_sha256


@pytest.mark.parametrize(
    ("name", "reference", "said"),
    [
        ("addm", None, "did you mean 'adm'"),
        ("adm", None, "needs a reference"),
        ("adm", "nowhere.npz", "neither a name in ditbench.toml nor a file"),
        ("dinov2", "real.npz", "dinov2-vitl14"),
        ("digits", "real.npz", "has its own reference"),
    ],
)
def test_what_a_protocol_lacks_is_said(name: str, reference: str | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        protocol(name, reference)


def test_every_protocol_is_listed(run: Run) -> None:
    listed = json.loads(run("list", "protocols", "--json")[1])
    assert [each["name"] for each in listed] == definitions().names()


# --- files -----------------------------------------------------------------------------------------------------------


def features(path: Path, protocol_name: str = "adm", kind: str = "features") -> np.ndarray:
    import torch

    with np.load(path) as data:
        images = torch.from_numpy(data["arr_0"])
    return built_once(protocol_name, "cpu")(images)[kind].cpu().numpy()


@pytest.mark.parametrize("name", ["adm", "clean"])
def test_a_folder_and_an_npz_of_the_same_images_get_the_same_figures_by_the_right_features(
    run: Run, desk: Path, tmp_path: Path, name: str
) -> None:
    reference = made_reference(run, desk, name)
    scored = score_images(desk / "made.npz", name, str(reference), samples=COUNT, batch=10)
    expected = frechet_from_features(features(desk / "made.npz", name), features(desk / "real.npz", name))
    assert scored.values["frechet"].value == pytest.approx(expected, rel=1e-6)
    if name == "adm":
        spatial = frechet_from_features(*(features(desk / f"{n}.npz", name, "spatial") for n in ("made", "real")))
        assert scored.values["sfid"].value == pytest.approx(spatial, rel=1e-6)
    else:
        assert "sfid" not in scored.values
    pngs = tmp_path / "pngs"
    pngs.mkdir()
    with np.load(desk / "made.npz") as data:
        for index, image in enumerate(data["arr_0"]):
            Image.fromarray(image).save(pngs / f"{index:04d}.png")
    again = score_images(pngs, name, str(reference), samples=COUNT, batch=10)
    assert again.values == scored.values and again.protocol == scored.protocol
    assert scored.protocol.endswith(f"@{COUNT}") and scored.protocol.startswith(f"{name}-v")
    assert scored.missing == {"kid": f"a subset of 1,000 does not fit {COUNT} images"}


def test_adms_own_reference_gives_what_the_made_one_gives(run: Run, desk: Path, tmp_path: Path) -> None:
    with np.load(made_reference(run, desk)) as made, np.load(desk / "real.npz") as images:
        np.savez(
            tmp_path / "virtual.npz", arr_0=images["arr_0"], **{n: made[n] for n in ("mu", "sigma", "mu_s", "sigma_s")}
        )
        np.savez(tmp_path / "statistics.npz", mu=made["mu"], sigma=made["sigma"])
    ours = score_images(desk / "made.npz", "adm", str(desk / "adm-real.npz"), samples=COUNT)
    theirs = score_images(desk / "made.npz", "adm", str(tmp_path / "virtual.npz"), samples=COUNT)
    assert theirs.values.keys() == ours.values.keys()
    for name, quantity in ours.values.items():
        assert theirs.values[name].value == pytest.approx(quantity.value, rel=1e-6), name
    assert ours.protocol != theirs.protocol, "another file is another reference until somebody knows better"
    bare = score_images(desk / "made.npz", "adm", str(tmp_path / "statistics.npz"), samples=COUNT)
    assert bare.values["frechet"].value == pytest.approx(ours.values["frechet"].value, rel=1e-6)
    assert "no spatial statistics" in bare.missing["sfid"] and "no images" in bare.missing["precision"]


def test_scoring_prints_figures_and_json_alike_and_keeps_features(run: Run, desk: Path) -> None:
    reference = made_reference(run, desk)
    words = ("score", desk / "made.npz", "--protocol", "adm", "--reference", reference, "--samples", COUNT)
    code, table, _ = run(*words)
    assert code == 0 and "Fréchet distance" in table and "adm-v1-" in table
    assert list(Path("runs/features").iterdir()), "a killed job would go on from these"
    answer = json.loads(run(*words, "--json")[1])
    assert f"{answer['values']['frechet']['value']:.5g}" in table
    assert answer["not_available"]["kid"] in table


def broken(folder: Path, desk: Path, what: str) -> tuple[list[object], str]:
    """A fault -> the command that meets it, and what the one line must say."""
    images = np.load(desk / "made.npz")["arr_0"]
    score = ["score", "--protocol", "adm", "--reference", desk / "adm-real.npz", "--samples", COUNT]
    if what == "truncated npz":
        (folder / "cut.npz").write_bytes((desk / "made.npz").read_bytes()[:20_000])
        return [*score, folder / "cut.npz"], "cut.npz"
    if what == "wrong keys":
        np.savez(folder / "keys.npz", samples=images)
        return [*score, folder / "keys.npz"], "arr_0"
    if what == "jpeg folder":
        Image.fromarray(images[0]).save(folder / "a.jpg")
        return [*score, folder], "(?i)jpe?g"
    if what == "mixed sizes":
        Image.fromarray(images[0]).save(folder / "a.png")
        Image.fromarray(images[0][:20]).save(folder / "b.png")
        return [*score, folder], "b.png"
    if what == "too few":
        return [
            "score",
            "--protocol",
            "adm",
            "--reference",
            desk / "adm-real.npz",
            desk / "made.npz",
        ], "50,000.*--samples 18"
    if what == "wrong digest of the extractor":
        text = (desk / "ditbench.toml").read_text()
        (folder / "other.toml").write_text(text[:-10] + "00000000" + text[-2:])
        (folder / "inception.pth").write_bytes((desk / "inception.pth").read_bytes())
        return [*score, desk / "made.npz", folder / "other.toml"], "inception.pth"
    if what == "wrong statistics":
        np.savez(folder / "small.npz", mu=np.zeros(64), sigma=np.eye(64))
        return [*score[:4], folder / "small.npz", *score[5:], desk / "made.npz"], r"\(64,\)"
    if what == "statistics of another resize":
        return [*score[:4], desk / "clean-real.npz", *score[5:], desk / "made.npz"], "another"
    raise AssertionError(what)


@pytest.mark.parametrize(
    "what",
    [
        "truncated npz",
        "wrong keys",
        "jpeg folder",
        "mixed sizes",
        "too few",
        "wrong digest of the extractor",
        "wrong statistics",
        "statistics of another resize",
    ],
)
def test_a_fault_is_one_clear_line_and_exit_code_2(
    run: Run, desk: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_reference(run, desk)
    made_reference(run, desk, "clean")
    folder = tmp_path / "input"
    folder.mkdir()
    words, said = broken(folder, desk, what)
    if words[-1] == folder / "other.toml":
        monkeypatch.setenv("DITBENCH_CONFIG", str(words.pop()))
    code, out, err = run(*words)
    line = err.strip().splitlines()[-1]
    assert code == 2 and out == "" and "Traceback" not in err
    assert re.search(said, line), line


# --- cells -----------------------------------------------------------------------------------------------------------

SUITE = {
    "suite": "scored",
    "baseline": "base",
    "defaults": {
        "method": "dit-digits",
        "weights": "zoo:dit-digits",
        "dataset": "digits",
        "sampler": {"name": "ddim", "clip": True},
        "steps": 4,
        "measure": ["quality", "paired"],
    },
    "cells": [{"name": "base"}, {"name": "same"}, {"name": "fewer", "steps": 2}],
    "quality": {"samples": 40, "shard": 20},
}


def run_suite(run: Run, out: Path, **changes: object) -> RunStore:
    file = out.parent / f"{out.name}.yaml"
    file.write_text(yaml.safe_dump({**SUITE, **changes}, sort_keys=False))
    code, said, wrong = run("run", file, "--out", out)
    assert code == 0, said + wrong
    return RunStore(out)


def test_a_cell_is_scored_and_paired_and_its_samples_can_leave_and_come_back(run: Run, tmp_path: Path) -> None:
    store = run_suite(run, tmp_path / "run")
    cells = store.cells()
    assert "paired" not in cells["base"], "a cell is not paired with itself"
    same, fewer = cells["same"]["paired"], cells["fewer"]["paired"]
    assert same.values["ssim"].value == 1.0 and same.values["latent_error"].value == 0.0
    assert same.detail["identical"] == 40 and same.detail["not_available"]["psnr"] == "all pairs are equal"
    assert 0 < fewer.values["psnr"].value < 40 and 0 < fewer.values["latent_error"].value < 2
    assert len(fewer.detail["leave_one_out"]["ssim"]) == 10
    quality = cells["fewer"]["quality"]
    assert quality.protocol == protocol("digits").at(40)
    assert {"frechet", "frechet_infinity", "kid", "density", "coverage", "inception_score"} <= set(quality.values)
    assert all(len(each) == 10 for name, each in quality.detail["leave_one_out"].items() if name != "inception_score")
    assert list((tmp_path / "run" / "features").iterdir())

    assert run("export", tmp_path / "run", "fewer", tmp_path / "fewer.npz")[0] == 0
    assert run("export", tmp_path / "run", "fewer", tmp_path / "pngs")[0] == 0
    for exported in ("fewer.npz", "pngs"):
        again = json.loads(run("score", tmp_path / exported, "--json")[1])
        assert again["protocol"] == quality.protocol
        for name, value in again["values"].items():
            assert value["value"] == pytest.approx(quality.values[name].value, rel=1e-5), (exported, name)


def test_seed_blocks_are_independent_sets_whose_mean_is_reported(run: Run, tmp_path: Path) -> None:
    cells = [{"name": "base"}]
    three = run_suite(
        run,
        tmp_path / "three",
        cells=cells,
        quality={**SUITE["quality"], "seed_blocks": 3},  # type: ignore[dict-item]
    ).cells()["base"]["quality"]
    values = three.detail["by_seed"]["frechet"]
    assert len(set(values)) == 3 and three.detail["seeds"] == [0, 1, 2]
    assert three.values["frechet"].value == pytest.approx(np.mean(values))
    assert three.values["frechet"].interval == "95% t interval over 3 seed blocks"
    for seed, value in enumerate(values):
        alone = run_suite(run, tmp_path / f"seed-{seed}", cells=cells, seed=seed).cells()["base"]["quality"]
        assert alone.values["frechet"].value == pytest.approx(value, rel=1e-6)
    two = run_suite(
        run,
        tmp_path / "two",
        cells=cells,
        quality={**SUITE["quality"], "seed_blocks": 2},  # type: ignore[dict-item]
    ).cells()["base"]["quality"]
    assert two.values["frechet"].low is None and "2 seeds" in two.values["frechet"].interval


def test_a_cell_is_scored_by_a_protocol_of_the_users_own_files(run: Run, desk: Path, tmp_path: Path) -> None:
    made_reference(run, desk, "clean")
    quality = {"protocol": "clean", "reference": str(desk / "clean-real.npz"), "samples": 20, "shard": 20}
    store = run_suite(run, tmp_path / "run", cells=[{"name": "base"}], quality=quality)
    record = store.cells()["base"]["quality"]
    assert record.protocol == protocol("clean", str(desk / "clean-real.npz")).at(20)
    assert record.values["frechet"].value > 0 and "accuracy" not in record.values


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quality": {"protocol": "adm", "samples": 40}}, r":\d+:\d+: .*needs a reference"),
        ({"quality": {"protocol": "dinov2", "reference": "x", "samples": 40}}, r":\d+:\d+: reference 'x' is neither"),
        ({"quality": {"protocol": "dinov2", "reference": ".", "samples": 40}}, r":\d+:\d+: .*dinov2-vitl14"),
        ({"baseline": None}, r":\d+:\d+: .*no baseline"),
        ({"cells": [{"name": "base"}, {"name": "b", "seed": 5}]}, r":\d+:\d+: .*seed of the baseline"),
        ({"paired": {"lpips": "alex"}}, r":\d+:\d+: .*lpips-alexnet"),
    ],
)
def test_what_a_suite_lacks_is_said_before_anything_runs(
    run: Run, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(yaml.safe_dump({**SUITE, **changes}, sort_keys=False))
    code, _, err = run("run", file, "--out", tmp_path / "run")
    assert code == 2 and not (tmp_path / "run").exists()
    assert re.search(said, err), err


def test_the_assets_of_this_module_are_the_desks() -> None:
    entry = load_assets().find("inception-2015")
    assert entry is not None and entry.path.name == "inception.pth"


def test_equal_runs_are_told_no_difference_and_a_planted_degradation_fails_the_gate(run: Run, tmp_path: Path) -> None:
    cells = [{"name": "base"}, {"name": "cell"}]
    usual = {"cells": cells, "quality": {"samples": 200, "shard": 100}}
    run_suite(run, tmp_path / "a", **usual)
    run_suite(run, tmp_path / "b", **usual)
    gate = ("--fail-if", "frechet>+5%", "--fail-if", "accuracy<-5%")
    code, said, _ = run("compare", tmp_path / "a", tmp_path / "b", *gate)
    assert code == 0, said
    answer = json.loads(run("compare", tmp_path / "a", tmp_path / "b", "--json")[1])
    verdicts = {row["verdict"] for row in answer["comparisons"]}
    assert verdicts == {"identical"}, verdicts
    defaults = {**SUITE["defaults"], "guidance": 0.0, "steps": 2}  # type: ignore[dict-item]
    run_suite(run, tmp_path / "worse", **{**usual, "defaults": defaults})
    code, said, _ = run("compare", tmp_path / "a", tmp_path / "worse", *gate)
    assert code == 1 and "worse" in said
    assert run("compare", tmp_path / "worse", tmp_path / "a", *gate)[0] == 0, "an improvement fails no gate"
