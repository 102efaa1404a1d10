"""The self-check: it fails when what it checks is broken, and only then."""

from __future__ import annotations

import dataclasses
import importlib
import math
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch

from ditbench.harness.selfcheck import checks, timing_checks

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
        "ditbench.harness.measure.operators._attention_macs",
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
        "ditbench.harness.sample.quantise.quantise",
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
