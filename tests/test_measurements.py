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
    ("flops", {"samples": 100}, "f9b5c6853e3f9135208614374a70307337428ec00c76c8311a0e83b93ad551f5"),
    ("latency", LATENCY, "0eb615318ec7f3fd24485635cc43af980d1c0ba20cd22a35fb1b2aacf86067f5"),
    (
        "latency",
        {**LATENCY, "levels": ["step", "image"]},
        "e973b7e5a9a22d850ee29d27ef3a9874b961dde1998059afea9630d5f2fd0149",
    ),
    ("kernels", {"batch": 8, "steps": 8}, "2634b91fb0e8d573771d53796a2e785681a5fe2869c7aa2e2a643c67ca7da97c"),
    ("memory", {"batch": 8}, "e8f3af01a4b61320b53732e224a1f65b8e811c0fbb46b91ff1a31afd861ddaa9"),
    (
        "energy",
        {"batch": 8, "window_s": 20.0, "idle_s": 5.0},
        "7f6fed884bdab095e1739d191ea82c1080500735957f25882be7ef8427ea81fe",
    ),
    (
        "decode",
        {**TIMED, "precision": 0.02, "side": 32},
        "22be4376dfde2b0aa016f4f0342d59b4605281f58b3381ebb2c7457a750f2d86",
    ),
    (
        "training",
        {"rounds": 3, "budget_s": 10.0, "warmup_s": 1.0, "precision": 0.02},
        "a84400ee0738dc8d0539ebb9852e5ca44604df2ac3a98a6e82281dd97058f38d",
    ),
    ("agreement", {"samples": 64}, "7f6ce92132f8bfe88db3abf4fc62fa0752cafdc5daeaa52f17257810b82eff83"),
    (
        "quality",
        {"protocol": "digits", "reference": None, "samples": 1000, "shard": 100, "seed_blocks": 1},
        "1657fc802d94f50af330033bee18264274850d3155754986be630b89c62127f6",
    ),
    (
        "paired",
        {"lpips": None, "samples": 1000, "shard": 100, "lpips_sha256": None},
        "33a4ada8b9f7271a77d2cd01e83571ec1851d17d3e281d391eda3ab7adbfcac2",
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
    assert count == "1ebee3617011da56e54d341eb2c88411c0dd5b4f661b0588a298f1a681424a0c"
    samples = samples_identity(GUIDED, 100, "2.13.0")
    assert samples == "32c94b1e3e8192b639f6ee6d049ebc8dba476c25d39f78495d3a21e3f899dfdc"


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
