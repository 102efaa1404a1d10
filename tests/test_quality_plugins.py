"""Quality protocols, extractors and figures that ditbench does not ship."""

import json
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ditbench.cli.listing import show_list
from ditbench.cli.scoring import make_reference_file
from ditbench.harness.errors import InputError
from ditbench.harness.quality.build import build_extractor_of
from ditbench.harness.quality.definitions import definition, definitions
from ditbench.harness.quality.metrics import metrics
from ditbench.harness.quality.plugged import extractors
from ditbench.harness.quality.protocols import protocol
from ditbench.harness.quality.score import score_images
from ditbench.harness.run.runner import run
from ditbench.harness.store.records import Record
from ditbench.harness.store.store import RunStore
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import Plan, make_plan
from ditbench.report.run_view import load_run
from ditbench.report.tables.more import more_figures

SUITE = """
suite: figures
cells:
  - {name: a, method: dit-digits, weights: "zoo:dit-digits", dataset: digits, steps: 2, measure: [quality]}
quality: {samples: 20, shard: 10, OPTIONS}
"""


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """The distribution, as if it were installed."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "quality_plugin")
    for known in (extractors, metrics, definitions):
        known.cache_clear()
    yield
    for known in (extractors, metrics, definitions):
        known.cache_clear()


def planned(folder: Path, options: str) -> Plan:
    (folder / "s.yaml").write_text(SUITE.replace("OPTIONS", options))
    return make_plan(load_suite(folder / "s.yaml"))


def ran(folder: Path, options: str) -> Record:
    plan = planned(folder, options)
    run(load_suite(folder / "s.yaml"), plan, plan, folder / "out")
    return RunStore(folder / "out").cells()["a"]["quality"]


def identity(plan: Plan) -> str:
    return plan.cells[0].measurements[0].identity


def test_a_named_metric_gives_figures_with_columns_and_one_without_says_why(tmp_path):
    record = ran(tmp_path, "metrics: [brightness, spread]")
    assert record.status == "ok", record.failure
    assert 0 < record.values["brightness"].value < 255 and record.values["frechet"].value > 0
    shown = {each["name"]: each["title"] for each in record.detail["columns"]}
    assert shown == {"brightness": "mean grey", "brightness_reference": "brightness_reference"}
    figures = more_figures(load_run(tmp_path / "out"))
    assert [(each.key, each.title) for each in figures] == [*shown.items()], "none of the protocol's own is shown twice"
    assert record.detail["not_available"]["spread"] == "fewer than 50 samples"
    stamps = record.detail["protocol"]["metrics"]
    assert [each.split(":")[0] for each in stamps] == ["brightness 7", "spread 1"] and "ditbench-figures" in stamps[0]


def test_metrics_of_seed_blocks_are_means_with_student_s_t(tmp_path):
    record = ran(tmp_path, "metrics: [brightness], seed_blocks: 3")
    found = record.values["brightness"]
    assert found.low < found.value < found.high and "seed blocks" in found.interval


def test_a_metric_counts_only_where_it_is_named_and_then_with_its_version(tmp_path, monkeypatch):
    plain, named = planned(tmp_path, "metrics: []"), planned(tmp_path, "metrics: [brightness]")
    assert identity(plain) == identity(planned(tmp_path, "seed_blocks: 1")) != identity(named)
    newer = replace(metrics()["brightness"], version="8")
    monkeypatch.setattr("ditbench.harness.quality.protocols.metric_of", lambda name: newer)
    assert identity(planned(tmp_path, "metrics: [brightness]")) != identity(named)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("metrics: [brightnes]", r"s.yaml:5:\d+: unknown metric 'brightnes' \(did you mean 'brightness'\?\)"),
        ("metrics: [absent]", r"s.yaml:5:\d+: metric 'absent' of ditbench-figures 2.0 cannot be imported: Module"),
        ("protocol: cornrs", r"s.yaml:5:\d+: unknown quality protocol 'cornrs' \(did you mean 'corners'\?\)"),
        ("protocol: gone", r"s.yaml:5:\d+: extractor 'gone' of ditbench-figures 2.0 cannot be imported: Module"),
        ("protocol: blank", r"s.yaml:5:\d+: extractor 'blank' of ditbench-figures 2.0: .* has no name and no version"),
        ("protocol: corners", r"s.yaml:5:\d+: protocol corners needs a reference"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line_at_its_place(options, words, tmp_path):
    with pytest.raises(InputError, match=words):
        planned(tmp_path, options)


def test_a_figure_s_name_is_given_once(tmp_path):
    record = ran(tmp_path, "metrics: [taken]")
    assert record.failure is not None
    assert "metric 'taken' of ditbench-figures 2.0 gives a figure called frechet" in record.failure.message


def test_an_extractor_is_a_protocol_against_a_reference_of_the_user_s(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "real.npz", arr_0=pictures)
    reference = tmp_path / "corners.npz"
    make_reference_file(str(tmp_path / "real.npz"), reference, "corners", None, "cpu", 20, tmp_path / "features")
    record = ran(tmp_path, f"protocol: corners, reference: {reference}")
    assert record.status == "ok", record.failure
    assert record.protocol is not None and record.protocol.startswith("corners-v3-")
    assert record.detail["protocol"]["extractor"] == "means of quarters 3" and "accuracy" not in record.values
    alike = score_images(tmp_path / "real.npz", "corners", str(reference))
    assert alike.values["frechet"].value == pytest.approx(0, abs=1e-6)


def test_an_extractor_that_gives_another_width_than_it_says_is_refused():
    import torch

    with pytest.raises(InputError, match=r"extractor 'wrong' of ditbench-figures 2.0: .* \(2, 4\), not \(2, 5\)"):
        build_extractor_of("wrong", "cpu")(torch.zeros(2, 8, 8, 1, dtype=torch.uint8))


def test_lists_name_them_and_import_none(capsys):
    show_list("protocols", as_json=True)
    assert {"corners", "gone"} <= {each["name"] for each in json.loads(capsys.readouterr().out)}
    show_list("metrics", as_json=True)
    assert {"brightness", "absent"} <= {each["name"] for each in json.loads(capsys.readouterr().out)}
    assert find_spec("ditbench_absent") is None, "listing it would have failed"


def test_one_line_registers_a_quality_protocol(tmp_path):
    own = replace(definition("digits"), name="own-digits", version=1, estimators="mine")
    definitions().add(own)
    assert protocol("own-digits").id.startswith("own-digits-v1-") and own.name in definitions().names()
    images = cache(definition("digits").reference.images)(definition("digits").reference.sha256)
    np.savez(tmp_path / "digits.npz", arr_0=images[:200])
    assert score_images(tmp_path / "digits.npz", "own-digits", None).protocol.startswith("own-digits-v1-")
    with pytest.raises(ValueError, match="registered twice"):
        definitions().add(own)
