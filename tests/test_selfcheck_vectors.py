"""The self-check: its stored vectors are recomputed by oracles that call nothing that it calls."""

from __future__ import annotations

import math
import re
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ditbench.harness.selfcheck import metric_checks
from ditbench.harness.selfcheck.checks import vectors
from ditbench.methods.torchvision_shim import ensure_torchvision_importable

GOLDEN = Path(__file__).parent / "golden"


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
    from ditbench.methods.work import WorkLedger
    from ditbench.methods.zoo import checkpoint

    stored = vectors()["models"]
    model = methods.load_weights(methods.build(vector["method"]), checkpoint(vector["weights"])).double()
    grid = np.fromfunction(lambda b, _, i, j: 1.5 * np.sin(0.7 * b + 1.3 * i + 2.1 * j), (3, 1, 8, 8))
    ledger = WorkLedger()
    with torch.no_grad():
        times, labels = torch.tensor(stored["t"]), torch.tensor(stored["y"])
        out = model(torch.from_numpy(grid), times, labels, ledger=ledger, **vector["options"])
    kept = [list(entry.decided.counts) for entry in ledger.entries if entry.decided is not None]
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
