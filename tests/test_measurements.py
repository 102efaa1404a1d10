"""Measurements as values: addresses that stay, and what one module and one line add."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_plan import GUIDED
from weight_norm import WeightNorm

from ditbench.cli.listing import show_list
from ditbench.cli.plan import show_plan
from ditbench.harness.errors import InputError
from ditbench.harness.measurements.registry import measurement_identity, measurements
from ditbench.harness.run.runner import run
from ditbench.harness.store.identity import samples_identity
from ditbench.harness.store.store import RunStore
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import Plan, make_plan
from ditbench.harness.suite.schema import suite_model

FINGERPRINT = {
    "device": "cpu",
    "device_name": "one CPU",
    "cpu": "one CPU",
    "machine": "x86_64",
    "python": "3.11.9",
    "physical_cores": 2,
    "driver": None,
    "torch": "2.13.0",
}
TIMED = {"batch": 8, "rounds": 3, "budget_s": 10.0, "warmup_s": 1.0}
LATENCY = {**TIMED, "precision": 0.01, "levels": ["step", "sample"]}
# measurement, options -> the address under which records of it lie since its present version
ADDRESSES: list[tuple[str, dict[str, Any], str]] = [
    ("flops", {"samples": 100}, "4ea84e7dc2844a05debfbe8f0b098083549a7e5f04125a1580d8ea7ddd95778a"),
    ("latency", LATENCY, "d39787a370cafb8793b8a0cd2dd0a2f4ac512f0f9371cf492892b9f37c50dcfe"),
    (
        "latency",
        {**LATENCY, "levels": ["step", "image"]},
        "ba3f6ee351e09783080b1e010bec84141a6288c7f30c9a4a6d63e11b6b7351ff",
    ),
    ("kernels", {"batch": 8, "steps": 8}, "50b625e26d5f915b9bdf3f80242651ce2d61ae2f3180469c94a010cf43828810"),
    ("memory", {"batch": 8}, "0e6ed19a1cc0266ce57183598b17c125b4fb37f9c770e68174020195aeea6233"),
    (
        "energy",
        {"batch": 8, "window_s": 20.0, "idle_s": 5.0},
        "51db4a35d95af5b677c353f2700b3a626c3536c41a4db6361bdfe8d3728137ae",
    ),
    (
        "decode",
        {**TIMED, "precision": 0.02, "side": 32},
        "22be4376dfde2b0aa016f4f0342d59b4605281f58b3381ebb2c7457a750f2d86",
    ),
    (
        "training",
        {"rounds": 3, "budget_s": 10.0, "warmup_s": 1.0, "precision": 0.02},
        "ebc1a547482e3abcc6222e423cfa8118897a8e830b5dc20e7977192be599aa95",
    ),
    ("agreement", {"samples": 64}, "14fff8d673c90c654981f297e56b61629abbe95f282e98eebb54bc6946e58e61"),
    (
        "quality",
        {"protocol": "digits", "reference": None, "samples": 1000, "shard": 100, "seed_blocks": 1},
        "01b09e1404d24abe502a0821ab42851912a57e6a9baab4e49f5128971f9c7a3b",
    ),
    (
        "paired",
        {"lpips": None, "samples": 1000, "shard": 100, "lpips_sha256": None},
        "977d8ef54a6a06ef98c7b618a29ecec9e03378eb70c2caf2003ceb3fb1928a29",
    ),
]


@pytest.mark.parametrize(("name", "options", "address"), ADDRESSES)
def test_records_made_before_are_found_again(name, options, address):
    baseline = GUIDED.model_copy(update={"cell": "base", "steps": 20})
    found = measurement_identity(
        name, GUIDED, options, fingerprint=FINGERPRINT, baseline=baseline, protocol="digits-v2-0123abcd"
    )
    assert found == address


def test_samples_made_before_and_counts_without_weights_are_found_again():
    bare = GUIDED.model_copy(update={"weights": None, "weights_sha256": None})
    count = measurement_identity("flops", bare, {"samples": 100}, fingerprint=FINGERPRINT)
    assert count == "d511da06d6f9a8b2d13a6802112deb3acb384ad56b7eb67e87882e201dbed725"
    samples = samples_identity(GUIDED, 100, "2.13.0")
    assert samples == "8b3119549470b22f7d943a462836302c7393a8f5644fea12bb6b5cc1e86ca5b6"


# A measurement that is not shipped


SUITE = """
suite: own
cells:
  - {name: one, method: dit-testing, measure: [flops, weight-norm]}
weight-norm: {order: 1}
"""


@pytest.fixture
def registered(monkeypatch):
    """The one line."""
    monkeypatch.setattr(measurements(), "_known", {each.name: each for each in measurements()})
    measurements().add(WeightNorm())


def planned(folder: Path, text: str = SUITE) -> Plan:
    (folder / "own.yaml").write_text(text)
    return make_plan(load_suite(folder / "own.yaml"))


def test_one_module_and_one_line_make_a_measurement_that_runs_and_is_shown(registered, tmp_path):
    plan = planned(tmp_path)
    done = run(load_suite(tmp_path / "own.yaml"), plan, plan, tmp_path / "out")
    assert done.failures == () and done.ran == 2
    record = RunStore(tmp_path / "out").cells()["one"]["weight-norm"]
    assert record.values["norm"].value > 1 and record.options == {"order": 1}
    assert record.detail["columns"] == [{"name": "norm", "title": "norm of the weights", "unit": "", "digits": 3}]
    assert run(load_suite(tmp_path / "own.yaml"), plan, plan, tmp_path / "out").reused == 2


def test_its_options_and_name_are_checked_at_their_places(registered, tmp_path):
    for text, words in (
        (
            SUITE.replace("order: 1", "order: 0"),
            r"own.yaml:5:22: weight-norm.order: 0 is not allowed",
        ),
        (SUITE.replace("order: 1", "ordr: 1"), r"own.yaml:5:15: unknown key 'ordr' \(did you mean 'order'\?\)"),
        (SUITE.replace("flops, weight-norm", "weight-nrm"), r"own.yaml:4:48: .*did you mean 'weight-norm'"),
    ):
        with pytest.raises(InputError, match=words):
            planned(tmp_path, text)


def test_it_is_listed_addressed_by_its_options_and_waits_for_weights(registered, tmp_path, capsys):
    show_list("metrics", as_json=True)
    assert {"name": "weight-norm", "summary": "the norm of all weights"} in json.loads(capsys.readouterr().out)
    first, second = planned(tmp_path), planned(tmp_path, SUITE.replace("order: 1", "order: 3"))
    before, after = (each.cells[0].measurements for each in (first, second))
    changed = [a.identity != b.identity for a, b in zip(before, after, strict=True)]
    assert changed == [False, True]
    show_plan(str(tmp_path / "own.yaml"), tmp_path / "out", None, None, None, as_json=True, timing=False)
    assert json.loads(capsys.readouterr().out)["cells"][0]["missing"] == ["flops", "weight-norm"]
    waiting = planned(tmp_path, SUITE.replace("measure", "weights: absent.pt, measure")).cells[0]
    assert waiting.measurements == () and {*waiting.waiting[0].measurements} == {"flops", "weight-norm"}


def test_no_measurement_takes_the_name_of_another_or_of_a_field_of_the_suite(registered, monkeypatch):
    with pytest.raises(ValueError, match="registered twice"):
        measurements().add(WeightNorm())
    monkeypatch.setattr(WeightNorm, "name", "threads")
    measurements().add(WeightNorm())
    with pytest.raises(ValueError, match="a suite has a field of that name"):
        suite_model()
