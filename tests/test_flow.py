"""Flow matching on a problem with a closed form: data N(m, s²), elementwise, whose flow is x_t = αm + √(α²s² + σ²)·z.

The path's marginal is N(αm, S²) with S² = α²s² + σ², and a linear velocity that carries each quantile along keeps it
one: v = α'm + S'/S·(x − αm). Both paths start at S = 1 and end at x₁ = m + s·z.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ditbench import methods
from ditbench.methods.conditions import of_labels
from ditbench.methods.diffusion.flow import Dopri5, Euler, EulerMaruyama, FlowSampler, Heun
from ditbench.methods.diffusion.guidance import GuidanceRule, GuidedDenoiser
from ditbench.methods.diffusion.process import Diffusion, FlowMatching, process_of
from ditbench.methods.diffusion.sampler import SamplerOptions
from ditbench.methods.errors import ConfigError
from ditbench.methods.work import WorkLedger

PATHS = [FlowMatching("linear"), FlowMatching("cosine")]
TIMES = [0.0, 0.01, 0.3, 0.5, 0.77, 0.99]
M, S = 0.7, 0.4

both_paths = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.flow)


@dataclass(frozen=True)
class Gaussian:
    """What is known of the path of N(m, s²) at one time: α, σ, α', σ', and S, S' of the marginal's deviation."""

    alpha: float
    sigma: float
    d_alpha: float
    d_sigma: float
    s: float = S

    @staticmethod
    def at(flow: str, t: float, s: float = S) -> "Gaussian":
        if flow == "linear":
            return Gaussian(t, 1 - t, 1.0, -1.0, s)
        angle, rate = math.pi / 2 * t, math.pi / 2
        return Gaussian(math.sin(angle), math.cos(angle), rate * math.cos(angle), -rate * math.sin(angle), s)

    @property
    def deviation(self) -> float:
        return math.hypot(self.alpha * self.s, self.sigma)

    @property
    def d_deviation(self) -> float:
        return (self.alpha * self.d_alpha * self.s**2 + self.sigma * self.d_sigma) / self.deviation

    def velocity(self, x: Tensor) -> Tensor:
        return self.d_alpha * M + self.d_deviation / self.deviation * (x - self.alpha * M)

    def score(self, x: Tensor) -> Tensor:
        return -(x - self.alpha * M) / self.deviation**2


def denoiser(sampler: FlowSampler, flow: str, asked: list[float] | None = None) -> Callable[..., Tensor]:
    """The true velocity at the times that the sampler's own grid, or the sampler, names."""

    def denoise(x: Tensor, step: int, t: float | None = None) -> Tensor:
        t = sampler.timesteps[step] if t is None else t
        if asked is not None:
            asked.append(t)
        return Gaussian.at(flow, t).velocity(x)

    return denoise


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def no_noise() -> Tensor:
    raise AssertionError("an ODE draws no noise")


def slope(xs: list[float], errors: list[float]) -> float:
    """Of the least-squares line through log error over log x."""
    x, y = torch.tensor(xs).double().log(), torch.tensor(errors).double().log()
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


def error_of(sampler: FlowSampler, flow: str, asked: list[float] | None = None) -> float:
    """Root mean square distance to the solution x₁ = m + s·z."""
    z = normal(4, 2, 3, 3)
    out = sampler.sample(denoiser(sampler, flow, asked), z, no_noise)
    assert out.dtype == torch.float64 and out.shape == z.shape
    return float((out - (M + S * z)).square().mean().sqrt())


# The path


@both_paths
def test_a_path_runs_from_the_noise_to_the_data(path):
    x0, noise = normal(2, 3, 1, 4, 4)
    for t, end in ((path.noisiest, noise), (path.cleanest, x0)):
        torch.testing.assert_close(path.noised(x0, torch.full((3,), t).double(), noise), end, atol=1e-15, rtol=0)


@pytest.mark.parametrize("t", TIMES)
def test_the_linear_path_shares_one_out_and_the_cosine_path_keeps_the_variance(t):
    times = torch.tensor(t, dtype=torch.float64)
    alpha, sigma, *_ = FlowMatching("linear").coefficients(times)
    assert (float(alpha), float(sigma)) == (t, 1 - t)
    alpha, sigma, *_ = FlowMatching("cosine").coefficients(times)
    assert float(alpha**2 + sigma**2) == pytest.approx(1.0, abs=1e-15)
    assert float(torch.atan2(alpha, sigma)) == pytest.approx(math.pi / 2 * t, abs=1e-15), "at an even pace"


