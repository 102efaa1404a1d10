"""Plans and identities: what a cell becomes, and exactly which fields its address covers."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ditbench.harness import environment
from ditbench.harness.assets import locations as weights
from ditbench.harness.errors import InputError
from ditbench.harness.measurements.registry import measurement_identity, measurements
from ditbench.harness.store.identity import canonical_json, samples_identity, seed_blocks
from ditbench.harness.store.records import CellSpec, DecoderSpec
from ditbench.harness.suite.checks import ddim_step_counts
from ditbench.harness.suite.expand import text_of
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import Plan, make_plan
from ditbench.harness.suite.schema import suite_model

MEASUREMENTS = measurements().names()
FINGERPRINT = {"device_name": "one CPU", "torch": "2.13.0"}
OPTIONS: dict[str, dict[str, Any]] = {name: {"batch": 8} for name in MEASUREMENTS}
OPTIONS["flops"] = {"samples": 100}
OPTIONS["agreement"] = {"samples": 64}
OPTIONS["quality"] = {"protocol": "digits", "samples": 1000, "shard": 100, "seed_blocks": 1}
OPTIONS["paired"] = {"samples": 1000, "shard": 100, "lpips": None, "lpips_sha256": None}
OPTIONS["decode"] = {"batch": 8, "side": 32}

GUIDED = CellSpec(
    cell="c",
    method="dit-testing",
    variant="",
    config={"depth": 2},
    weights="a.pt",
    weights_sha256="00",
    sampler="ddim",
    sampler_options={"spacing": "even", "eta": 0.0, "clip": False},
    steps=10,
    guidance_scale=1.5,
    guidance_interval=(0, 500),
    guidance_channels=3,
    dataset="digits",
    device="cpu",
    dtype="float32",
    mode="eager",
    decoder=DecoderSpec(weights="vae", weights_sha256="02"),
    threads=2,
    seed=0,
    measure=("flops",),
    batch=None,
    timeout_s=60.0,
    cost_only=False,
)

TIMED = {"latency", "kernels", "memory", "energy", "training"}
ON_THE_CLOCK = TIMED | {"decode"}  # decoding is timed too, but knows nothing of the denoiser
COUNTED = TIMED | {"flops"}
DRAWN = {"agreement", "quality", "paired", "samples"}
ALL = COUNTED | DRAWN
WATCHED = DRAWN | {"flops"}  # with weights, routers may be watched on samples

# field -> (another value, what must get a new identity). A new field of CellSpec must be put here on purpose.
FIELDS: dict[str, tuple[Any, set[str]]] = {
    "cell": ("d", set()),
    "method": ("dit-digits", ALL),
    "variant": ("v", set()),
    "config": ({"depth": 3}, ALL),
    "weights": ("the/same/file/elsewhere.pt", set()),
    "weights_sha256": ("01", ALL),
    "sampler": ("ddpm", ALL),
    "sampler_options": ({"spacing": "even", "eta": 0.0, "clip": True}, TIMED | WATCHED),
    "steps": (11, ALL),
    "guidance_scale": (1.6, WATCHED),
    "guidance_interval": ((0, 400), ALL),
    "guidance_weak": ("unconditional", ALL),
    "guidance_channels": (4, TIMED | WATCHED),
    "dataset": ("shapes", WATCHED),
    "conditions": ({"name": "labels", "only": [1]}, WATCHED),
    "device": ("cuda", ON_THE_CLOCK | WATCHED),
    "dtype": ("bfloat16", TIMED | WATCHED),
    "mode": ("compiled", TIMED | WATCHED),
    "attention": ("math", TIMED | WATCHED),
    "decoder": (DecoderSpec(weights="vae", weights_sha256="03"), {"decode", "quality", "paired"}),
    "published": (("a table",), set()),
    "threads": (1, ON_THE_CLOCK),
    "seed": (1, WATCHED),
    "measure": (("flops", "memory"), set()),
    "timeout_s": (5.0, set()),
    "batch": (64, set()),  # counts through the options of what is timed
    "cost_only": (True, set()),
    "imposed": ("activity", set()),
    "code": ("ditbench 9.9", ALL),
    "modifiers": (({"skip": {"layers": [1]}},), ALL),
}


def identities(
    spec: CellSpec,
    baseline: CellSpec | None = GUIDED,
    options: dict[str, dict[str, Any]] = OPTIONS,
    fingerprint: dict[str, Any] = FINGERPRINT,
    protocol: str = "digits/v1",
) -> dict[str, str]:
    found: dict[str, str] = {
        name: measurement_identity(
            name, spec, options[name], fingerprint=fingerprint, baseline=baseline, protocol=protocol
        )
        for name in MEASUREMENTS
        if baseline is not None or name != "paired"
    }
    samples = samples_identity(spec, options["quality"]["shard"], fingerprint["torch"])
    return {**found, "samples": samples}


def changed(first: dict[str, str], second: dict[str, str]) -> set[str]:
    return {name for name in first if first[name] != second[name]}


def with_option(measurement: str, name: str, value: Any) -> dict[str, dict[str, Any]]:
    return {**OPTIONS, measurement: {**OPTIONS[measurement], name: value}}


def test_every_field_of_a_cell_is_classified() -> None:
    assert set(FIELDS) == set(CellSpec.model_fields)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_changes_the_identities_that_it_can_change_the_value_of_and_no_other(field: str) -> None:
    value, expected = FIELDS[field]
    assert getattr(GUIDED, field) != value
    assert changed(identities(GUIDED), identities(GUIDED.model_copy(update={field: value}))) == expected


def test_spacing_changes_every_identity_because_dynamic_methods_plan_by_timestep() -> None:
    other = GUIDED.model_copy(update={"sampler_options": {"spacing": "ddim", "eta": 0.0, "clip": False}})
    assert changed(identities(GUIDED), identities(other)) == ALL


def test_being_guided_counts_for_work_and_interval_and_channels_only_when_guided() -> None:
    unguided = GUIDED.model_copy(update={"guidance_scale": 1.0})
    assert changed(identities(GUIDED), identities(unguided)) == ALL
    plain = unguided.model_copy(update={"guidance_interval": None, "guidance_channels": None})
    assert identities(unguided) == identities(plain)


def test_only_what_is_timed_in_turns_and_pairs_depend_on_the_baseline_and_not_on_its_name() -> None:
    slower = GUIDED.model_copy(update={"steps": 99})
    renamed = GUIDED.model_copy(update={"cell": "other"})
    assert changed(identities(GUIDED), identities(GUIDED, baseline=slower)) == {"latency", "training", "paired"}
    assert changed(identities(GUIDED, baseline=None), identities(GUIDED)) == {"latency", "training"}
    with pytest.raises(ValueError, match="baseline"):
        measurement_identity("paired", GUIDED, OPTIONS["paired"], fingerprint=FINGERPRINT)
    assert identities(GUIDED) == identities(GUIDED, baseline=renamed)


def test_hardware_counts_for_timings_and_torch_for_samples_too() -> None:
    other_machine = {**FINGERPRINT, "device_name": "another CPU"}
    other_torch = {**FINGERPRINT, "torch": "2.12.0"}
    assert changed(identities(GUIDED), identities(GUIDED, fingerprint=other_machine)) == ON_THE_CLOCK
    assert changed(identities(GUIDED), identities(GUIDED, fingerprint=other_torch)) == ON_THE_CLOCK | WATCHED


def test_a_larger_run_extends_the_shards_of_a_smaller_one() -> None:
    more = with_option("quality", "samples", 2000)
    assert changed(identities(GUIDED), identities(GUIDED, options=more)) == {"quality"}
    other_shard = with_option("quality", "shard", 50)
    assert changed(identities(GUIDED), identities(GUIDED, options=other_shard)) == {"quality", "samples"}


def test_a_protocol_counts_by_its_id() -> None:
    assert changed(identities(GUIDED), identities(GUIDED, protocol="digits/v2")) == {"quality"}
    with pytest.raises(ValueError, match="protocol"):
        measurement_identity("quality", GUIDED, OPTIONS["quality"], fingerprint=FINGERPRINT)


@pytest.mark.parametrize("name, value", [("samples", 2000), ("lpips_sha256", "00")])
def test_pairs_depend_on_their_number_and_on_the_backbone_of_lpips(name: str, value: Any) -> None:
    other = with_option("paired", name, value)
    assert changed(identities(GUIDED), identities(GUIDED, options=other)) == {"paired"}


@pytest.mark.parametrize("name, value", [("scale", 1.0), ("batch", 4), ("tile", 32), ("dtype", "bfloat16")])
def test_how_latents_are_decoded_counts_and_where_the_decoder_lies_does_not(name: str, value: Any) -> None:
    assert GUIDED.decoder is not None
    other = GUIDED.model_copy(update={"decoder": GUIDED.decoder.model_copy(update={name: value})})
    assert changed(identities(GUIDED), identities(other)) == {"decode", "quality", "paired"}
    moved = GUIDED.model_copy(update={"decoder": GUIDED.decoder.model_copy(update={"weights": "elsewhere"})})
    assert identities(moved) == identities(GUIDED)


def test_a_latency_depends_on_the_decoder_where_it_times_whole_images() -> None:
    images = with_option("latency", "levels", ["step", "image"])
    bare = GUIDED.model_copy(update={"decoder": None})
    first, second = identities(GUIDED, options=images), identities(bare, options=images)
    assert "latency" in changed(first, second)
    assert "latency" not in changed(identities(GUIDED), identities(bare))


def test_seed_blocks_are_new_figures_of_samples_that_the_first_block_shares() -> None:
    other = with_option("quality", "seed_blocks", 3)
    assert changed(identities(GUIDED), identities(GUIDED, options=other)) == {"quality"}
    seeds = [block.seed for block in seed_blocks(GUIDED, 3)]
    assert seeds == [0, 1, 2] and seed_blocks(GUIDED, 3)[0] == GUIDED


@pytest.mark.parametrize("measurement", [name for name in MEASUREMENTS if name not in ("quality", "paired")])
def test_options_of_a_measurement_change_its_identity_alone(measurement: str) -> None:
    other = with_option(measurement, "batch", 9)
    assert changed(identities(GUIDED), identities(GUIDED, options=other)) == {measurement}


@pytest.mark.parametrize("name", [*MEASUREMENTS, "samples"])
def test_a_new_version_of_a_measurement_forgets_its_old_records(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = identities(GUIDED)
    if name == "samples":
        monkeypatch.setattr("ditbench.harness.store.identity.SAMPLES_VERSION", 2)
    else:
        monkeypatch.setattr(measurements()[name], "version", measurements()[name].version + 1)
    assert changed(before, identities(GUIDED)) == ({name} if name != "samples" else WATCHED)


def test_without_weights_a_count_depends_on_no_sample() -> None:
    bare = GUIDED.model_copy(update={"weights": None, "weights_sha256": None})
    for field in ("seed", "dtype", "guidance_scale", "sampler_options"):
        assert "flops" not in changed(identities(bare), identities(bare.model_copy(update={field: FIELDS[field][0]})))


def test_canonical_json_ignores_the_order_of_keys_and_refuses_nan() -> None:
    assert canonical_json({"b": 1.5, "a": [True, None, "é"]}) == '{"a":[true,null,"\\u00e9"],"b":1.5}'
    with pytest.raises(ValueError):
        canonical_json(float("nan"))


def test_the_options_of_every_measurement_have_a_place_in_the_suite() -> None:
    fields = suite_model().model_fields
    assert all(fields[each.name].annotation is each.options for each in measurements())


# --- plans -------------------------------------------------------------------------------------------------


@pytest.fixture
def suite_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A path for a suite; beside it a zoo of one checkpoint and one known quality protocol."""
    (tmp_path / "zoo").mkdir()
    for name in ("dit-digits", "flexidit-digits", *(f"dydit-digits-{kind}" for kind in ("0.7", "0.5", "0.3"))):
        (tmp_path / "zoo" / f"{name}.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(weights, "zoo_folder", lambda: tmp_path / "zoo")

    def protocol(name: str, reference: str | None, metrics: list[str]) -> SimpleNamespace:
        if name != "digits":
            raise InputError(f"unknown protocol {name!r}")
        if reference is not None:
            raise InputError(f"unknown reference {reference!r}")
        return SimpleNamespace(id="digits/v1")

    monkeypatch.setattr("ditbench.harness.quality.protocols.protocol", protocol)
    return tmp_path / "suite.yaml"


def planned(
    file: Path, body: str, *, only: str | None = None, device: str | None = None, limit: int | None = None
) -> Plan:
    file.write_text("suite: s\n" + body)
    return make_plan(load_suite(file), only=only, device=device, limit=limit)


def names(plan: Plan) -> list[str]:
    return [cell.spec.cell for cell in plan.cells]


def test_a_matrix_is_the_product_of_its_lists_the_last_key_fastest(suite_file: Path) -> None:
    body = """
cells:
  - name: "{sampler}-{steps}-g{guidance}-p{config.patch_size}"
    method: dit-testing
    matrix: {sampler: [ddpm, ddim], steps: [5, 10], guidance.scale: [1.0, 1.50], config.patch_size: [2]}
"""
    plan = planned(suite_file, body)
    assert names(plan)[:3] == ["ddpm-5-g1-p2", "ddpm-5-g1.5-p2", "ddpm-10-g1-p2"]
    assert len(plan.cells) == 8
    last = plan.cells[-1].spec
    assert (last.sampler, last.steps, last.guidance_scale, last.config) == (
        "ddim",
        10,
        1.5,
        {"patch_size": 2},
    )
    assert last.variant == "patch_size=2"


def test_default_names_tell_every_swept_value(suite_file: Path) -> None:
    body = """
cells:
  - method: dit-testing
    guidance: 1.5
    matrix: {sampler: [ddim, dpm-solver++], sampler.clip: [true, false], weights: [null, "zoo:dit-digits"]}
"""
    assert names(planned(suite_file, body))[:3] == [
        "dit-testing-ddim-50-g1.5-clip-true-weights-none",
        "dit-testing-ddim-50-g1.5-clip-true-weights-dit-digits",
        "dit-testing-ddim-50-g1.5-clip-false-weights-none",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.50, "1.5"),
        (2.0, "2"),
        (0.001, "0.001"),
        (10, "10"),
        (True, "true"),
        (None, "none"),
        ([0, 5], "0-5"),
    ],
)
def test_values_in_names_have_no_trailing_zeros(value: Any, text: str) -> None:
    assert text_of(value) == text


