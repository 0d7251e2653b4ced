"""Time grids: the T + 1 times 0 = t_0 < ... < t_T = 1 between which a sampler steps. One function and one line adds a grid."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from elf.data.order import derive_key
from elf.schedules import logit_normal


def uniform_grid(steps: int, *, seed: int, mean: float, std: float, density: Sequence[float]) -> Tensor:
    """float64 [T + 1], evenly spaced."""
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


def logit_normal_grid(steps: int, *, seed: int, mean: float, std: float, density: Sequence[float]) -> Tensor:
    """float64 [T + 1]: T - 1 sorted draws from the training distribution between 0 and 1 (elf.md C.1; random, one per seed)."""
    generator = torch.Generator().manual_seed(derive_key(seed, "grid") >> 1)
    quantile = torch.rand(steps - 1, generator=generator, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    return _between_ends(logit_normal(quantile, mean, std).double().sort().values)


def logit_normal_quantile_grid(steps: int, *, seed: int, mean: float, std: float, density: Sequence[float]) -> Tensor:
    """float64 [T + 1]: t_k = sigmoid(mean + std * Phi^-1(k / T)): the random grid's sorted draws have these quantiles on average."""
    return _between_ends(logit_normal(torch.arange(1, steps, dtype=torch.float64) / steps, mean, std).double())


def warped_grid(steps: int, *, seed: int, mean: float, std: float, density: Sequence[float]) -> Tensor:
    """float64 [T + 1]: t_k = F^-1(k / T) for the distribution F with piecewise constant ``density`` over equal parts of [0, 1]."""
    cumulative = np.concatenate([[0.0], np.cumsum(np.asarray(density, dtype=np.float64))])
    edges = np.linspace(0.0, 1.0, len(cumulative))
    inner = np.interp(np.arange(1, steps) / steps * cumulative[-1], cumulative, edges)
    return _between_ends(torch.from_numpy(inner))


def _between_ends(inner: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.float64), inner, torch.ones(1, dtype=torch.float64)])


GRIDS: dict[str, Callable[..., Tensor]] = {
    "uniform": uniform_grid,
    "logit-normal": logit_normal_grid,
    "logit-normal-quantile": logit_normal_quantile_grid,
    "warped": warped_grid,
}
