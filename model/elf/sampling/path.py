"""Gaussian paths z = alpha(t) x + sigma(t) eps from noise (t = 0) to data (t = 1): all that a sampler knows of a process.

The noise level of the family is s = sigma / alpha. Shapes: z_BLC and x_hat_BLC of any one shape.
"""

import abc
from dataclasses import dataclass

from torch import Tensor


class Path(abc.ABC):
    """A Gaussian path. A process writes ``alpha``, ``sigma`` and ``rates``, and has every sampler."""

    @abc.abstractmethod
    def alpha(self, t: float) -> float:
        """Share of signal, rising to its value at t = 1; may be 0 at t = 0."""

    @abc.abstractmethod
    def sigma(self, t: float) -> float:
        """Standard deviation of the noise, above 0 before t = 1; may be 0 there."""

    @abc.abstractmethod
    def rates(self, t: float) -> tuple[float, float]:
        """(d alpha / dt, d sigma / dt)."""

    def velocity(self, x_hat_BLC: Tensor, z_BLC: Tensor, t: float) -> Tensor:
        """dz/dt of the probability flow at t < 1: alpha' x_hat + (sigma' / sigma) (z - alpha x_hat)."""
        alpha_rate, sigma_rate = self.rates(t)
        per_noise = sigma_rate / self.sigma(t)
        return (alpha_rate - per_noise * self.alpha(t)) * x_hat_BLC + per_noise * z_BLC

    def published_velocity(self, x_hat_BLC: Tensor, z_BLC: Tensor, t: float) -> Tensor:
        """The velocity as the process's authors compute it in their own samplers; the exact one unless the path says otherwise."""
        return self.velocity(x_hat_BLC, z_BLC, t)


@dataclass(frozen=True, kw_only=True)
class LinearPath(Path):
    """z = t x + (1 - t) noise_scale eps (flow matching)."""

    noise_scale: float = 1.0
    t_eps: float = 0.0
    """Lower clamp of 1 - t in the published velocity (elf.md A.2)."""

    def alpha(self, t: float) -> float:
        return t

    def sigma(self, t: float) -> float:
        return (1 - t) * self.noise_scale

    def rates(self, t: float) -> tuple[float, float]:
        return 1.0, -self.noise_scale

    def velocity(self, x_hat_BLC: Tensor, z_BLC: Tensor, t: float) -> Tensor:
        return (x_hat_BLC - z_BLC) / (1 - t)

    def published_velocity(self, x_hat_BLC: Tensor, z_BLC: Tensor, t: float) -> Tensor:
        return (x_hat_BLC - z_BLC) / max(1 - t, self.t_eps)