def test_unset_fields_take_the_built_in_defaults(suite_file: Path) -> None:
    spec = planned(suite_file, "seed: 7\ncells: [{method: dit-testing}]\n").cells[0].spec
    assert (spec.cell, spec.sampler, spec.steps, spec.guidance_scale) == (
        "dit-testing-ddpm-50",
        "ddpm",
        50,
        1.0,
    )
    assert (spec.device, spec.dtype, spec.mode, spec.seed) == ("cpu", "float32", "eager", 7)
    assert spec.measure == ("flops",)
    assert spec.cost_only and spec.weights_sha256 is None
    assert spec.threads == environment.physical_cores()


def test_null_in_a_cell_undoes_a_default(suite_file: Path) -> None:
    body = """
defaults: {method: dit-digits, weights: 'zoo:dit-digits'}
cells: [{name: a}, {name: b, weights: null}]
"""
    trained, random = (cell.spec for cell in planned(suite_file, body).cells)
    assert trained.weights_sha256 == hashlib.sha256(b"weights").hexdigest() and not trained.cost_only
    assert random.weights is None and random.cost_only


def test_a_cell_may_change_the_sampler_and_keep_its_options(suite_file: Path) -> None:
    body = """
defaults: {method: dit-testing, sampler: {name: ddpm, clip: true}, guidance: {scale: 1.5, channels: 1}}
cells: [{sampler: ddim, guidance: 2}]
"""
    spec = planned(suite_file, body).cells[0].spec
    assert spec.sampler == "ddim" and spec.sampler_options["clip"] is True
    assert (spec.guidance_scale, spec.guidance_channels) == (2.0, 1)


