"""Steps of the flow samplers (elf.md C.1), each a function of one contract. One function and one line adds a sampler.

Shapes: B rows, L tokens, C channels. z = t x + (1 - t) noise_scale eps; velocities divide by max(1 - t, t_eps).
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step from time t to time t_next."""

    t: float
    t_next: float
    noise: Callable[[], Tensor]  # fresh unit normal noise [B, L, C] of this step
    denoise: Callable[[Tensor, float], Tensor]  # (z, t) -> x_hat, self-conditioned on the previous estimate
    noise_scale: float
    t_eps: float
    gamma: float
    update_from: str  # "renoised" (official code) or "original" (paper, algorithm 6): where the sde step starts


StepFunction = Callable[[Tensor, Step], tuple[Tensor, Tensor]]


def _velocity(x_hat_BLC: Tensor, z_BLC: Tensor, t: float, t_eps: float) -> Tensor:
    return (x_hat_BLC - z_BLC) / max(1 - t, t_eps)


def ode_step(z_BLC: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """Euler step of the flow: (z at t_next, x_hat)."""
    x_hat_BLC = step.denoise(z_BLC, step.t)
    return z_BLC + (step.t_next - step.t) * _velocity(x_hat_BLC, z_BLC, step.t, step.t_eps), x_hat_BLC


def sde_step(z_BLC: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """Euler step after a move back towards noise by the factor 1 - gamma h; gamma 0 is the ode. The last step is always an ode step."""
    if step.t_next >= 1.0:
        return ode_step(z_BLC, step)
    alpha = min(max(1 - step.gamma * (step.t_next - step.t), 0.0), 1.0)
    t_back = alpha * step.t
    back_BLC = alpha * z_BLC + (1 - alpha) * step.noise_scale * step.noise()
    x_hat_BLC = step.denoise(back_BLC, t_back)
    velocity_BLC = _velocity(x_hat_BLC, back_BLC, t_back, step.t_eps)
    if step.update_from == "original":
        return z_BLC + (step.t_next - step.t) * velocity_BLC, x_hat_BLC
    return back_BLC + (step.t_next - t_back) * velocity_BLC, x_hat_BLC


SAMPLERS: dict[str, StepFunction] = {"ode": ode_step, "sde": sde_step}