@both_paths
def test_the_velocity_is_the_rate_of_change_along_the_path_row_by_row(path):
    x0, noise, h = *normal(2, 6, 1, 4, 4), 1e-5
    t = torch.linspace(0.05, 0.95, 6).double()
    rate = (path.noised(x0, t + h, noise) - path.noised(x0, t - h, noise)) / (2 * h)
    torch.testing.assert_close(path.velocity(x0, t, noise), rate, atol=1e-8, rtol=1e-8)


@both_paths
@pytest.mark.parametrize("t", TIMES)
def test_the_score_of_the_true_velocity_is_that_of_the_marginal(path, t):
    x, known = normal(3, 2, 4, 4), Gaussian.at(path.flow, t)
    torch.testing.assert_close(path.score(known.velocity(x), x, t), known.score(x), atol=1e-11, rtol=1e-11)


@both_paths
def test_the_closed_velocity_is_the_mean_of_the_path_s_own(path):
    """The regression of dx_t/dt on x_t over pairs of data and noise: checks the toy problem, and the loss's minimum."""
    x0, noise = M + S * normal(200_000, 1, 1, 1), normal(200_000, 1, 1, 1, seed=1)
    t = torch.full((200_000,), 0.4).double()
    x_t, target = path.noised(x0, t, noise), path.velocity(x0, t, noise)
    known = Gaussian.at(path.flow, 0.4)
    assert float(x_t.mean()) == pytest.approx(known.alpha * M, abs=0.01)
    assert float(x_t.std()) == pytest.approx(known.deviation, rel=0.01)
    left = target - known.velocity(x_t)
    assert abs(float(left.mean())) < 0.02 and abs(float((left * x_t).mean())) < 0.02
    true = path.loss(known.velocity(x_t), x0, x_t, t, noise).mean()
    for worse in (1.02 * known.velocity(x_t), known.velocity(x_t) + 0.05):
        assert path.loss(worse, x0, x_t, t, noise).mean() > true


# Training


