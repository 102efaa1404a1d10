"""A sample is its index: batch, shard, process and neighbours do not change it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ditbench.harness.assets.locations import weights_path
from ditbench.harness.measure.latency import step_call
from ditbench.harness.sample.generate import bind, checkpoint_problem
from ditbench.harness.sample.making import existing_shards, generate_shards
from ditbench.harness.sample.seeds import SampleStreams
from ditbench.harness.sample.shards import NotFiniteError, read_shard, shard_ranges
from ditbench.harness.store.records import CellSpec
from ditbench.methods.conditions import of_labels
from ditbench.methods.diffusion.dpm_solver import DPMSolverPP2M
from ditbench.methods.diffusion.guidance import GuidanceRule, GuidedDenoiser
from ditbench.methods.diffusion.sampler import SamplerOptions
from ditbench.methods.diffusion.schedules import noise_schedule
from ditbench.methods.facts import ClassLabels, Facts
from ditbench.methods.space import Space
from ditbench.methods.work import WorkLedger

FACTS = Facts(Space(1, 4), conditions=(ClassLabels(10),))
DIGITS = weights_path("zoo:dit-digits")


def spec(sampler: str, **fields: object) -> CellSpec:
    return CellSpec(
        **{
            "cell": "c",
            "method": "dit-digits",
            "sampler": sampler,
            "steps": 6,
            "sampler_options": {"clip": True},
            "seed": 3,
            **fields,
        }
    )


def generated(cell, indices: range) -> torch.Tensor:
    return cell.generate(indices)[0]


@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm-solver++"])
def test_batch_and_neighbours_do_not_change_a_sample(sampler, guidance):
    cell = bind(spec(sampler, guidance_scale=guidance), DIGITS)
    together = generated(cell, range(12))
    apart = torch.cat([generated(cell, range(k, k + 1)) for k in range(12)])
    halves = torch.cat([generated(cell, range(5)), generated(cell, range(5, 12))])
    assert (together - apart).abs().max() <= 1e-4
    assert (together - halves).abs().max() <= 1e-4
    assert (together[0] - together[1]).abs().max() > 0.1, "samples differ at all"


def test_shard_size_does_not_change_a_sample(tmp_path):
    cell = bind(spec("ddpm"), DIGITS)
    sets = {}
    for size in (6, 9, 10):
        paths = generate_shards(cell, 18, size, tmp_path / str(size), lambda _done, _total: None)
        assert existing_shards(tmp_path / str(size), 18, size) == paths
        shards = [read_shard(path) for path in paths]
        sets[size] = [np.concatenate(each)[:18] for each in zip(*((s.samples, s.labels) for s in shards), strict=True)]
    assert existing_shards(tmp_path / "6", 19, 6) is None, "the fourth shard is not there"
    for size in (9, 10):
        assert np.abs(sets[6][0] - sets[size][0]).max() <= 1e-4
        assert (sets[6][1] == sets[size][1]).all()


def test_a_longer_run_extends_a_shorter_one(tmp_path):
    cell = bind(spec("ddim"), DIGITS)
    first = generate_shards(cell, 10, 10, tmp_path, lambda _done, _total: None)
    before = first[0].stat().st_mtime_ns
    second = generate_shards(cell, 25, 10, tmp_path, lambda _done, _total: None)
    assert len(second) == 3 and second[0].stat().st_mtime_ns == before


def test_every_shard_is_a_whole_batch():
    assert [len(indices) for indices in shard_ranges(25, 10)] == [10, 10, 10]


def test_streams_differ_between_seeds_and_between_indices():
    def noise(seed: int, index: int) -> torch.Tensor:
        return SampleStreams(seed, range(index, index + 1), FACTS, "cpu").noise()

    drawn = [noise(seed, index) for seed in (0, 1, 2**32, 2**62) for index in (0, 1, 2**32)]
    distinct = {tuple(tensor.flatten().tolist()) for tensor in drawn}
    assert len(distinct) == len(drawn), "seeds that agree in their low 32 bits are still different seeds"
    assert torch.equal(noise(5, 7), noise(5, 7))


def test_noise_is_standard_normal_and_labels_cover_all_classes():
    streams = SampleStreams(0, range(4000), replace(FACTS, space=Space(1, 2)), "cpu")
    noise = streams.noise()
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    assert torch.bincount(streams.conditions["label"], minlength=10).min() > 300


def test_samples_with_nan_are_never_written(tmp_path):
    cell = bind(spec("ddim"), DIGITS)
    with torch.no_grad():
        cell.model.final_layer.linear.bias[0] = torch.nan
    with pytest.raises(NotFiniteError, match="10 of 10 samples"):
        generate_shards(cell, 10, 10, tmp_path, lambda _done, _total: None)
    assert not list(tmp_path.iterdir())


def test_guidance_of_scale_one_runs_one_forward_and_a_guided_step_one_of_twice_the_rows():
    cell = bind(spec("ddim"), DIGITS)
    for rule, rows in ((GuidanceRule(1.0), [4, 4, 4, 4, 4, 4]), (GuidanceRule(2.0, (300, 700)), [4, 4, 8, 8, 4, 4])):
        ledger, conditions = WorkLedger(), of_labels(cell.model.facts, torch.arange(4))
        denoise = GuidedDenoiser(cell.model, conditions, cell.model.plan(cell.sampler.timesteps), rule, ledger)
        with torch.no_grad():
            for step in range(6):
                denoise(torch.zeros(4, 1, 8, 8), step)
        assert [entry.rows for entry in ledger.entries] == rows, cell.sampler.timesteps


def test_guidance_moves_samples_and_its_scale_matters():
    unguided, some, more = (
        generated(bind(spec("ddim", guidance_scale=scale), DIGITS), range(8)) for scale in (1.0, 1.5, 3.0)
    )
    assert (unguided - some).abs().max() > 0.05 and (some - more).abs().max() > 0.05


def test_half_precision_stays_near_single_precision():
    single, half = (generated(bind(spec("ddim", dtype=dtype), DIGITS), range(8)) for dtype in ("float32", "bfloat16"))
    error = (single - half).abs().mean()
    assert 0 < error < 0.1


def test_random_weights_leave_no_zero_gate():
    cell = bind(spec("ddim"), None)
    call, _ = step_call(cell, 2)
    assert call(0).abs().min() > 0


def gaussian(deviation: float, schedule):
    """The exact noise prediction for data ~ N(0, deviation²) in every pixel."""

    def denoise(x: torch.Tensor, step: int) -> torch.Tensor:
        cumprod = float(schedule.alphas_cumprod[schedule.steps - 1 - step])
        variance = cumprod * deviation**2 + 1 - cumprod
        return (1 - cumprod) ** 0.5 / variance * x

    return denoise


def test_dpm_solver_converges_at_second_order_on_a_closed_form_flow():
    """For Gaussian data the diffusion ODE is linear: x at the last timestep is x_T times a ratio of deviations."""
    deviation, errors = 0.5, []
    z = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for steps in (21, 41, 81):
        sampler, seen = DPMSolverPP2M(steps, SamplerOptions()), []
        sampler.sample(gaussian(deviation, sampler.schedule), z, lambda: z, lambda _, x, seen=seen: seen.append(x))

        def scale(index: int, schedule=sampler.schedule) -> float:
            cumprod = float(schedule.alphas_cumprod[index])
            return (cumprod * deviation**2 + 1 - cumprod) ** 0.5

        # compared at a timestep that all grids share, away from the coarse clean end
        shared = next(k for k, t in enumerate(sampler.timesteps) if t <= 500)
        exact = scale(steps - 1 - shared) / scale(steps - 1)
        errors.append(abs(float(seen[shared - 1]) - exact))
    assert errors[0] / errors[1] > 3 and errors[1] / errors[2] > 3, errors


def test_ddim_and_dpm_solver_agree_with_many_steps():
    fine = noise_schedule(1000)
    assert fine.steps == 1000
    ddim = generated(bind(spec("ddim", steps=200), DIGITS), range(2))
    solver = generated(bind(spec("dpm-solver++", steps=100), DIGITS), range(2))
    assert (ddim - solver).abs().mean() < 0.08


def test_a_checkpoint_of_another_model_is_described_in_one_line():
    problem = checkpoint_problem(spec("ddim", method="dit-testing"), DIGITS)
    assert problem is not None and problem.field == "weights"
    assert "does not fit dit-testing" in problem.message and "\n" not in problem.message


def test_dpm_solver_does_not_extrapolate_in_its_last_move():
    """From the last but one timestep to the cleanest one only the present prediction counts."""
    sampler = DPMSolverPP2M(4, SamplerOptions())
    cumprods = [float(c) for c in sampler.schedule.alphas_cumprod]

    def final_move(first_predictions: float) -> torch.Tensor:
        seen: list[torch.Tensor] = []

        def denoise(x: torch.Tensor, step: int) -> torch.Tensor:
            x0 = first_predictions if step < 2 else 0.3
            cumprod = cumprods[3 - step]
            return (x - cumprod**0.5 * x0) / (1 - cumprod) ** 0.5

        z = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        sampler.sample(denoise, z, lambda: z, lambda _, x: seen.append(x))
        sigma, sigma_next = ((1 - cumprods[k]) ** 0.5 for k in (1, 0))
        return seen[2] - sigma_next / sigma * seen[1]

    assert torch.allclose(final_move(-1.0), final_move(1.0))


@pytest.mark.parametrize("method", ["dit-testing", "dydit-testing", "flexidit-testing", "dysit-testing"])
@pytest.mark.parametrize("config", [{}, {"adapter": {"rank": 2}}])
def test_no_number_of_a_bound_model_is_left_as_it_lay_in_memory(method, config):
    spec = CellSpec(cell="c", method=method, config=config, sampler="euler" if "sit" in method else "ddpm", steps=1)
    torch.utils.deterministic.fill_uninitialized_memory = True  # empty tensors then hold NaN
    torch.use_deterministic_algorithms(True)
    try:
        model = bind(spec, None).model
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
