"""Gaussian mixtures in one dimension: a data distribution whose denoiser, marginals and probability flow are known exactly (float64)."""

import math
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from elf.sampling.path import Path


class CosinePath(Path):
    """The variance-preserving cosine path, as a second path beside the linear one."""

    def alpha(self, t: float) -> float:
        return math.sin(math.pi / 2 * t)

    def sigma(self, t: float) -> float:
        return math.cos(math.pi / 2 * t) if t < 1 else 0.0

    def rates(self, t: float) -> tuple[float, float]:
        return math.pi / 2 * math.cos(math.pi / 2 * t), -math.pi / 2 * math.sin(math.pi / 2 * t)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """sum_k weight_k N(mean_k, std_k^2) along a path."""

    path: Path
    weight_K: Tensor
    mean_K: Tensor
    std_K: Tensor

    def marginal(self, t: float) -> tuple[Tensor, Tensor]:
        """(means [K], variances [K]) of the components of z at t."""
        return self.path.alpha(t) * self.mean_K, (self.path.alpha(t) * self.std_K) ** 2 + self.path.sigma(t) ** 2

    def moments(self, t: float) -> tuple[float, float]:
        """(mean, variance) of z at t."""
        mean_K, variance_K = self.marginal(t)
        mean = float((self.weight_K * mean_K).sum())
        return mean, float((self.weight_K * (variance_K + mean_K**2)).sum()) - mean**2

    def denoise(self, z: Tensor, t: float) -> Tensor:
        """E[x | z] at t, same shape as z."""
        mean_K, variance_K = self.marginal(t)
        offset_K = z[..., None] - mean_K
        share_K = torch.softmax(self.weight_K.log() - 0.5 * variance_K.log() - 0.5 * offset_K**2 / variance_K, dim=-1)
        return (share_K * (self.mean_K + self.path.alpha(t) * self.std_K**2 / variance_K * offset_K)).sum(-1)

    def cdf(self, z: Tensor, t: float) -> Tensor:
        """P(z_t <= z)."""
        mean_K, variance_K = self.marginal(t)
        return (self.weight_K * torch.special.ndtr((z[..., None] - mean_K) / variance_K.sqrt())).sum(-1)

    def flow(self, z: Tensor, start: float, end: float) -> Tensor:
        """Where the probability flow carries ``z`` from time start to time end: in one dimension it keeps every quantile."""
        target = self.cdf(z, start)
        low, high = torch.full_like(z, -50.0), torch.full_like(z, 50.0)
        for _ in range(100):
            middle = (low + high) / 2
            below = self.cdf(middle, end) < target
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


def three_bumps(path: Path) -> Mixture:
    """An asymmetric mixture of three components."""
    weight, mean, std = (torch.tensor(v, dtype=torch.float64) for v in ([0.3, 0.5, 0.2], [-1.2, 0.4, 1.8], [0.3, 0.5, 0.25]))
    return Mixture(path=path, weight_K=weight, mean_K=mean, std_K=std)


def show(line: str) -> None:
    """A line of a table, seen with ``pytest -s``."""
    sys.stdout.write(line + "\n")