@both_paths
def test_the_loss_is_zero_for_the_velocity_of_a_point_mass_and_else_its_squared_distance(path):
    noise, t = normal(4, 2, 3, 3), torch.tensor([0.0, 0.2, 0.6, 0.9]).double()
    x0 = torch.full_like(noise, M)
    x_t = path.noised(x0, t, noise)
    true = torch.stack([Gaussian.at(path.flow, float(u), s=0.0).velocity(x) for u, x in zip(t, x_t, strict=True)])
    assert path.loss(true, x0, x_t, t, noise).max() < 1e-24
    off = torch.tensor([0.0, 1.0, -2.0, 3.0]).double()
    found = path.loss(true + off.view(4, 1, 1, 1), x0, x_t, t, noise)
    torch.testing.assert_close(found, off.square(), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
def test_variance_channels_have_no_part_in_the_loss(channels):
    path, (x0, noise, output) = PATHS[0], normal(3, 4, channels, 3, 3)
    t = torch.rand(4, generator=torch.Generator().manual_seed(0)).double()
    both = torch.cat([output, 100 * output], 1)
    assert torch.equal(path.loss(both, x0, x0, t, noise), path.loss(output, x0, x0, t, noise))


@pytest.mark.parametrize("process", [*PATHS, Diffusion()], ids=["linear", "cosine", "noise"])
def test_times_cover_the_process_s_range_and_stratified_ones_take_turns_through_its_quarters(process):
    total = 1000 if process.predicts == "noise" else 1
    drawn = torch.Generator().manual_seed(0)
    uniform = torch.cat([process.draw_times(10, drawn) for _ in range(400)]) / total
    stratified = torch.stack([process.draw_times(10, drawn, stratified=True) for _ in range(400)]) / total
    assert uniform.shape == (4000,) and uniform.min() >= 0 and uniform.max() < 1
    counts = torch.histc(uniform.float(), 4, 0, 1)
    assert (counts - 1000).abs().max() < 5 * (4000 * 3 / 16) ** 0.5
    for row in range(10):
        low = (row % 4) / 4
        assert low <= stratified[:, row].min() < low + 0.02
        assert low + 0.23 < stratified[:, row].max() < low + 0.25
    again = process.draw_times(10, torch.Generator().manual_seed(0))
    assert torch.equal(again, process.draw_times(10, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("process", [*PATHS, Diffusion()], ids=["linear", "cosine", "noise"])
def test_noisiness_is_1_at_pure_noise_and_0_at_the_data(process):
    assert process.noisiness(process.noisiest) == 1 and process.noisiness(process.cleanest) == 0
    assert process.noisiness((process.noisiest + process.cleanest) / 2) == 0.5


def test_a_flow_that_does_not_exist_is_refused():
    for build in (process_of, lambda flow: methods.build("sit-testing", flow=flow)):
        with pytest.raises(ConfigError, match="flow must be linear, cosine or unset") as caught:
            build("cubic")
        assert "\n" not in str(caught.value)


# Solvers of the ODE


@both_paths
@pytest.mark.parametrize(("solver", "order"), [(Euler, 1), (Heun, 2)])
def test_errors_of_fixed_steps_fall_at_the_solver_s_order(path, solver, order):
    counts = [16, 32, 64, 128, 256]
    errors = [error_of(solver(steps), path.flow) for steps in counts]
    assert slope(counts, errors) == pytest.approx(-order, abs=0.15)
    assert errors[-1] < 0.01


@both_paths
def test_errors_of_the_adaptive_solver_follow_its_tolerance_and_its_order(path):
    tolerances, counts, errors = [1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10], [], []
    for tolerance in tolerances:
        asked: list[float] = []
        errors.append(error_of(Dopri5(1, SamplerOptions(atol=tolerance, rtol=tolerance)), path.flow, asked))
        counts.append(len(asked))
    assert all(error < 20 * tolerance for error, tolerance in zip(errors, tolerances, strict=True))
    assert all(after < before for before, after in pairwise(errors))
    assert slope(counts[2:], errors[2:]) < -4, "of fifth order, not of the second or the fourth"


@both_paths
@pytest.mark.parametrize("option", ["atol", "rtol"])
def test_each_tolerance_of_the_adaptive_solver_bounds_the_error(path, option):
    other = {"atol": "rtol", "rtol": "atol"}[option]
    loose, tight = (error_of(Dopri5(1, SamplerOptions(**{option: v, other: 1e-12})), path.flow) for v in (1e-3, 1e-9))
    assert tight < 1e-8 < loose < 1e-2


@both_paths
def test_a_solver_that_lands_asks_for_no_time_beyond_the_data_s_and_is_as_exact(path):
    beyond, landing = list[float](), list[float]()
    errors = [
        error_of(Dopri5(1, SamplerOptions(atol=1e-4, rtol=1e-4, land=land)), path.flow, asked)
        for land, asked in ((False, beyond), (True, landing))
    ]
    assert max(beyond) > 1.1 and max(landing) == pytest.approx(1, abs=1e-9)
    assert max(errors) < 20 * 1e-4


@pytest.mark.parametrize("solver", [Euler, Heun])
def test_a_solver_calls_the_model_at_its_timesteps_in_order(solver):
    sampler, asked, seen = solver(5), [], []
    sampler.sample(denoiser(sampler, "linear", asked), normal(1, 1, 2, 2), no_noise, lambda k, x: seen.append((k, x)))
    assert tuple(asked) == sampler.timesteps
    assert [k for k, _ in seen] == list(range(5))
    z, at = normal(1, 1, 2, 2), [Gaussian.at("linear", t) for t in (0.0, 0.2)]
    first = z + 0.2 * at[0].velocity(z)
    if solver is Heun:
        first = z + 0.1 * (at[0].velocity(z) + at[1].velocity(first))
    torch.testing.assert_close(seen[0][1], first)


def test_grids_of_timesteps_are_even_and_have_the_ends_of_their_solver():
    assert Euler(4).timesteps == (0.0, 0.25, 0.5, 0.75)
    assert Heun(3).timesteps == pytest.approx((0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1), abs=1e-15)
    assert Heun(3).stages == 2 and len(Heun(7).timesteps) == 14
    assert Dopri5(3).timesteps == () and Dopri5(3).adaptive
    times = EulerMaruyama(250, process=PATHS[0]).timesteps
    assert len(times) == 250 and times[0] == 0 and times[-1] == pytest.approx(0.96, abs=1e-15)
    assert {round(b - a, 12) for a, b in pairwise(times)} == {round(0.96 / 249, 12)}
    short = EulerMaruyama(2, SamplerOptions(last_step=0.25), PATHS[0])
    assert short.timesteps == (0.0, 0.75)


# The reverse SDE


def moments(steps: int, last_step: float, path: FlowMatching) -> tuple[float, float]:
    """Exact mean and deviation of what the sampler gives, without Monte Carlo.

    Drift and noise are linear in x, so the sample is an affine map of z and of the noises. Row 0 has all of them 0 and
    comes to the mean; row k has the k-th of them 1 and the others 0, and comes to the mean plus its coefficient.
    """
    sampler = EulerMaruyama(steps, SamplerOptions(last_step=last_step), path)
    sources = torch.eye(steps + 1, dtype=torch.float64)[:, :, None, None, None]
    drawn = iter(sources[1:])
    rows = sampler.sample(denoiser(sampler, path.flow), next(drawn), lambda: next(drawn)).flatten()
    assert next(drawn, None) is None, "one draw a step but for the last"
    return float(rows[0]), float((rows[1:] - rows[0]).square().sum().sqrt())


@both_paths
def test_mean_and_deviation_of_the_sde_come_to_the_data_s_at_weak_order_1(path):
    """With a last step as long as the others: a fixed one has a limit of its own, which the next test holds."""
    counts = [64, 128, 256, 512]
    found = [moments(steps, 1 / steps, path) for steps in counts]
    assert slope(counts, [max(abs(mean - M), abs(s - S)) for mean, s in found]) == pytest.approx(-1, abs=0.15)
    assert found[-1] == (pytest.approx(M, abs=1e-3), pytest.approx(S, abs=1e-3))
    if path.flow == "linear":
        assert all(abs(mean - M) < 1e-12 for mean, _ in found), "the drift of the mean is constant"


@both_paths
@pytest.mark.parametrize("last_step", [0.04, 0.2])
def test_with_a_last_step_that_stays_the_sde_s_limit_is_the_marginal_before_it_moved_along_the_drift(path, last_step):
    before = Gaussian.at(path.flow, 1 - last_step)
    mean = before.alpha * M + last_step * before.d_alpha * M
    stretch = before.d_deviation / before.deviation - before.sigma / before.deviation**2
    deviation = before.deviation * (1 + last_step * stretch)
    counts = [32, 64, 128, 256]
    found = [moments(steps, last_step, path) for steps in counts]
    assert slope(counts, [abs(each - deviation) for _, each in found]) == pytest.approx(-1, abs=0.15)
    assert found[-1][0] == pytest.approx(mean, abs=0.005)
    assert abs(deviation - S) > 0.005, "another limit than the data's own"


@both_paths
def test_the_sde_s_last_step_draws_no_noise_and_others_one_each(path):
    sampler, draws, seen = EulerMaruyama(6, process=path), [], []

    def noise() -> Tensor:
        draws.append(len(seen))
        return normal(2, 1, 2, 2, seed=len(draws))

    sampler.sample(denoiser(sampler, path.flow), normal(2, 1, 2, 2), noise, lambda k, x: seen.append(k))
    assert draws == seen[:-1] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("steps", "last_step", "words"), [
    (1, 0.04, "at least 2 steps"), (5, 0.0, "last_step"), (5, 1.0, "last_step"), (5, -0.1, "last_step"),
], ids=str)  # fmt: skip
def test_an_sde_that_cannot_be_is_refused_in_one_line(steps, last_step, words):
    with pytest.raises(ConfigError, match=words) as caught:
        EulerMaruyama(steps, SamplerOptions(last_step=last_step), PATHS[0])
    assert "\n" not in str(caught.value)


# Plans of an adaptive solver


@torch.no_grad()
@pytest.mark.parametrize("name", ["sit-testing", "dysit-testing", "flexisit-testing"])
@pytest.mark.parametrize("rule", [GuidanceRule(), GuidanceRule(3.0)], ids=["plain", "guided"])
def test_an_adaptive_solver_s_plans_are_made_as_it_goes_and_each_evaluation_is_told_by_the_ledger(name, rule):
    model = methods.build(name, **({"schedule": 0.5} if name.startswith("flexi") else {}))
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.normal_(0.0, (weight[0].numel() if weight.dim() > 1 else 25) ** -0.5, generator=generator)
    sampler, ledger, told, real = Dopri5(1), WorkLedger(), [], model.forward

    def forward(x, t, y, **named):
        assert (t == t[0]).all() and t.dtype == torch.float32
        told.append(float(t[0]))
        return real(x, t, y, **named)

    model.forward = forward
    assert sampler.plans(model) == []
    denoise = GuidedDenoiser(model, of_labels(model.facts, torch.tensor([1, 2])), [], rule, ledger)
    asked: list[float] = []

    def spy(x, step, t=None):
        asked.append(t)
        assert step == len(asked) - 1
        return denoise(x, step, t)

    sampler.sample(spy, torch.randn(2, 1, 8, 8, generator=generator), no_noise)
    assert len(asked) > 6 and asked[0] == 0 and len(set(asked)) > 4
    assert [plan.timestep for plan in denoise.plans] == asked == pytest.approx(told, abs=1e-6)
    assert denoise.plans == [model.plan_at(t) for t in asked]
    assert ledger.evaluations == len(asked)
    assert [entry.evaluation for entry in ledger.entries] == list(range(len(asked)))
    assert all(entry.rows == (4 if rule.scale != 1 else 2) for entry in ledger.entries)