def test_renaming_cells_and_suites_keeps_every_identity(suite_file: Path) -> None:
    def addresses(text: str) -> list[str]:
        plan = planned(suite_file, text)
        return [each.identity for cell in plan.cells for each in cell.measurements]

    cells = "cells: [{name: NAME, method: dit-testing, measure: [flops, latency, kernels, memory]}]\n"
    first = addresses("title: one\nbaseline: a\n" + cells.replace("NAME", "a"))
    second = addresses("title: two\ndescription: x\nbaseline: b\n" + cells.replace("NAME", "b"))
    assert first == second and len(first) == 4


def test_only_keeps_matching_cells_and_the_baseline_beside_them(suite_file: Path) -> None:
    body = """
baseline: a
defaults: {method: dit-testing, measure: [latency]}
cells: [{name: a}, {name: b, steps: 9}]
"""
    whole, part = planned(suite_file, body), planned(suite_file, body, only="b*")
    assert names(part) == ["b"]
    assert part.baseline is not None and part.baseline.cell == "a"
    assert part.cells[0].measurements == whole.cells[1].measurements
    with pytest.raises(InputError, match=r"no cell has such a name.*cells: a, b"):
        planned(suite_file, body, only="x*")


QUALITY = """
defaults: {method: dit-digits, weights: 'zoo:dit-digits', dataset: digits, measure: [quality]}
cells: [{}]
"""


