"""The whole road of suite imagenet256 on stand-ins: from files under public names to every figure of the protocol."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import environment

from ditbench.harness.assets import load_assets, status, verified
from studies.dry_road import PICTURES, waited_for, write_stand_ins

pytestmark = pytest.mark.slow

CELLS = "dit-xl-2-dpm-*"  # 20 and 10 steps: the others walk the same road longer


def run(folder: Path, config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ditbench", "run", "imagenet256", "--device", "cpu", "--limit", "40", *words]
    variables = {**environment(), "DITBENCH_CONFIG": str(config), "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=3000)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stand_ins(tmp_path_factory.mktemp("standins"))


@pytest.fixture(scope="module")
def road(config: Path) -> Path:
    folder = config.parent.with_name("road")
    folder.mkdir()
    done = run(folder, config, "--only", CELLS, "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "4 measured, 0 reused" in done.stdout
    return folder


def records(road: Path, measurement: str) -> dict[str, dict]:
    found = [json.loads(path.read_text()) for path in sorted((road / "out/records").glob("*.json"))]
    return {each["spec"]["cell"]: each for each in found if each["measurement"] == measurement}


def test_stand_ins_are_declared_with_the_digests_that_they_have(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DITBENCH_CONFIG", str(config))
    monkeypatch.setenv("XDG_CACHE_HOME", str(config.parent / "cache"))
    entries = load_assets()
    named = {**entries.assets, **entries.references}
    assert {*named} == {known.name for known in waited_for()} | {"inception-2015", "imagenet-256"}
    assert all(verified(entry) == entry.sha256 for entry in named.values())
    assert {each.state for each in status() if each.path} == {"present"}


def test_every_figure_of_the_protocol_is_there_and_says_which_protocol_and_that_weights_are_stand_ins(
    road: Path,
) -> None:
    found = records(road, "quality")
    assert {*found} == {"dit-xl-2-dpm-20", "dit-xl-2-dpm-10"}
    for record in found.values():
        assert record["status"] == "ok"
        assert record["protocol"].startswith("adm-v1-") and record["protocol"].endswith("@40")
        expected = {"frechet", "sfid", "inception_score", "precision", "recall", "density", "coverage"}
        assert expected <= {*record["values"]}
        assert all(np.isfinite(record["values"][name]["value"]) for name in expected)
        assert record["spec"]["variant"].endswith("(stand-in)") and record["spec"]["config"]["depth"] == 2
        assert record["spec"]["weights_sha256"] and record["spec"]["decoder"]["weights_sha256"]
    first, second = (record["values"]["frechet"]["value"] for record in found.values())
    assert first != second
    assert all("precision" not in record["detail"]["not_available"] for record in found.values())
    assert PICTURES > 40


def test_pictures_were_decoded_and_the_report_is_there(road: Path) -> None:
    folders = sorted((road / "out/samples").glob("*/decoded-*"))
    assert len(folders) == 2
    for folder in folders:
        images = [np.load(path)["images"] for path in sorted(folder.glob("shard-*.npz"))]
        assert all(each.dtype == np.uint8 and each.shape[1:] == (256, 256, 3) for each in images)
        assert sum(map(len, images)) >= 40
        assert np.concatenate(images)[:40].std(axis=0).mean() > 1, "pictures differ"
    assert (road / "out/report/report.md").is_file()


def test_a_second_run_measures_nothing_again(road: Path, config: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (road / "out/records").glob("*.json")}
    done = run(road, config, "--only", CELLS, "--out", "out")
    assert done.returncode == 0 and "0 measured, 4 reused" in done.stdout
    assert {path.name: path.stat().st_mtime_ns for path in (road / "out/records").glob("*.json")} == before


def test_a_file_that_is_not_what_was_declared_stops_the_run_before_it_starts(road: Path, config: Path) -> None:
    changed = config.with_name("changed.toml")
    known = next(known for known in waited_for() if known.name == "sd-vae-ft-ema")
    text = config.read_text()
    table = text[text.index(f"[assets.{known.name}]") :].split("\n\n")[0]
    changed.write_text(text.replace(table, table[: table.index("sha256")] + f'sha256 = "{"ab" * 32}"'))
    done = run(road, changed, "--only", "dit-xl-2-dpm-10", "--out", "other")
    assert done.returncode == 2 and "sd-vae-ft-ema" in done.stderr and "begins with abababab" in done.stderr
    assert not (road / "other").exists()
