"""Distributions of flow time t in (0, 1); t = 0 is noise, t = 1 is data."""

import math

import torch
from torch import Tensor


def logit_normal(quantile: Tensor, mean: float, std: float) -> Tensor:
    """float32 t = sigmoid(N(mean, std)) at the given quantiles (float64 in (0, 1), any shape)."""
    return torch.sigmoid(mean + std * torch.special.ndtri(quantile.double())).float()


def logit_normal_density(t: Tensor, mean: float, std: float) -> Tensor:
    """Probability density of the logit-normal at t in (0, 1), same shape and dtype."""
    z = (torch.logit(t) - mean) / std
    return torch.exp(-0.5 * z * z) / (std * math.sqrt(2 * math.pi) * t * (1 - t))


def log_uniform_shifted(quantile: Tensor, low: float, high: float) -> Tensor:
    """float32 w with log(1 + w) uniform between low and high: density proportional to 1 / (1 + w) (elf.md A.5)."""
    ratio = (1 + high) / (1 + low)
    return ((1 + low) * ratio ** quantile.double() - 1).float()