def test_limit_lowers_the_number_of_samples_and_never_raises_it(suite_file: Path) -> None:
    def samples(limit: int | None) -> int:
        return int(planned(suite_file, QUALITY, limit=limit).cells[0].measurements[0].options["samples"])

    assert (samples(None), samples(40), samples(5000)) == (1000, 40, 1000)
    with pytest.raises(InputError, match="at least 20"):
        samples(19)


def test_device_overrides_every_cell(suite_file: Path) -> None:
    plan = planned(suite_file, "cells: [{method: dit-testing}]\n", device="cuda")
    assert plan.cells[0].spec.device == "cuda"
    assert plan.to_json()["command"] == f"ditbench run {suite_file} --device cuda"
    with pytest.raises(InputError, match="did you mean 'cuda'"):
        planned(suite_file, "cells: [{method: dit-testing}]\n", device="cud")


def test_quality_needs_a_dataset_and_a_known_protocol(suite_file: Path) -> None:
    with pytest.raises(InputError, match=r"suite\.yaml:3:\d+: quality needs a dataset"):
        planned(suite_file, QUALITY.replace("dataset: digits, ", ""))
    with pytest.raises(InputError, match=r"suite\.yaml:5:22: unknown protocol 'digit'"):
        planned(suite_file, QUALITY + "quality: { protocol: digit}\n")


