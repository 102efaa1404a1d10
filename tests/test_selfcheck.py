"""The self-check: its stored vectors are right, it passes here, and it fails when what it checks is broken."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import json
import math
import re
import resource
import sys
import time
from decimal import Decimal, localcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ditbench
from safetensors.torch import load_file

from ditbench.cli.selfcheck import lines_of, show_selfcheck
from ditbench.harness import assets
from ditbench.harness.errors import InputError
from ditbench.harness.selfcheck import checks, metric_checks, timing_checks
from ditbench.harness.selfcheck.checks import Check, vectors
from ditbench.harness.store.records import Quantity
from ditbench.methods.torchvision_shim import ensure_torchvision_importable

GOLDEN = Path(__file__).parent / "golden"

# Oracles of the stored vectors: none of them calls what the self-check calls ---------------------------------------


def cumulative() -> list[Decimal]:
    """ᾱ at the 1000 training timesteps, to 50 digits."""
    betas = [Decimal("0.0001") + t * (Decimal("0.02") - Decimal("0.0001")) / 999 for t in range(1000)]
    product, found = Decimal(1), []
    for beta in betas:
        product *= 1 - beta
        found.append(product)
    return found


def gaussian_states(vector: dict) -> list[float]:
    """The sampler's states for a pixel ~ N(0, s²) from x = 1, by the equations of its paper, to 50 digits."""
    with localcontext() as context:
        context.prec = 50
        every, steps = cumulative(), vector["steps"]
        kept = range(0, 1000, 1000 // steps) if vector["options"].get("spacing") == "ddim" else even(steps)
        grid = [every[t] for t in kept]
        states = STATES[vector["sampler"]](
            grid, Decimal(repr(vector["deviation"])) ** 2, Decimal(repr(vector["noise"]))
        )
        return [float(states[step]) for step in vector["after"]]


def even(steps: int) -> list[int]:
    return [round(k * 999 / (steps - 1)) for k in range(steps)]


def prediction(x: Decimal, bar: Decimal, s2: Decimal) -> tuple[Decimal, Decimal]:
    """The best guess of x_0 and of the noise."""
    variance = bar * s2 + 1 - bar
    return bar.sqrt() * s2 * x / variance, (1 - bar).sqrt() * x / variance


def ddim_states(grid: list[Decimal], s2: Decimal, _: Decimal) -> list[Decimal]:
    x, found = Decimal(1), []
    for index in reversed(range(len(grid))):
        before = grid[index - 1] if index else Decimal(1)
        x0, eps = prediction(x, grid[index], s2)
        x = before.sqrt() * x0 + (1 - before).sqrt() * eps
        found.append(x)
    return found


def ddpm_states(grid: list[Decimal], s2: Decimal, noise: Decimal) -> list[Decimal]:
    x, found = Decimal(1), []
    for index in reversed(range(len(grid))):
        now, before = grid[index], grid[index - 1] if index else Decimal(1)
        beta, x0 = 1 - now / before, prediction(x, now, s2)[0]
        x = (before.sqrt() * beta * x0 + (now / before).sqrt() * (1 - before) * x) / (1 - now)
        if index:
            x += (beta * (1 - before) / (1 - now)).sqrt() * noise
        found.append(x)
    return found


def dpm_states(grid: list[Decimal], s2: Decimal, _: Decimal) -> list[Decimal]:
    x, found, last = Decimal(1), [], None
    for index in reversed(range(len(grid))):
        x0 = prediction(x, grid[index], s2)[0]
        if index == 0:
            x = x0
        else:
            (a, s), (a1, s1) = (((bar.sqrt(), (1 - bar).sqrt())) for bar in (grid[index], grid[index - 1]))
            h = (a1 / s1).ln() - (a / s).ln()
            target = x0
            if last is not None and index > 1:
                r = last[1] / h
                target = (1 + 1 / (2 * r)) * x0 - last[0] / (2 * r)
            x = s1 / s * x - a1 * ((-h).exp() - 1) * target
            last = (x0, h)
        found.append(x)
    return found


STATES = {"ddim": ddim_states, "ddpm": ddpm_states, "dpm-solver++": dpm_states}


def static_macs(tokens: int, width: int, depth: int) -> dict[str, int]:
    """A DiT on a 32x32 latent of 4 channels, frequency embedding of 256; a layer norm has 4 an element."""
    n, d = tokens, width
    blocks = depth * (12 * n * d * d + 6 * d * d)
    return {
        "linear": blocks + 1024 * 8 * d + 2 * d * d + 256 * d + d * d,
        "attention": depth * 2 * n * n * d,
        "conv": 1024 * 4 * d,
        "layer_norm": 4 * (2 * depth + 1) * n * d,
    }


def dydit_macs() -> dict[str, int]:
    """DyDiT-S/2 with 3 of 6 heads and groups and 128 of 256 tokens on, routers included."""
    n, kept, d, depth, part = 256, 128, 384, 12, 384 // 2
    block = 3 * n * d * part + n * part * d + 2 * kept * d * 4 * part + 6 * d * d
    token_router = n * (d * (d // 16) + d // 16)
    planning = 256 * d + d * d + 2 * depth * 5 * d
    ends = 1024 * 8 * d + 2 * d * d + 256 * d + d * d
    return {
        "linear": depth * (block + token_router) + planning + ends,
        "attention": depth * 2 * n * n * part,
        "conv": 1024 * 4 * d,
        "layer_norm": 4 * (depth * (n + kept) + n) * d,
    }


def macs(vector: dict) -> dict[str, int]:
    """MACs of all steps."""
    steps = vector["steps"]
    if vector["method"] == "flexidit-s-2":
        coarse, fine = static_macs(64, 384, 12), static_macs(256, 384, 12)
        found = {name: 30 * coarse[name] + 20 * fine[name] for name in fine}
        assert steps == 50
    else:
        one = {"dit-xl-2": static_macs(256, 1152, 28), "dit-s-2": static_macs(256, 384, 12), "dydit-s-2": dydit_macs()}
        found = {name: steps * count for name, count in one[vector["method"]].items()}
    return found | {"total": sum(found.values())}


def fidelity(name: str) -> list[float]:
    """torch-fidelity's values on the features that the self-check makes."""
    ensure_torchvision_importable()
    from torch_fidelity.metric_fid import fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    vector = vectors()["metrics"][name]
    sets = metric_checks.generated_and_real()
    x, y = (torch.from_numpy(each) for each in sets)
    if name.startswith("frechet"):
        statistics = [{"mu": each.mean(axis=0), "sigma": np.cov(each, rowvar=False)} for each in sets]
        return list(fid_statistics_to_metric(*statistics, verbose=False).values())
    if name == "kid":
        found = kid_features_to_metric(
            x, y, kid_subsets=vector["subsets"], kid_subset_size=vector["subset_size"], rng_seed=2020, verbose=False
        )
    elif name == "inception_score":
        scored = torch.from_numpy(metric_checks.logits())
        found = isc_features_to_metric(scored, splits=vector["splits"], shuffle=False)
    else:
        found = prc_features_to_metric(x, y, prc_neighborhood=3, verbose=False)
    wanted = {
        "kid": ("kernel_inception_distance_mean", "kernel_inception_distance_std"),
        "inception_score": ("inception_score_mean", "inception_score_std"),
        "precision_recall": ("precision", "recall"),
    }
    return [float(found[key]) for key in wanted[name]]


def predicted(vector: dict) -> tuple[list[float], list[list[int]] | None]:
    """In float64: no rounding of float32 is in the stored numbers."""
    from ditbench import methods
    from ditbench.methods.protocols import WorkLedger
    from ditbench.methods.zoo import checkpoint

    stored = vectors()["models"]
    model = methods.load_weights(methods.build(vector["method"]), checkpoint(vector["weights"])).double()
    grid = np.fromfunction(lambda b, _, i, j: 1.5 * np.sin(0.7 * b + 1.3 * i + 2.1 * j), (3, 1, 8, 8))
    ledger = WorkLedger()
    with torch.no_grad():
        times, labels = torch.tensor(stored["t"]), torch.tensor(stored["y"])
        out = model(torch.from_numpy(grid), times, labels, ledger=ledger, **vector["options"])
    kept = [list(entry.tokens) for entry in ledger.entries if entry.tokens is not None]
    return out.flatten()[:: stored["stride"]].tolist(), kept or None


def test_schedule_vectors_are_those_of_the_reference() -> None:
    golden = load_file(GOLDEN / "diffusion.safetensors")
    for vector in vectors()["schedules"]:
        if vector["array"] == "linear_betas":
            first, last = Decimal("0.0001"), Decimal("0.02")
            assert vector["expected"] == [float(first + t * (last - first) / 999) for t in vector["index"]]
            continue
        prefix = f"ddim{vector['steps']}" if vector["spacing"] == "ddim" else str(vector["steps"])
        if vector["array"] == "timesteps":
            assert vector["expected"] == golden[f"{prefix}.timestep_map"].tolist()
        else:
            array = golden[f"{prefix}.{vector['array']}"]
            assert vector["expected"] == [array[index].item() for index in vector["index"]]


@pytest.mark.parametrize("number", range(3))
def test_sampler_vectors_are_those_of_the_published_equations(number: int) -> None:
    vector = vectors()["samplers"][number]
    assert vector["expected"] == pytest.approx(gaussian_states(vector), rel=1e-14)


@pytest.mark.parametrize("number", range(4))
def test_flops_vectors_are_those_of_the_closed_forms(number: int) -> None:
    vector = vectors()["flops"][number]
    assert vector["expected"] == macs(vector)
    if published := re.search(r"([0-9.]+) G as published", vector["name"]):
        assert f"{vector['expected']['total'] / 1e9:.2f}" == published[1]


@pytest.mark.parametrize("number", range(4))
def test_forward_vectors_are_those_of_float64(number: int) -> None:
    vector = vectors()["models"]["forwards"][number]
    out, kept = predicted(vector)
    assert vector["expected"] == pytest.approx(out, abs=1e-6) and len(out) == 32
    assert vector["kept"] == kept
    assert kept is None or 0 < sum(map(sum, kept)) < 3 * 6 * 16, "some tokens are kept and some are not"


@pytest.mark.parametrize("name", ["frechet", "frechet_far", "kid", "inception_score", "precision_recall"])
def test_metric_vectors_are_those_of_torch_fidelity(name: str) -> None:
    expected = vectors()["metrics"][name]["expected"]
    stored = expected if isinstance(expected, list) else [expected]
    assert stored == pytest.approx(fidelity(name), rel=1e-10)


def test_the_other_metric_vectors_are_those_of_their_formulas() -> None:
    stored = vectors()["metrics"]
    assert stored["psnr"]["expected"] == pytest.approx(10 * math.log10(255**2 / 16**2), rel=1e-12)
    assert f"{stored['psnr']['expected']:.2f}" == "24.05"
    c = (0.01 * 255) ** 2
    expected = (2 * 250 * 234 + c) / (250**2 + 234**2 + c)
    assert stored["ssim"]["expected"] == pytest.approx(expected, rel=1e-12)
    levels = [min(255, max(0, math.floor(127.5 * x + 128))) for x in stored["quantisation"]["samples"]]
    assert stored["quantisation"]["expected"] == levels


def test_samples_are_drawn_from_philox_keyed_by_seed_and_index() -> None:
    for vector in vectors()["streams"]["samples"]["vectors"]:
        generator = np.random.Generator(np.random.Philox(key=[vector["seed"], vector["index"]]))
        label = int(generator.integers(vector["classes"]))
        noise = [generator.standard_normal(4, dtype=np.float32).tolist() for _ in range(2)]
        assert vector["expected"] == {"label": label, "noise": noise}


def test_every_expectation_says_where_it_comes_from() -> None:
    known = ("closed form", "published", "torch-fidelity 0.4.0", "public DiT", "ditbench", "SHA-256", "the value above")
    stored = vectors()
    lists = (stored["schedules"], stored["samplers"], stored["flops"], stored["metrics"].values())
    sources = [vector["source"] for each in lists for vector in each]
    sources += [stored[group]["source"] for group in ("models", "published")]
    sources += [each["source"] for each in stored["streams"].values()]
    assert not [source for source in sources if not source.startswith(known)]


def test_the_tolerance_of_precision_and_recall_allows_for_float16_distances_and_not_for_another_k() -> None:
    """ADM's evaluator compares float16 distances; ours are float64. Made-up features of pool3's scale."""
    rng = np.random.default_rng(0)
    variances = 1 / np.arange(1, 2049) ** 1.1
    scale, mean = np.sqrt(180 * variances / variances.sum()), np.abs(rng.normal(0.4, 0.15, 2048))
    y, x = (mean + share * scale * rng.standard_normal((n, 2048)) for n, share in ((600, 1.0), (1200, 0.95)))

    def half(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = a.astype(np.float16), b.astype(np.float16)
        norms = [(each**2).astype(np.float32).sum(1).astype(np.float16) for each in (a, b)]
        products = (a.astype(np.float32) @ b.astype(np.float32).T).astype(np.float16)
        return norms[0][:, None] - np.float16(2) * products + norms[1]

    def full(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)

    def shares(distance, k: int) -> tuple[float, float]:
        radii = [np.partition(distance(each, each), k, axis=1)[:, k] for each in (x, y)]
        between = distance(x, y)
        return (between <= radii[1]).any(1).mean(), (between <= radii[0][:, None]).any(0).mean()

    tolerances = {v["figure"]: v["tolerance"] for v in vectors()["published"]["figures"]}
    ours, theirs, wrong = shares(full, 3), shares(half, 3), shares(full, 5)
    for number, name in enumerate(("precision", "recall")):
        assert 0.05 < ours[number] < 0.95
        assert abs(theirs[number] - ours[number]) < tolerances[name] < abs(wrong[number] - ours[number])


# It passes here -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The command as a user runs it, without public files, and the processor time that it took."""
    folder = tmp_path_factory.mktemp("selfcheck")
    (folder / "empty.toml").write_text("")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DITBENCH_CONFIG", str(folder / "empty.toml"))
        done = ditbench("selfcheck", "--json", cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found | {"code": done.returncode, "processor_seconds": spent}


def test_everything_passes_on_this_installation(answer: dict) -> None:
    wrong = [check for check in answer["checks"] if check["status"] == "failed"]
    assert not wrong and answer["code"] == 0
    skipped = [(check["group"], check["reason"]) for check in answer["checks"] if check["status"] == "skipped"]
    assert skipped == [("published figures", "needs public files")]
    assert {check["group"] for check in answer["checks"]} == set(checks.GROUPS)


def test_it_takes_less_than_20_seconds_of_a_processor(answer: dict) -> None:
    # not of the wall clock: other programs may run beside the tests
    assert answer["processor_seconds"] < 20


def test_the_json_has_every_check_with_its_values_and_counts(answer: dict) -> None:
    keys = {field.name for field in dataclasses.fields(Check)}
    assert all(set(check) == keys for check in answer["checks"])
    for status in ("ok", "warning", "skipped", "failed"):
        assert answer[status] == sum(check["status"] == status for check in answer["checks"])
    assert answer["seconds"] == pytest.approx(sum(check["seconds"] for check in answer["checks"]), abs=0.01)
    assert torch.__version__.startswith(answer["versions"]["torch"])
    names = [(check["group"], check["name"]) for check in answer["checks"]]
    assert len(set(names)) == len(names), "a name stands for one check"
    for check in answer["checks"]:
        if check["status"] != "skipped":
            assert check["tolerance"] and check["source"] and check["measured"] is not None


# It fails when something is broken ----------------------------------------------------------------------------------


def failed(group: str) -> set[str]:
    return {check.name for check in checks.run(group) if check.status == "failed"}


def wrong_betas(steps: int = 1000) -> np.ndarray:
    return np.linspace(1e-4, 0.0200001, steps)


def shifted_map(original):
    def moved(steps: int, spacing: str = "even") -> tuple[int, ...]:
        return tuple(t - (t > 0 and steps < 1000) for t in original(steps, spacing))

    return moved


def short_attention(inputs, outputs) -> int:
    return 0


def single_precision(self, features) -> None:
    array = np.asarray(features, dtype=np.float32)
    self._origin = np.zeros(self.dim)
    self.n += len(array)
    self._sum += array.sum(axis=0)
    self._outer += array.T @ array


def truncating(samples: np.ndarray) -> np.ndarray:
    return np.clip((samples + 1) / 2 * 255, 0, 255).astype(np.uint8)


def biased(original):
    def distance(*sets, **options):
        found = original(*sets, **options)
        return dataclasses.replace(
            found, estimate=dataclasses.replace(found.estimate, value=found.estimate.value + 1e-3)
        )

    return distance


def wrapping_psnr(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return 10 * torch.log10(255**2 / ((a - b) ** 2).double().flatten(1).mean(1))


def ordered_by_class(original):
    return lambda logits, **options: original(logits[logits.argmax(1).argsort()], **options)


def swapped_keys(original):
    return lambda key, **options: original(key=list(reversed(key)), **options)


def changed_manifest(original):
    return lambda: original() | {"dit-digits": original()["dit-digits"] | {"sha256": "0" * 64}}


def other_weights(original):
    return lambda name: original("dit-digits-more" if name == "dit-digits" else name)


def wrapped(wrapper):
    """A mutation made from what it replaces."""
    wrapper.wraps = True
    return wrapper


MUTATIONS = {
    "a last beta that is too large": (
        "schedules and samplers",
        "ditbench.methods.diffusion.schedules.linear_betas",
        wrong_betas,
        {"linear betas", "cumulative alphas, 1000 steps even", "DDIM, 25 steps, Gaussian data"},
    ),
    "timesteps moved by one": (
        "schedules and samplers",
        "ditbench.methods.diffusion.schedules.timestep_map",
        wrapped(shifted_map),
        {"50 timesteps, spacing even", "25 timesteps, spacing ddim", "betas, 50 steps even"},
    ),
    "a solver with another time variable": (
        "schedules and samplers",
        "ditbench.methods.diffusion.dpm_solver._alpha_sigma_lambda",
        lambda bar: (math.sqrt(bar), math.sqrt(1 - bar), 0.5 * math.log(bar / (1 - bar)) + bar * 1e-6),
        {"DPM-Solver++, 20 steps, Gaussian data"},
    ),
    "attention that costs nothing": (
        "FLOPs",
        "ditbench.harness.measure.flops._attention_macs",
        short_attention,
        {"DiT-XL/2: 118.69 G as published", "FlexiDiT-S/2, patches 30 x 4, 20 x 2"},
    ),
    "a digest that is not the manifest's": (
        "models",
        "ditbench.methods.zoo.manifest",
        wrapped(changed_manifest),
        {"digests of the shipped weights"},
    ),
    "other weights under a name": ("models", "ditbench.methods.zoo.checkpoint", wrapped(other_weights), {"dit-digits"}),
    "seed and index swapped in the key": (
        "random streams",
        "numpy.random.Philox",
        wrapped(swapped_keys),
        {"seed 2^62, sample 49,999"},
    ),
    "sums in float32": (
        "metrics",
        "ditbench.harness.quality.statistics.FeatureStatistics.update",
        single_precision,
        {"Fréchet distance of features", "the same, all features + 4096"},
    ),
    "a distance with a factor": (
        "metrics",
        "ditbench.harness.quality.frechet.frechet_distance",
        wrapped(lambda original: lambda *gaussians: original(*gaussians) * (1 + 1e-8)),
        {"Fréchet distance of known Gaussians", "Fréchet distance of features", "the same, all features + 4096"},
    ),
    "a biased kernel distance": (
        "metrics",
        "ditbench.harness.quality.kernel.kernel_distance",
        wrapped(biased),
        {"KID, 20 subsets of 100"},
    ),
    "logits sorted by class": (
        "metrics",
        "ditbench.harness.quality.inception_score.inception_score",
        wrapped(ordered_by_class),
        {"inception score, 10 splits"},
    ),
    "five neighbours": (
        "metrics",
        "ditbench.harness.quality.neighbours.neighbour_metrics",
        wrapped(lambda original: partial(original, k=5)),
        {"precision and recall, k = 3"},
    ),
    "truncation to 8 bits": (
        "metrics",
        "ditbench.harness.quality.images.quantise.quantise",
        truncating,
        {"quantisation to 8 bits"},
    ),
    "digits quantised otherwise": (
        "metrics",
        "ditbench.harness.quality.extractors.digits.quantise",
        truncating,
        {"digest of the digits reference"},
    ),
    "PSNR in wrapping arithmetic": (
        "metrics",
        "ditbench.harness.quality.perceptual.psnr",
        wrapping_psnr,
        {"PSNR of a shift by 16 levels"},
    ),
    "SSIM of another range": (
        "metrics",
        "ditbench.harness.quality.perceptual.ssim",
        wrapped(lambda original: lambda a, b: original(a, b) ** 2),
        {"SSIM of a shift by 16 levels"},
    ),
}


@pytest.mark.parametrize("fault", MUTATIONS)
def test_a_fault_is_found_by_the_checks_that_are_about_it(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    group, target, replacement, expected = MUTATIONS[fault]
    if getattr(replacement, "wraps", False):
        module, _, name = target.rpartition(".")
        replacement = replacement(getattr(importlib.import_module(module), name))
    monkeypatch.setattr(target, replacement)
    found = failed(group)
    assert expected <= found
    if group in ("models", "random streams", "metrics"):
        assert found == expected, "checks of other things go on passing"


class Clock:
    """A clock that runs at another speed and may jump back."""

    def __init__(self, speed: float = 1.0, back_every: int = 0) -> None:
        self.speed, self.back_every, self.readings, self.real = speed, back_every, 0, time.perf_counter

    def __call__(self) -> float:
        self.readings += 1
        back = self.back_every and self.readings % self.back_every == 0
        return self.speed * self.real() - (1e-3 if back else 0.0)


def timing_case(name: str) -> checks.Outcome:
    return next(case for case in timing_checks.timing() if case.name.startswith(name)).run()


@pytest.mark.parametrize(
    ("clock", "name"),
    [
        (Clock(speed=0.5), "a sleep of 20 ms"),
        (Clock(speed=2.0), "a sleep of 20 ms"),
        (Clock(back_every=5000), "steps of the clock backwards"),
    ],
)
def test_a_wrong_clock_is_found(clock: Clock, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert timing_case(name).status == "ok"
    monkeypatch.setattr(time, "perf_counter", clock)
    assert timing_case(name).status == "failed"


def test_timings_that_do_not_follow_the_work_are_found_after_three_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    from ditbench.harness.measure import latency

    monkeypatch.setattr(latency, "timed", lambda call, index, device: (call(index), latency.Timing(1.0, None))[1])
    found = timing_case("8 products against 4")
    assert found.status == "failed" and found.measured == 1.0
    assert found.note.startswith("attempt 3 of 3")


def test_threads_that_torch_does_not_take_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    assert timing_case("torch's threads").status == "failed"


def test_a_disturbed_timing_is_repeated_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from ditbench.harness.measure import latency

    taken = iter([*[95.0] * 14, *[20.1] * 7])
    monkeypatch.setattr(latency, "timed", lambda call, index, device: latency.Timing(next(taken), None))
    found = timing_case("a sleep of 20 ms")
    assert found.status == "ok" and found.note.startswith("attempt 3 of 3")


def test_timing_checks_leave_the_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    for name in ("8 products against 4", "torch's threads"):
        timing_case(name)
        assert torch.get_num_threads() == before


def test_a_busy_machine_is_a_warning_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (64.0, 64.0, 64.0))
    assert timing_case("running processes").status == "warning"
    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 0.1, 0.1))
    assert timing_case("running processes").status == "ok"


def test_an_error_inside_a_check_fails_that_check_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ditbench.harness.quality.perceptual", None)
    found = {check.name: check for check in checks.run("metrics")}
    assert {name for name, check in found.items() if check.status == "failed"} == {
        "PSNR of a shift by 16 levels",
        "SSIM of a shift by 16 levels",
    }
    assert "perceptual" in found["PSNR of a shift by 16 levels"].measured


def test_a_group_that_cannot_start_is_one_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ditbench.harness.selfcheck.model_checks", None)
    (only,) = checks.run("FLOPs")
    assert (only.status, only.group) == ("failed", "FLOPs") and "model_checks" in only.measured


# Comparing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measured", "expected", "status"),
    [
        ([1.0, 2.0], [1.0, 2.0], "ok"),
        ([1.0, 2.0005], [1.0, 2.0], "ok"),
        ([1.0, 2.002], [1.0, 2.0], "failed"),
        ([math.nan, 2.0], [1.0, 2.0], "failed"),
        ([1.0, math.nan], [1.0, 2.0], "failed"),
        ([math.inf], [1.0], "failed"),
        ([1.0], [1.0, 2.0], "failed"),
        ([], [], "failed"),
    ],
)
def test_near_compares_every_number(measured: list[float], expected: list[float], status: str) -> None:
    assert checks.near(measured, expected, 1e-3).status == status


def test_near_can_mean_a_share_of_the_expectation() -> None:
    assert checks.near([1.0005e-9], [1e-9], 1e-3, relative=True).status == "ok"
    assert checks.near([1.002e-9], [1e-9], 1e-3, relative=True).status == "failed"
    assert checks.near([1e-9], [0.0], 1e-10, relative=True).status == "failed"


@pytest.mark.parametrize(("measured", "status"), [(20, "ok"), (30, "ok"), (19.9, "failed"), (math.nan, "failed")])
def test_between_has_both_ends(measured: float, status: str) -> None:
    assert checks.between(measured, 20, 30).status == status


# The published figures ----------------------------------------------------------------------------------------------

ADM = {"frechet": 3.9426, "sfid": 6.1404, "inception_score": 215.84, "precision": 0.8265, "recall": 0.5309}


@pytest.fixture
def public_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration that names the three public files; their content is made up, and known digests are waived."""
    lines = []
    for table, name in (
        ("assets", metric_checks.INCEPTION),
        ("references", metric_checks.REFERENCE),
        ("references", metric_checks.SAMPLES),
    ):
        path = tmp_path / f"{name}.bin"
        path.write_bytes(name.encode())
        lines += [f"[{table}.{name}]", f'path = "{path}"', f'sha256 = "{hashlib.sha256(name.encode()).hexdigest()}"']
    (tmp_path / "ditbench.toml").write_text("\n".join(lines))
    monkeypatch.setenv("DITBENCH_CONFIG", str(tmp_path / "ditbench.toml"))
    known = assets.KNOWN[metric_checks.INCEPTION]
    monkeypatch.setitem(assets.KNOWN, metric_checks.INCEPTION, dataclasses.replace(known, sha256=""))
    return tmp_path


def scored(figures: object, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Check], list[Path]]:
    """The group's checks when scoring gives ``figures``, or raises them, and for which files it was asked."""
    asked: list[Path] = []

    def score(samples: Path):
        asked.append(samples)
        if isinstance(figures, Exception):
            raise figures
        return figures

    monkeypatch.setattr(metric_checks, "published_adm", score)
    return {check.name: check for check in checks.run("published figures")}, asked


def test_the_published_figures_pass_and_the_images_are_scored_once(public_files, monkeypatch) -> None:
    found, asked = scored(ADM, monkeypatch)
    assert [check.status for check in found.values()] == ["ok"] * 6
    assert asked == [public_files / f"{metric_checks.SAMPLES}.bin"]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("frechet", 3.9526, "FID 3.9426"),
        ("sfid", 6.16, "sFID 6.1404"),
        ("inception_score", 215.5, "inception score 215.84"),
        ("precision", 0.838, "precision 0.8265"),
        ("recall", 0.52, "recall 0.5309"),
        ("recall", math.nan, "recall 0.5309"),
    ],
)
def test_a_figure_away_from_the_published_one_fails_alone(name, value, expected, public_files, monkeypatch) -> None:
    found, _ = scored(ADM | {name: value}, monkeypatch)
    assert {n for n, check in found.items() if check.status == "failed"} == {expected}


def test_a_figure_that_scoring_does_not_give_fails(public_files, monkeypatch) -> None:
    found, _ = scored({name: value for name, value in ADM.items() if name != "sfid"}, monkeypatch)
    assert {n for n, check in found.items() if check.status == "failed"} == {"sFID 6.1404"}


def test_scoring_that_fails_is_not_tried_again(public_files, monkeypatch) -> None:
    found, asked = scored(InputError("the reference has no images"), monkeypatch)
    wrong = [check for check in found.values() if check.status == "failed"]
    assert len(wrong) == 5 and len(asked) == 1
    assert all("the reference has no images" in check.measured for check in wrong)


def test_changed_public_files_fail(public_files, monkeypatch) -> None:
    (public_files / f"{metric_checks.SAMPLES}.bin").write_bytes(b"other")
    found, _ = scored(ADM, monkeypatch)
    assert found["digests of the public files"].status == "failed"


def test_what_is_missing_for_the_published_figures_is_named(public_files, monkeypatch) -> None:
    text = (public_files / "ditbench.toml").read_text()
    (public_files / "ditbench.toml").write_text(text[: text.index(f"[references.{metric_checks.SAMPLES}]")])
    found, asked = scored(ADM, monkeypatch)
    (only,) = found.values()
    assert only.status == "skipped" and only.reason == "needs public files" and not asked
    assert only.note.startswith(f"needs {metric_checks.SAMPLES} in ditbench.toml")


def test_scoring_is_asked_for_what_adm_published(monkeypatch) -> None:
    """The real call's arguments and the names of its figures."""
    import ditbench.harness.quality.score as score

    calls = []

    def fake(path: Path, protocol_name: str, reference: str | None, **options: object):
        calls.append((path, protocol_name, reference))
        inspect.signature(score_images).bind(path, protocol_name, reference, **options)
        values = {name: Quantity(value=value, unit="1", interval="none") for name, value in ADM.items()}
        return score.FileScore("x", 50_000, "adm", values, {}, {})

    score_images = score.score_images
    monkeypatch.setattr(score, "score_images", fake)
    assert metric_checks.published_adm(Path("x.npz")) == ADM
    assert calls == [(Path("x.npz"), "adm", "imagenet-256")]


# What is printed ----------------------------------------------------------------------------------------------------


def case(name: str, outcome: object) -> checks.Case:
    def run() -> checks.Outcome:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return checks.Case(name, "closed form", run)


def printed(cases: list, monkeypatch, capsys, as_json: bool = False) -> tuple[int, str]:
    monkeypatch.setattr(checks, "GROUPS", {"metrics": "ditbench.harness.selfcheck.metric_checks:metrics"})
    monkeypatch.setattr(metric_checks, "metrics", lambda: cases)
    return show_selfcheck(as_json), capsys.readouterr().out


GOOD = case("a good one", checks.near([1.0], [1.0], 1e-9))
BAD = case("a bad one", checks.near([1.0, 2.5], [1.0, 2.0], 1e-9))


def test_exit_code_0_and_the_closing_line(monkeypatch, capsys) -> None:
    skipped = case("a skipped one", checks.SkippedError("needs public files", "needs imagenet-256"))
    code, out = printed([GOOD, GOOD, skipped], monkeypatch, capsys)
    assert code == 0
    assert out.splitlines()[-1] == "selfcheck: 2 ok, 1 skipped (needs public files), 0 failed"
    assert "needs imagenet-256" in out


def test_exit_code_1_and_what_was_expected_and_measured(monkeypatch, capsys) -> None:
    code, out = printed([GOOD, BAD], monkeypatch, capsys)
    assert code == 1
    assert out.splitlines()[-1] == "selfcheck: 1 ok, 1 failed"
    assert "  FAILED  a bad one" in out
    assert "expected 2.0 at place 2 of 2 (within 1e-09), measured 2.5" in out


def test_a_warning_is_counted_and_fails_nothing(monkeypatch, capsys) -> None:
    warning = dataclasses.replace(checks.between(3, 0, 1), status="warning", note="busy machine")
    code, out = printed([GOOD, case("load", warning)], monkeypatch, capsys)
    assert code == 0 and out.splitlines()[-1] == "selfcheck: 1 ok, 1 warning, 0 failed"
    assert "busy machine" in out


def test_a_failed_list_shows_its_worst_place_and_a_failed_mapping_what_differs(monkeypatch, capsys) -> None:
    # nearer in units, further as a share
    numbers = case("numbers", checks.near([1.0, 1.0000000001, 1.001e-6], [1.0, 1.0, 1e-6], 1e-6, relative=True))
    names = case("names", checks.exactly({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}))
    _, out = printed([numbers, names], monkeypatch, capsys)
    assert "expected 1e-06 at place 3 of 3 (within 1e-06 relative), measured" in out and "1.001e-06" in out
    assert "expected b = 3 (exact), measured 2" in out and "expected c = 4 (exact), measured nothing" in out
    assert "a = 1" not in out


def test_json_stays_json_when_a_check_measures_nan(monkeypatch, capsys) -> None:
    code, out = printed([case("nan", checks.near([math.nan], [1.0], 1e-9))], monkeypatch, capsys, as_json=True)
    found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert code == 1 and found["failed"] == 1
    assert found["checks"][0]["measured"] == ["nan"] and found["checks"][0]["expected"] == [1.0]


def test_no_line_of_a_real_run_is_wider_than_80_columns(answer: dict) -> None:
    lines = [line for check in answer["checks"] for line in lines_of(Check(**check))]
    assert max(map(len, lines)) <= 80
    failures = [dataclasses.replace(Check(**check), status="failed") for check in answer["checks"]]
    assert max(len(line) for check in failures for line in lines_of(check)) <= 80
    assert all(len(check["name"]) <= 38 and len(check["result"]) <= 22 for check in answer["checks"])
