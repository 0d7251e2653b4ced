"""Distributions that the stochastic samplers leave, against closed forms, with exact denoisers (float64)."""

import math
from collections.abc import Callable
from itertools import pairwise

import mixture
import pytest
import torch
from torch import Tensor

from elf.sampling.config import SampleConfig
from elf.sampling.flow import integrate
from elf.sampling.path import LinearPath, Path
from elf.sampling.samplers import SAMPLERS, Step

SCALE, ROWS = 2.0, 100_000
LINEAR = LinearPath(noise_scale=SCALE)


def seeded(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def one_step(
    sampler: str, path: Path, denoise: Callable[[Tensor, float], Tensor], z: Tensor, t: float, t_next: float, gamma: float
) -> Tensor:
    step = Step(t=t, t_next=t_next, path=path, denoise=denoise, noise=lambda: seeded(*z.shape, seed=99), gamma=gamma)
    return SAMPLERS[sampler](z, step)[0]


def has_moments(z: Tensor, mean: float, variance: float) -> bool:
    """Mean and variance within five standard errors (of a normal law; ours have lighter tails)."""
    standard_error = math.sqrt(variance / len(z))
    return abs(float(z.mean()) - mean) < 5 * standard_error and abs(float(z.var()) / variance - 1) < 5 * math.sqrt(2 / len(z))


# Euler in t, the second part of the matched step, is exact along straight lines alone.
@pytest.mark.parametrize(("sampler", "path"), [("ancestral", LINEAR), ("ancestral", mixture.CosinePath()), ("sde-matched", LINEAR)])
@pytest.mark.parametrize(("t", "t_next"), [(0.0, 0.2), (0.2, 0.35), (0.5, 0.9)])
def test_known_data_keep_the_exact_marginal(path: Path, t: float, t_next: float, sampler: str) -> None:
    """For data at one point x the posterior is exact, and a step of any length must turn q(z_t | x) into q(z_next | x)."""
    x = 0.7
    z = path.alpha(t) * x + path.sigma(t) * seeded(ROWS, seed=1)
    made = one_step(sampler, path, lambda z, t: torch.full_like(z, x), z, t, t_next, gamma=1.5)
    assert has_moments(made, path.alpha(t_next) * x, path.sigma(t_next) ** 2)


@pytest.mark.parametrize(("t", "t_next"), [(0.0, 0.2), (0.2, 0.35), (0.5, 0.9)])
def test_the_official_step_has_less_variance_than_the_path(t: float, t_next: float) -> None:
    """elf.md E.3 no. 20: after the move back s^2 (a^2 (1 - t)^2 + (1 - a)^2) stands where the path has s^2 (1 - a t)^2."""
    shrink = 1 - 1.5 * (t_next - t)
    t_back = shrink * t
    seen: list[Tensor] = []

    def denoise(z: Tensor, time: float) -> Tensor:
        assert time == pytest.approx(t_back, abs=1e-12)
        seen.append(z)
        return torch.zeros_like(z)

    z = SCALE * (1 - t) * seeded(ROWS, seed=1)  # data at 0
    for sampler in ("sde", "sde-matched"):
        one_step(sampler, LINEAR, denoise, z, t, t_next, gamma=1.5)
    official = SCALE**2 * (shrink**2 * (1 - t) ** 2 + (1 - shrink) ** 2)
    matched = SCALE**2 * (1 - t_back) ** 2
    assert has_moments(seen[0], 0.0, official) and has_moments(seen[1], 0.0, matched)
    assert official < 0.9 * matched


def gaussian_variance(sampler: str, times: list[float], std: float, gamma: float) -> float:
    """Variance at times[-1] for data N(0, std^2): the estimate is linear in z, and so is the recursion of the variance."""
    variance = SCALE**2
    for t, t_next in pairwise(times):

        def gain(time: float) -> float:
            return time * std**2 / ((time * std) ** 2 + (SCALE * (1 - time)) ** 2)

        if sampler == "ancestral":
            r = (1 - t_next) * t / ((1 - t) * t_next)
            keep = r * (1 - t_next) / (1 - t)
            variance = (keep + (t_next - keep * t) * gain(t)) ** 2 * variance + (SCALE * (1 - t_next)) ** 2 * (1 - r * r)
            continue
        shrink = min(max(1 - gamma * (t_next - t), 0.0), 1.0) if t_next < 1 else 1.0
        back = shrink * t
        fresh = (1 - shrink) ** 2 if sampler == "sde" else (1 - back) ** 2 - (shrink * (1 - t)) ** 2
        moved = shrink**2 * variance + SCALE**2 * fresh
        variance = (1 + (t_next - back) * (gain(back) - 1) / (1 - back)) ** 2 * moved
    return variance


@pytest.mark.parametrize("sampler", ["ode", "sde", "sde-matched", "ancestral"])
def test_variance_on_gaussian_data_follows_its_recursion(sampler: str) -> None:
    std, gamma = 0.8, 0.0 if sampler == "ode" else 1.5
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    problem = mixture.Mixture(path=LINEAR, weight_K=one, mean_K=zero, std_K=std * one)
    times = torch.linspace(0, 1, 13, dtype=torch.float64)
    config = SampleConfig(sampler=sampler, steps=12, gamma=gamma)
    made, _ = integrate(
        problem.denoise, SCALE * seeded(ROWS, seed=3), times, path=LINEAR, config=config, noise=lambda i: seeded(ROWS, seed=10 + i)
    )
    assert has_moments(made, 0.0, gaussian_variance(sampler, times.tolist(), std, gamma))


def test_where_the_variance_goes_as_steps_are_added() -> None:
    """In the limit ancestral and matched reach the variance of the data, with an error like 1 / steps; the official step stays below."""
    std = 0.8
    final = {
        (sampler, steps): gaussian_variance(sampler, torch.linspace(0, 1, steps + 1).double().tolist(), std, 1.5) / std**2
        for sampler in ("sde", "sde-matched", "ancestral")
        for steps in (32, 256, 2048)
    }
    mixture.show("\nvariance of the samples over that of the data (Gaussian data, gamma 1.5)")
    for (sampler, steps), ratio in final.items():
        mixture.show(f"{sampler:14}{steps:6}{ratio:9.4f}")
    for sampler in ("sde-matched", "ancestral"):
        assert abs(final[sampler, 2048] - 1) < 0.01 and abs(final[sampler, 2048] - 1) < 0.2 * abs(final[sampler, 256] - 1)
    assert final["sde", 2048] < 0.9


@pytest.mark.parametrize("path", [LINEAR, mixture.CosinePath()])
@pytest.mark.parametrize("sampler", ["ancestral", "sde-matched"])
def test_a_mixture_is_reproduced(sampler: str, path: Path) -> None:
    """Moments and the whole distribution function at the end of many steps (uniform law of F(x): mean 1/2, variance 1/12)."""
    problem, rows = mixture.three_bumps(path), 10_000
    times = torch.linspace(0, 1, 151, dtype=torch.float64)
    config = SampleConfig(sampler=sampler, steps=150, gamma=1.0)
    made, _ = integrate(
        problem.denoise, path.sigma(0.0) * seeded(rows, seed=5), times, path=path, config=config, noise=lambda i: seeded(rows, seed=100 + i)
    )
    mean, variance = problem.moments(1.0)
    assert float(made.mean()) == pytest.approx(mean, abs=0.04) and float(made.var()) == pytest.approx(variance, rel=0.04)
    rank = problem.cdf(made, 1.0).sort().values
    distance = float((rank - (torch.arange(rows).double() + 0.5) / rows).abs().max())
    assert distance < 0.025  # the 5 % critical value of Kolmogorov's test is 0.0136; the rest is the steps' own error
