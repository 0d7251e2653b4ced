"""Exponential moving average of the weights, over the same slices as the optimiser."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from elf.optim.slices import ParamSlice

NEGLIGIBLE_SHARE = 0.02
"""Below this share of initial weights an average is left alone. All recipes end there (xsum, as published, with 1.9 %), so that published
runs stay what the official code makes."""


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


def trained_average(average: Mapping[str, Tensor], initial: Mapping[str, Tensor], *, decay: float, updates: int) -> dict[str, Tensor]:
    """The average without its share of the initial weights, s = decay^updates: (average - s initial) / (1 - s).

    The bias correction of Adam (Kingma and Ba 2015, section 3) for an average that starts at the initial weights instead of zero. A
    short run would otherwise be sampled with weights of which a good part was never trained (docs/lab-log.md). The average as it is
    when nothing was updated or the share is below ``NEGLIGIBLE_SHARE``.

    average, initial: tensors by parameter name, of the same shapes. A rounding error of the average grows by 1 / (1 - s)."""
    share = decay**updates
    if updates < 1 or share < NEGLIGIBLE_SHARE:
        return dict(average)
    return {name: ((value.double() - share * initial[name].double()) / (1 - share)).to(value.dtype) for name, value in average.items()}