def test_a_plan_knows_where_each_field_was_written(suite_file: Path) -> None:
    body = """defaults: {method: dit-testing}
cells:
  - name: "a{config.depth}"
    matrix: {config.depth: [2, 3], steps: [5]}
"""
    plan = planned(suite_file, body)
    place = plan.position("a3", "config.depth")
    assert (place.line, place.column) == (5, 32)
    assert plan.position("a3", "method").line == 2
    assert plan.position("a3", "weights").line == 4


def test_plan_json_is_plain_and_names_every_identity(suite_file: Path) -> None:
    plan = planned(suite_file, QUALITY)
    data = json.loads(json.dumps(plan.to_json()))
    assert set(data) == {"suite", "title", "description", "baseline", "command", "cells"}
    (cell,) = data["cells"]
    assert cell["measurements"] == {"quality": plan.cells[0].measurements[0].identity}
    assert CellSpec.model_validate_json(json.dumps(cell["spec"])) == plan.cells[0].spec


def test_ddim_counts_are_those_of_one_stride() -> None:
    counts = ddim_step_counts()
    assert {2, 4, 10, 25, 50, 100, 250, 500, 1000} <= set(counts)
    assert not {1, 60, 999} & set(counts)


# --- shipped suites ----------------------------------------------------------------------------------------


def test_a_cell_s_own_batch_reaches_every_timed_measurement_and_its_identity(suite_file: Path) -> None:
    suite_file.write_text(
        "suite: s\ncells:\n  - {name: 'b{batch}', method: dit-testing, measure: [flops, latency, kernels, memory], "
        "matrix: {batch: [1, 64]}}\n"
    )
    small, large = make_plan(load_suite(suite_file)).cells
    for first, second in zip(small.measurements, large.measurements, strict=True):
        if first.name == "flops":
            assert first.identity == second.identity
        else:
            assert (first.options["batch"], second.options["batch"]) == (1, 64)
            assert first.identity != second.identity


def test_quick_compares_samplers_and_dynamic_methods_on_trained_weights(suite_file: Path) -> None:
    plan = make_plan(load_suite("quick"))
    assert len(plan.cells) >= 8
    assert plan.baseline is not None and plan.baseline.cell == "ddpm-50"
    everywhere = set(MEASUREMENTS) - {"agreement", "training", "energy", "decode"}
    specs = {cell.spec.cell: cell.spec for cell in plan.cells}
    ablation, untimed = specs["flexidit-0.64-weak-last"], ("flexidit-0.64-weak-last", "flexidit-0.75", "flexidit-0.4")
    whole = [spec for name, spec in specs.items() if name not in untimed]
    assert all({"flops", "quality"} <= {*spec.measure} for spec in specs.values())
    assert all({*spec.measure} >= everywhere and spec.sampler_options["clip"] for spec in whole)
    dynamic = [spec for spec in specs.values() if spec.method == "dydit-digits"]
    assert len(dynamic) == 3 and {spec.steps for spec in dynamic} == {plan.baseline.steps}
    flexible = [spec for spec in specs.values() if spec.method == "flexidit-digits"]
    assert {1.0, 0.75, 0.64, 0.5, 0.4} <= {spec.config["schedule"] for spec in flexible if spec is not ablation}
    assert len({spec.weights_sha256 for spec in flexible}) == 1, "one checkpoint serves all schedules"
    assert "agreement" in specs["flexidit-0.64"].measure and ablation.config["schedule"]["order"] == "weak-last"
    assert plan.to_json()["command"] == "ditbench run quick"


