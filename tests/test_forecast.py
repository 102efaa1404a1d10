"""What ``plan`` says of a run before it: compute, time, disk, and what waits for files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from ditbench import methods
from ditbench.cli.plan import show_plan
from ditbench.cli.plan_table import duration, size
from ditbench.harness.assets.locations import weights_digest, weights_path
from ditbench.harness.errors import InputError
from ditbench.harness.forecast import calibration as forecast
from ditbench.harness.forecast.calibration import Calibration, PerImage, Rate, median_seconds
from ditbench.harness.forecast.forecast import estimate
from ditbench.harness.forecast.workload import picture_shape, wanted_options, workloads
from ditbench.harness.measurements.measurement import Pace
from ditbench.harness.measurements.registry import measurements
from ditbench.harness.quality.extractors.digits import DigitExtractor
from ditbench.harness.quality.extractors.inception import _SPATIAL_CHANNELS
from ditbench.harness.quality.features import FeatureCache, collect
from ditbench.harness.quality.images.source import ShardImages
from ditbench.harness.run.runner import run, todo
from ditbench.harness.sample import picture_decoder
from ditbench.harness.sample.generate import bind
from ditbench.harness.sample.making import generate_shards
from ditbench.harness.sample.picture_decoder import bind_decoder, decode_shards
from ditbench.harness.sample.shards import decoded_folder
from ditbench.harness.store.identity import samples_identity
from ditbench.harness.store.records import DecoderSpec, Provenance, Quantity, Record
from ditbench.harness.store.store import RunStore
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import Plan, make_plan
from ditbench.harness.suite.refusal import glob_of, refuse_waiting
from ditbench.methods.latent.autoencoder import make_autoencoder_files
from ditbench.methods.weights import save_state

HEAD = "suite: s\ndefaults: {method: dit-testing, sampler: ddim, steps: 3}\n"


@pytest.fixture(autouse=True)
def no_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ditbench.toml").write_text("")
    monkeypatch.setenv("DITBENCH_CONFIG", str(tmp_path / "ditbench.toml"))


def planned(folder: Path, text: str, **options: Any) -> Plan:
    (folder / "s.yaml").write_text(text)
    return make_plan(load_suite(folder / "s.yaml"), **options)


def everything(plan: Plan) -> dict[str, Any]:
    return {cell.spec.cell: wanted_options(cell, {m.name for m in cell.measurements}) for cell in plan.cells}


# --- time --------------------------------------------------------------------------------------------------


def ticking(seconds: float) -> Any:
    """A clock on which everything between two looks takes this long."""
    ticks: Iterator[int] = count()
    return lambda: next(ticks) * seconds


@pytest.mark.parametrize(("seconds", "sequences"), [(1e-3, 16), (0.5, 2)])
def test_the_rate_is_the_pieces_macs_over_their_time_and_slow_machines_time_fewer_sequences(
    seconds: float, sequences: int, tmp_path: Path
) -> None:
    spec = planned(tmp_path, HEAD + "cells: [{guidance: 2}]\n").cells[0].spec
    rate = Calibration(budget_s=3 * seconds, clock=ticking(seconds)).sampling(spec, 8)
    width, tokens, layer = 32, 16, 32 * 4 * 4 + 32  # per token: norm, modulation and the rest are not in the estimate
    least = tokens * (12 * width * width + 2 * tokens * width) * sequences / 1e9
    most = least + sequences * (6 * width * width + tokens * layer) / 1e9
    both = 2 * seconds  # a block is two pieces, and on this clock each takes as long
    assert least / both < rate.gmacs_per_s < most / both
    assert f"of {sequences} sequences" in rate.timed and "float32 on cpu" in rate.timed


def test_a_method_of_several_pieces_is_as_fast_as_their_mix(tmp_path: Path) -> None:
    spec = planned(tmp_path, HEAD + "cells: [{method: dydit-testing, config: {activity: 0.5}}]\n").cells[0].spec
    rate = Calibration(budget_s=0.003, clock=ticking(1e-3)).sampling(spec, 8)
    assert "attention" in rate.timed and "mlp" in rate.timed
    assert rate.gmacs_per_s > 0


def test_one_kind_of_work_is_timed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = HEAD + "cells: [{name: a}, {name: b, sampler: ddpm}, {name: c, config: {num_heads: 4}}]\n"
    calls: list[str] = []

    def counted(self: Calibration, unit: Any, *_: Any) -> tuple[float, str]:
        calls.append(unit.key)
        return 1.0, "piece"

    monkeypatch.setattr(Calibration, "_piece", counted)
    calibration = Calibration()
    for cell in planned(tmp_path, text).cells:
        calibration.sampling(cell.spec, 8)
    assert len(calls) <= 2


def test_a_median_ignores_one_slow_call() -> None:
    looks = iter([0.0, 1.0, 1.0, 2.0, 2.0, 12.0])
    assert median_seconds(lambda: None, 11.5, lambda: next(looks)) == 1.0


class Fake:
    """Known speeds in place of a calibration."""

    def sampling(self, spec: Any, images: int) -> Rate:
        return Rate(2.0, "a block")

    def decoding(self, spec: Any, side: int, device: str, count: int = 0) -> PerImage:
        return PerImage(0.5, "a decoder")

    def features(self, *_: Any) -> PerImage:
        return PerImage(0.25, "an extractor")


QUALITY = """
suite: s
defaults: {method: dit-digits, weights: 'zoo:dit-digits', dataset: digits, sampler: ddim, steps: 4}
cells: [{measure: [flops, quality]}]
quality: {samples: 100, shard: 25, seed_blocks: 2}
"""


def test_hours_are_the_gmacs_of_all_images_over_the_rate_and_grow_with_the_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "Calibration", Fake)
    costs = {}
    for limit in (50, 100):
        plan = planned(tmp_path, QUALITY, limit=limit)
        (costs[limit],) = estimate(plan, RunStore(tmp_path / "run"), everything(plan), True, set()).cells.values()
    first, second = costs[50], costs[100]
    assert (first.work.images, second.work.images) == (100, 200), "of both seed blocks"
    assert first.count.gmacs_image is not None
    assert first.seconds["sampling"] == pytest.approx(first.count.gmacs_image * 100 / 2.0)
    assert second.seconds["sampling"] == pytest.approx(2 * first.seconds["sampling"])
    assert (first.seconds["features"], second.seconds["features"]) == (25.0, 50.0)
    assert "decoding" not in first.seconds


def test_shards_are_whole_batches_and_images_that_cells_share_are_counted_once(tmp_path: Path) -> None:
    text = QUALITY.replace("cells: [{", "baseline: a\ncells: [{name: a, measure: [quality]}, {name: b, seed: 0, ")
    text = text.replace("samples: 100", "samples: 110").replace("[flops, quality]", "[quality, paired]")
    plan = planned(tmp_path, text)
    work = workloads(plan, RunStore(tmp_path / "run"), everything(plan))
    assert work["a"].images == 2 * 125 and work["b"].images == 0
    assert work["b"].features == 220
    alone = planned(tmp_path, text, only="b")
    assert workloads(alone, RunStore(tmp_path / "run"), everything(alone))["b"].images == 2 * 125


def test_time_of_a_clock_is_its_budget_or_longer_where_a_call_is() -> None:
    options = {"levels": ["step", "sample"], "warmup_s": 1.0, "budget_s": 10.0, "rounds": 3}
    latency = measurements()["latency"]
    assert latency.seconds(options, Pace(0.0, 0.0, False, "cpu")) == 2 * 11
    assert latency.seconds(options, Pace(0.0, 0.0, True, "cpu")) == 2 * 12
    slow = latency.seconds(options, Pace(0.1, 20.0, True, "cpu"))
    assert slow == (2 * 1 + 10) + (2 * 3 * 20 + 3 * 4 * 20)
    energy = measurements()["energy"]
    assert energy.seconds({"idle_s": 5.0, "window_s": 20.0}, Pace(1.0, 30.0, False, "cuda")) == 35


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (59, "59 s"), (90, "1.5 min"), (5400, "1.5 h"), (47 * 3600, "47 h")]
)
def test_times_are_told_in_two_digits(seconds: float, text: str) -> None:
    assert duration(seconds) == text
    assert (duration(3 * 86400), size(9.83e9), size(999)) == ("3.0 d", "9.8 GB", "999 B")


# --- disk --------------------------------------------------------------------------------------------------


def test_disk_is_what_shards_and_decoded_files_take_and_nothing_once_they_are_there(tmp_path: Path) -> None:
    make_autoencoder_files(tmp_path / "vae", 0)
    save_state(tmp_path / "w.safetensors", methods.build("dit-testing", in_channels=4).state_dict(), {})
    (tmp_path / "ditbench.toml").write_text("[references.mine]\npath = 'w.safetensors'\n")
    text = HEAD.replace("steps: 3", "steps: 1") + (
        "baseline: a\ncells: [{name: a, config: {in_channels: 4}, weights: w.safetensors, measure: [flops], "
        "decoder: {weights: vae, batch: 20}}, {name: b, config: {in_channels: 4}, weights: w.safetensors, "
        "decoder: {weights: vae, batch: 20}, guidance: 2, measure: [paired]}]\nquality: {samples: 40, shard: 20}\n"
    )
    plan, store = planned(tmp_path, text), RunStore(tmp_path / "run")
    before = workloads(plan, store, everything(plan))["b"]
    assert (before.images, before.pictures) == (80, 80), "its own and the baseline's"
    written = {"latents": 0, "pictures": 0}
    for cell in plan.cells:
        spec = cell.spec
        assert spec.decoder is not None and spec.decoder.weights is not None and spec.weights is not None
        assert picture_shape(spec) == (3, 64, 64)
        folder = store.samples_folder(samples_identity(spec, 20, torch.__version__))
        shards = generate_shards(bind(spec, weights_path(spec.weights)), 40, 20, folder, lambda *_: None)
        decoder = bind_decoder(spec.decoder, Path(spec.decoder.weights), "cpu")
        files = decode_shards(decoder, shards, decoded_folder(folder, spec.decoder), lambda *_: None)
        written["latents"] += sum(path.stat().st_size for path in shards)
        written["pictures"] += sum(path.stat().st_size for path in files)
    for kind, size_ in written.items():
        assert before.disk[kind] == pytest.approx(size_, rel=0.02), kind
    after = workloads(plan, store, everything(plan))["b"]
    assert (after.images, after.pictures) == (0, 0)
    assert after.disk["latents"] == after.disk["pictures"] == 0


def test_disk_of_features_is_what_the_cache_takes(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, QUALITY.replace("seed_blocks: 2", "seed_blocks: 1")), RunStore(tmp_path / "run")
    spec = plan.cells[0].spec
    assert spec.weights is not None
    before = workloads(plan, store, everything(plan))["dit-digits-ddim-4"]
    folder = store.samples_folder(samples_identity(spec, 25, torch.__version__))
    shards = generate_shards(bind(spec, weights_path(spec.weights)), 100, 25, folder, lambda *_: None)
    cache = FeatureCache(store.features_folder)
    collect(ShardImages(shards, 100), DigitExtractor(), count=100, batch=25, cache=cache)
    written = sum(path.stat().st_size for path in store.features_folder.iterdir())
    assert before.disk["features"] == pytest.approx(written, rel=0.05)


def test_widths_of_features_are_those_of_the_extractors() -> None:
    quality = measurements()["quality"]
    assert quality.features({"protocol": "digits"}) == sum(DigitExtractor().dims.values())
    assert quality.features({"protocol": "adm"}) == 2048 + 1008 + 17 * 17 * _SPATIAL_CHANNELS


def test_a_full_disk_is_told_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text(QUALITY)
    for free, told in ((10**4, True), (10**9, False)):
        monkeypatch.setattr("ditbench.harness.forecast.forecast._free", lambda folder, free=free: free)
        show_plan(str(tmp_path / "s.yaml"), tmp_path / "run", None, None, None, False, timing=False)
        assert ("does not fit on the disk" in capsys.readouterr().out) == told


# --- waiting -----------------------------------------------------------------------------------------------

WAITING = HEAD + (
    "baseline: tiny\ncells:\n  - {name: big, method: dit-xl-2, weights: 'asset:dit-xl-2-256'}\n"
    "  - {name: random, method: dit-xl-2}\n  - {name: tiny}\n"
)


def test_a_cell_without_its_file_waits_and_is_never_taken_for_random_weights(tmp_path: Path) -> None:
    big, random, tiny = planned(tmp_path, WAITING).cells
    assert big.measurements == () and random.measurements and tiny.measurements
    (waiting,) = big.waiting
    assert list(waiting.measurements) == ["flops"] and "dit-xl-2-256" in waiting.reason and waiting.expected
    stored = planned(tmp_path, WAITING).to_json()["cells"][0]
    assert stored["measurements"] == {} and stored["waiting"] == {"flops": waiting.reason}
    assert stored["spec"]["weights"] == "asset:dit-xl-2-256" and not stored["spec"]["cost_only"]


def test_what_is_measured_beside_a_baseline_without_its_file_waits_too(tmp_path: Path) -> None:
    text = WAITING.replace("baseline: tiny", "baseline: big").replace(
        "{name: tiny}", "{name: tiny, measure: [flops, latency]}"
    )
    (tiny,) = planned(tmp_path, text, only="tiny").cells
    assert [m.name for m in tiny.measurements] == ["flops"]
    assert [list(each.measurements) for each in tiny.waiting] == [["latency"]]


def test_a_protocol_without_its_files_keeps_quality_waiting_and_counts_run(tmp_path: Path) -> None:
    save_state(tmp_path / "w.safetensors", methods.build("dit-testing").state_dict(), {})
    text = HEAD + (
        "cells: [{weights: w.safetensors, measure: [flops, quality]}]\n"
        "quality: {protocol: adm, reference: imagenet-256}\n"
    )
    (cell,) = planned(tmp_path, text).cells
    assert [m.name for m in cell.measurements] == ["flops"]
    reasons = " ".join(each.reason for each in cell.waiting)
    assert "inception-2015" in reasons and "imagenet-256" in reasons
    with pytest.raises(InputError, match="did you mean 'adm'"):
        planned(tmp_path, text.replace("protocol: adm", "protocol: amd"))


def test_a_run_refuses_a_chosen_cell_that_waits_before_anything_and_tells_the_only_that_does_without(
    tmp_path: Path,
) -> None:
    (tmp_path / "s.yaml").write_text(WAITING)
    loaded = load_suite(tmp_path / "s.yaml")
    whole = make_plan(loaded)
    with pytest.raises(
        InputError, match=r"s\.yaml:5:\d+: .*dit-xl-2-256.*1 of 3 cells wait.*: big; those that can run"
    ):
        run(loaded, whole, whole, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    part = make_plan(loaded, only="tiny")
    refuse_waiting(part)
    assert todo(part, RunStore(tmp_path / "run")).keys() == {"tiny"}
    refuse_waiting(whole, expected=False)


def test_a_run_of_other_cells_runs_and_its_report_says_what_waits(tmp_path: Path) -> None:
    from ditbench.cli.run import report_folder

    (tmp_path / "s.yaml").write_text(WAITING.replace("baseline: tiny", "baseline: big"))
    loaded = load_suite(tmp_path / "s.yaml")
    done = run(loaded, make_plan(loaded, only="tiny"), make_plan(loaded), tmp_path / "run")
    assert (done.ran, done.failures) == (1, ())
    report_folder(tmp_path / "run")
    text = (tmp_path / "run" / "report" / "report.md").read_text()
    assert "Not run yet: random. Waiting for files: big." in text


def test_a_path_of_the_suite_s_own_that_is_not_there_is_a_fault_of_plan_too_but_not_of_cells_left_out(
    tmp_path: Path,
) -> None:
    text = HEAD + "cells:\n  - {name: a}\n  - {name: b, weights: none.pt}\n"
    with pytest.raises(InputError, match=r"s\.yaml:5:24: no such weights file"):
        refuse_waiting(planned(tmp_path, text), expected=False)
    refuse_waiting(planned(tmp_path, text, only="a"))


def test_plan_lists_each_missing_file_once_and_counts_what_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = WAITING.replace(
        "- {name: random",
        "- {name: again, method: dit-xl-2, weights: 'asset:dit-xl-2-256', steps: 9}\n  - {name: random",
    )
    (tmp_path / "s.yaml").write_text(text)
    show_plan(str(tmp_path / "s.yaml"), tmp_path / "run", None, None, None, False, timing=False)
    shown = capsys.readouterr().out
    assert shown.count("[1] waits for a file") == 1 and "[2]" not in shown
    assert sum(line.endswith("waits [1]") for line in shown.splitlines()) == 2
    assert "2 of 4 measurements to run; 0 cached. 2 wait for files." in shown
    assert max(len(line) for line in shown.split("[1] waits for a file")[0].splitlines()) <= 120


def test_what_another_cell_measures_too_is_shared_and_not_called_cached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text(HEAD + "cells: [{name: a}, {name: b}]\n")
    show_plan(str(tmp_path / "s.yaml"), tmp_path / "run", None, None, None, False, timing=False)
    assert "1 of 2 measurements to run; 0 cached, 1 shared with another cell." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wanted", "others", "glob"),
    [
        (["dit-a", "dit-b"], ["dydit"], "dit-*"),
        (["a-512", "b-512"], ["a-256"], "*-512"),
        (["a"], ["ab"], "a"),
        (["a", "b"], ["c"], None),
    ],
)
def test_a_glob_keeps_all_that_can_run_and_nothing_that_waits(
    wanted: list[str], others: list[str], glob: str | None
) -> None:
    assert glob_of(wanted, others) == glob


# --- the verb ----------------------------------------------------------------------------------------------


def test_json_has_every_number_with_its_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.yaml").write_text(QUALITY)
    show_plan(str(tmp_path / "s.yaml"), tmp_path / "run", None, None, None, True, timing=False)
    found = json.loads(capsys.readouterr().out)
    (cell,) = found["cells"]
    assert cell["to_make"] == {"images": 200, "pictures": 0, "features": 200}
    assert cell["gmacs_sampling"] == pytest.approx(200 * cell["gmacs_image"])
    assert found["totals"]["disk_bytes"] == sum(cell["disk_bytes"].values()) > 200 * 8 * 8 * 4
    assert cell["estimated_seconds"] == {} and found["timed"] == []


def test_planning_what_is_all_cached_imports_no_torch(tmp_path: Path) -> None:
    suite = tmp_path / "s.yaml"
    suite.write_text(QUALITY)
    store = RunStore(tmp_path / "run")
    (cell,) = make_plan(load_suite(suite)).cells
    gmacs = Quantity(value=7.0, unit="GMAC", interval="exact count")
    where = Provenance(
        command="", started="", seconds=0, seed=0, device="cpu", device_name="", threads=1, versions={}, git=None,
        weights_sha256=None,
    )  # fmt: skip
    for each in cell.measurements:
        record = Record(
            identity=each.identity, suite="s", spec=cell.spec, measurement=each.name, status="ok",
            values={"gmacs_image": gmacs}, provenance=where,
        )  # fmt: skip
        store.commit(record)
    code = (
        "import sys; from pathlib import Path; from ditbench.cli.plan import show_plan;"
        f"show_plan({str(suite)!r}, Path({str(tmp_path / 'run')!r}), None, None, None, False, timing=False);"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "0 of 2 measurements to run; 2 cached." in done.stdout
    assert done.stdout.strip().endswith("False")


def test_a_decoder_whose_file_is_there_is_timed_itself_and_another_one_by_random_weights(tmp_path, monkeypatch):
    bound: list[Path | None] = []
    real = picture_decoder.bind_decoder

    def seen(spec: DecoderSpec, weights: Path | None, device: str) -> picture_decoder.PictureDecoder:
        bound.append(weights)
        return real(spec, folder, device)  # a small one in both cases

    folder = make_autoencoder_files(tmp_path / "small", seed=0)
    monkeypatch.setattr(picture_decoder, "bind_decoder", seen)
    calibration = Calibration()
    found = DecoderSpec(weights=str(folder), weights_sha256=weights_digest(str(folder), folder=True))
    assert calibration.decoding(found, 16, "cpu").seconds > 0
    calibration.decoding(DecoderSpec(weights=str(tmp_path / "gone")), 16, "cpu")
    calibration.decoding(found, 16, "cpu")
    assert bound == [folder, None]
