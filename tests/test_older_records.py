"""Records of older versions are read in today's form, and nothing that they say is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ditbench.harness.store.records import CellSpec, Record
from ditbench.harness.store.store import RunStore
from ditbench.methods.older_records import upgrade

RESULTS = Path(__file__).parent.parent / "results"
CURVE = {"mean": [0.1], "low": [0.05], "high": [0.2]}


def test_switched_parts_become_shares() -> None:
    old = {"activity": {"timesteps": [9.0, 0.0], "heads": [[0.5, 1.0], [1.0, 1.0]], "groups": None, "tokens": None}}
    facets = upgrade("flops", {}, old | {"parts": {"width routers": 0.1}})
    assert facets.keys() == {"facets", "parts"}
    (shares,) = facets["facets"]["shares"]
    assert (shares["name"], shares["values"]) == ("attention heads", [[0.5, 1.0], [1.0, 1.0]])
    assert "TDW" in shares["about"] and facets["facets"]["timesteps"] == [9.0, 0.0]
    assert upgrade("flops", {}, {"activity": None}) == {"facets": None}


def test_patch_sizes_by_step_become_labels_and_their_compute_stands_beside() -> None:
    old = {
        "timesteps": [9, 0],
        "patch": [4, 2],
        "guide": None,
        "sizes": [2, 4],
        "fraction": 0.6,
        "fractions": {"a": 0.5},
    }
    new = upgrade("flops", {}, {"schedule": old})
    (labels,) = new["facets"]["labels"]
    assert (labels["name"], labels["values"], labels["guidance"]) == ("patch size", ["4", "2"], None)
    assert labels["levels"] == ["2", "4"]
    assert new["compute"] == {"of": "patch size 2 throughout", "share": 0.6, "by_convention": {"a": 0.5}}


def test_agreement_is_of_variants_and_the_coarser_come_last() -> None:
    old = {"timesteps": [0], "powerful": 2, "samples": 8, "sizes": {"8": CURVE, "4": CURVE}}
    new = upgrade("agreement", {}, old)
    assert new["reference"] == "patch size 2" and list(new["variants"]) == ["patch size 4", "patch size 8"]
    assert new.keys() == {"timesteps", "reference", "samples", "variants"}


def test_how_branches_ran_becomes_a_choice_with_its_explanation() -> None:
    tried = {"patch 2, guidance 4": {"separate": 2.0, "packed": 1.0}}
    new = upgrade("latency", {}, {"layouts_ms": tried, "batch": 8})
    assert new["choices_ms"] == tried and "separate" in new["choices_about"] and new["batch"] == 8
    assert upgrade("latency", {}, {"layouts_ms": {}}) == {"choices_ms": {}}


@pytest.mark.parametrize(
    ("word", "adapter", "kind", "size", "refines"),
    [
        ("full", None, "full", "", None),
        ("lora", {"rank": 5, "experts": 1}, "LoRA", "r=5", None),
        ("td-lora", {"rank": 2, "experts": 3}, "TD-LoRA", "r=2 ×3", "LoRA"),
    ],
)
def test_a_way_of_training_brings_its_own_words_and_what_it_can_be_compared_with(
    word: str, adapter: dict[str, int] | None, kind: str, size: str, refines: str | None
) -> None:
    spec = {"config": {"adapter": adapter, "patch_sizes": [2, 4]}}
    recipe = {"base": "zoo:dit-digits", "dataset": "digits", "dynamic": {"target": 0.5}, "steps": 10, "batch": 4}
    way = upgrade("training", spec, {"recipe": recipe, "adaptation": word, "adapter": adapter})["adaptation"]
    assert (way["kind"], way["size"], way["refines"]) == (kind, size, refines)
    assert way["family"]["config"] == {"patch_sizes": [2, 4]} and way["family"]["target"] == 0.5
    assert way["course"] == {"steps": 10, "batch": 4, "flexible": None}


def test_an_imposed_cost_is_named_where_older_plans_only_had_the_config() -> None:
    given = {"cell": "c", "method": "dydit-testing", "sampler": "ddim", "steps": 2}
    assert CellSpec.model_validate(given | {"config": {"activity": 0.5}}).imposed == "activity"
    assert CellSpec.model_validate(given).imposed == ""
    assert CellSpec.model_validate(given | {"imposed": "ratio"}).imposed == "ratio"


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in RESULTS.glob("*/plan.json")), ids=lambda path: path.name
)
def test_committed_records_are_read_in_todays_form_and_read_so_again(folder: Path) -> None:
    old = {"activity", "schedule", "powerful", "layouts_ms"}
    for path in (folder / "records").glob("*.json"):
        record = RunStore(folder).load(path.stem)
        assert record is not None and not old & record.detail.keys()
        stored = Record.model_validate_json(record.model_dump_json())
        assert upgrade(stored.measurement, stored.spec.model_dump(), stored.detail) == stored.detail == record.detail
        assert record.values.keys() == json.loads(path.read_text())["values"].keys()