def test_testing_touches_every_measurement(suite_file: Path) -> None:
    plan = make_plan(load_suite("testing"))
    touched = {each.name for cell in plan.cells for each in cell.measurements}
    assert touched == set(MEASUREMENTS) - {"decode"}, "all but the decoder, which is too slow for a run in seconds"
    assert 2 <= len(plan.cells) <= 4


@pytest.mark.parametrize("size", ["256", "512"])
def test_imagenet_follows_the_published_protocol_and_its_short_form_claims_no_published_figure(size: str) -> None:
    whole, short = (load_suite(f"imagenet{size}{ending}") for ending in ("", "-5k"))
    assert whole.suite.quality.reference == short.suite.quality.reference == f"imagenet-{size}"
    for loaded, samples in ((whole, 50_000), (short, 5000)):
        quality, specs = loaded.suite.quality, [cell.spec for cell in make_plan(loaded).cells]
        assert (quality.protocol, quality.samples, samples % quality.shard) == ("adm", samples, 0)
        assert all((spec.guidance_scale, spec.guidance_channels, spec.seed) == (1.5, 3, 0) for spec in specs)
        assert all(spec.decoder is not None and spec.decoder.scale == 0.18215 for spec in specs)
        assert {spec.config.get("input_size", 32) for spec in specs} == {int(size) // 8}
        assert all(str(spec.weights).startswith("asset:") and not spec.cost_only for spec in specs)
        assert any(spec.published for spec in specs) == (samples == 50_000)
        assert all(spec.timeout_s is not None and spec.timeout_s > 86_400 for spec in specs)
    baseline = make_plan(whole).baseline
    assert baseline is not None and (baseline.sampler, baseline.steps) == ("ddpm", 250)


def test_dit_cost_counts_the_whole_family() -> None:
    plan = make_plan(load_suite("dit-cost"))
    assert len(plan.cells) == 27 and plan.baseline is not None and plan.baseline.method == "dit-xl-2"
    assert {cell.spec.measure for cell in plan.cells} == {("flops",)}
    assert len({cell.measurements[0].identity for cell in plan.cells}) == 27


def test_planning_a_shipped_suite_takes_a_fraction_of_a_second(suite_file: Path) -> None:
    start = time.perf_counter()
    make_plan(load_suite("quick"))
    assert time.perf_counter() - start < 1.0


# --- environment -------------------------------------------------------------------------------------------


def test_an_environment_is_plain_data_and_its_fingerprint_leaves_the_checkout_out() -> None:
    found = environment.environment("cpu")
    assert json.loads(json.dumps(found)) == found
    assert 1 <= found["physical_cores"] <= found["logical_cores"] <= (os.cpu_count() or 1)
    assert found["device_name"] == found["cpu"] and found["versions"]["torch"]
    moved = {**found, "git": "another commit", "memory_mib": 1}
    assert environment.fingerprint(moved) == environment.fingerprint(found)
    assert environment.fingerprint({**found, "cpu": "another"}) != environment.fingerprint(found)


def test_zero_threads_means_every_physical_core() -> None:
    assert environment.resolve_threads(0) == environment.physical_cores()
    assert environment.resolve_threads(3) == 3


def test_the_gpu_is_the_first_that_cuda_would_use() -> None:
    table = "0, GPU-aaaa, Card A, 580.1, 81559\n1, GPU-bbbb, Card B, 580.1, 24000"
    chosen = {
        visible: (environment.choose_gpu(table, visible) or {}).get("name") for visible in (None, "1,0", "GPU-b", "")
    }
    assert chosen == {None: "Card A", "1,0": "Card B", "GPU-b": "Card B", "": None}
