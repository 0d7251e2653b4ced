"""Time grids: the T + 1 times 0 = t_0 < ... < t_T = 1 between which a sampler steps. One function and one line adds a grid."""

from collections.abc import Callable

import torch
from torch import Tensor

from elf.data.order import derive_key
from elf.schedules import logit_normal


def uniform_grid(steps: int, *, seed: int, mean: float, std: float) -> Tensor:
    """float64 [T + 1], evenly spaced."""
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


def logit_normal_grid(steps: int, *, seed: int, mean: float, std: float) -> Tensor:
    """float64 [T + 1]: T - 1 sorted draws from the training distribution between 0 and 1 (elf.md C.1; random, one per seed)."""
    generator = torch.Generator().manual_seed(derive_key(seed, "grid") >> 1)
    quantile = torch.rand(steps - 1, generator=generator, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    inner = logit_normal(quantile, mean, std).double().sort().values
    return torch.cat([torch.zeros(1, dtype=torch.float64), inner, torch.ones(1, dtype=torch.float64)])


GRIDS: dict[str, Callable[..., Tensor]] = {"uniform": uniform_grid, "logit-normal": logit_normal_grid}
