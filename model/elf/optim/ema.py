"""Exponential moving average of the weights, over the same slices as the optimiser."""

from collections.abc import Sequence

import torch
from torch import Tensor

from elf.optim.slices import ParamSlice


class Ema:
    """average <- decay * average + (1 - decay) * weights, from the initial weights and without a warm-up (elf.md B).

    float32 whatever the network computes in: in bfloat16 a decay of 0.9999 hardly moves."""

    def __init__(self, slices: Sequence[ParamSlice], decay: float) -> None:
        self.decay = decay
        self.slices = list(slices)
        self.averages = [s.value.detach().to(torch.float32, copy=True) for s in slices]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the weights as they are now; call once after each optimiser step."""
        if self.averages:
            torch._foreach_lerp_(self.averages, [s.value for s in self.slices], 1.0 - self.decay)

    def state(self) -> dict[str, Tensor]:
        """Live flat averages, keyed "ema/parameter name"; copying into them restores a saved state."""
        return {f"ema/{s.name}": average for s, average in zip(self.slices, self.averages, strict=True)}
