"""Steps of the continuous samplers, each a function of one contract. One function and one line adds a sampler (docs/sampling.md).

They know of a process its path z = alpha x + sigma eps and its estimate x_hat of x, so every continuous process has all of them.
Shapes: B rows, L tokens, C channels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from elf.sampling.path import Path


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step from time t to time t_next."""

    t: float
    t_next: float
    path: Path
    denoise: Callable[[Tensor, float], Tensor]  # (z, t) -> x_hat, self-conditioned on the estimate of the evaluation before
    noise: Callable[[], Tensor]  # fresh unit normal noise [B, L, C] of this step
    previous: tuple[float, Tensor] | None = None  # time and estimate of the step before, for multistep samplers
    gamma: float = 0.0
    update_from: str = "renoised"  # "renoised" (official code) or "original" (paper, algorithm 6): where the sde step starts


StepFunction = Callable[[Tensor, Step], tuple[Tensor, Tensor]]


def ode_step(z_BLC: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """Euler step of the flow, the official one: (z at t_next, x_hat)."""
    x_hat_BLC = step.denoise(z_BLC, step.t)
    return z_BLC + (step.t_next - step.t) * step.path.published_velocity(x_hat_BLC, z_BLC, step.t), x_hat_BLC


def _move_back(step: Step) -> tuple[float, float]:
    """(time, factor of z) after a move back towards noise by the factor 1 - gamma h of the time."""
    shrink = min(max(1 - step.gamma * (step.t_next - step.t), 0.0), 1.0)
    t_back = shrink * step.t
    signal = step.path.alpha(step.t)
    # Without signal any factor is right; this is the linear path's.
    return t_back, step.path.alpha(t_back) / signal if signal > 0 else shrink


def sde_step(z_BLC: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """Euler step after noise was re-injected, the official one: standard deviations are added, as if the new noise were the old
    noise, so the state has less variance than the path (elf.md E.3 no. 20). gamma 0 is the ode; the last step always is."""
    if step.t_next >= 1.0:
        return ode_step(z_BLC, step)
    t_back, factor = _move_back(step)
    fresh = step.path.sigma(t_back) - factor * step.path.sigma(step.t)
    back_BLC = factor * z_BLC + fresh * step.noise()
    x_hat_BLC = step.denoise(back_BLC, t_back)
    velocity_BLC = step.path.published_velocity(x_hat_BLC, back_BLC, t_back)
    if step.update_from == "original":
        return z_BLC + (step.t_next - step.t) * velocity_BLC, x_hat_BLC
    return back_BLC + (step.t_next - t_back) * velocity_BLC, x_hat_BLC


def matched_sde_step(z_BLC: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """The sde step with independent noises added in quadrature, so that the moved-back state has the path's variance at its time."""
    if step.t_next >= 1.0:
        return _exact_euler(z_BLC, step)
    t_back, factor = _move_back(step)
    fresh = math.sqrt(max(step.path.sigma(t_back) ** 2 - (factor * step.path.sigma(step.t)) ** 2, 0.0))
    back_BLC = factor * z_BLC + fresh * step.noise()
    x_hat_BLC = step.denoise(back_BLC, t_back)
    return back_BLC + (step.t_next - t_back) * step.path.velocity(x_hat_BLC, back_BLC, t_back), x_hat_BLC


def _exact_euler(z_BLC: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    x_hat_BLC = step.denoise(z_BLC, step.t)
    return z_BLC + (step.t_next - step.t) * step.path.velocity(x_hat_BLC, z_BLC, step.t), x_hat_BLC


def heun_step(z_BLC: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """Heun's second-order step of the flow in t (Karras et al. 2022, algorithm 1): two evaluations, but for a step that ends where
    sigma is 0: the velocity has no value there, and the step is Euler's."""
    first_BLC = step.denoise(z_BLC, step.t)
    h = step.t_next - step.t
    slope_BLC = step.path.velocity(first_BLC, z_BLC, step.t)
    euler_BLC = z_BLC + h * slope_BLC
    if step.path.sigma(step.t_next) <= 0:
        return euler_BLC, first_BLC
    second_BLC = step.denoise(euler_BLC, step.t_next)
    return z_BLC + h / 2 * (slope_BLC + step.path.velocity(second_BLC, euler_BLC, step.t_next)), second_BLC


def dpmpp_2m_step(z_BLC: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): exact in z, the estimate extrapolated linearly in lambda = log(alpha / sigma)
    from the step before. First order (DDIM) in the first step, in the last, and where lambda was infinite or the same before: two draws
    of a random grid may be one float32."""
    path, t, t_next = step.path, step.t, step.t_next
    x_hat_BLC = step.denoise(z_BLC, t)
    alpha, sigma, alpha_next, sigma_next = path.alpha(t), path.sigma(t), path.alpha(t_next), path.sigma(t_next)
    data_BLC = x_hat_BLC
    if step.previous is not None and sigma_next > 0:
        t_before, before_BLC = step.previous
        if path.alpha(t_before) > 0:
            lambdas = [math.log(path.alpha(time) / path.sigma(time)) for time in (t_before, t, t_next)]
            if lambdas[1] > lambdas[0]:
                ratio = (lambdas[2] - lambdas[1]) / (2 * (lambdas[1] - lambdas[0]))
                data_BLC = (1 + ratio) * x_hat_BLC - ratio * before_BLC
    keep = sigma_next / sigma
    return keep * z_BLC + (alpha_next - alpha * keep) * data_BLC, x_hat_BLC


def ancestral_step(z_BLC: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """Full DDPM ancestral step: draws z at t_next from q(z_next | z, x = x_hat). With r = s_next / s and s = sigma / alpha:
    alpha_next x_hat + r (sigma_next / sigma) (z - alpha x_hat) + sigma_next sqrt(1 - r^2) eps."""
    path, t, t_next = step.path, step.t, step.t_next
    x_hat_BLC = step.denoise(z_BLC, t)
    alpha, sigma, alpha_next, sigma_next = path.alpha(t), path.sigma(t), path.alpha(t_next), path.sigma(t_next)
    r = sigma_next * alpha / (sigma * alpha_next)
    keep = r * sigma_next / sigma
    mean_BLC = keep * z_BLC + (alpha_next - keep * alpha) * x_hat_BLC
    fresh = sigma_next * math.sqrt(max(1 - r * r, 0.0))
    return mean_BLC + fresh * step.noise() if fresh > 0 else mean_BLC, x_hat_BLC


SAMPLERS: dict[str, StepFunction] = {
    "ode": ode_step,
    "sde": sde_step,
    "sde-matched": matched_sde_step,
    "heun": heun_step,
    "dpmpp-2m": dpmpp_2m_step,
    "ancestral": ancestral_step,
}
