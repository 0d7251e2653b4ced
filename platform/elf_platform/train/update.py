"""One optimiser step from raw gradients to new weights, the same for every engine: norms, finiteness, clipping, rule, average.

Works on the slices of parameters that this rank holds. Norms are summed over ranks, so all ranks take the same decision.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elf.optim import Ema, OptimConfig, Optimizer, Orthogonalise, ParamSlice, clip_factor, learning_rate, orthogonalise_locally


@dataclass(frozen=True, kw_only=True)
class UpdateResult:
    """What one step did; a skipped step left weights, state and average as they were."""

    lr: float
    grad_norm: float  # of the raw gradient, before clipping
    grad_norms: dict[str, float]  # by group
    update_norms: dict[str, float]  # by group, of the change of the weights
    skipped: bool


class Updater:
    """Optimiser and moving average over the local slices.

    reduce: sums a small tensor over the ranks that hold different slices; identity where every rank holds everything.
    """

    def __init__(
        self, slices: Sequence[ParamSlice], config: OptimConfig, *, total_steps: int,
        reduce: Callable[[Tensor], Tensor] = lambda x: x, orthogonalise: Orthogonalise = orthogonalise_locally,
    ) -> None:
        self.slices, self.config, self.total_steps, self._reduce = list(slices), config, total_steps, reduce
        self.optimizer = Optimizer(self.slices, config, orthogonalise=orthogonalise)
        self.ema = Ema(self.slices, config.ema_decay)

    def state(self) -> dict[str, Tensor]:
        """Live flat tensors keyed "weight/name", "ema/name" and "<optimiser state>/name": all of a checkpoint's tensors."""
        weights = {f"weight/{s.name}": s.value for s in self.slices}
        return {**weights, **self.ema.state(), **self.optimizer.state()}

    @torch.no_grad()
    def apply(self, grads: Sequence[Tensor], step: int, allow: Callable[[float], bool] = math.isfinite) -> UpdateResult:
        """Update from the mean gradient of step ``step`` (0-based). Gradients are scaled in place when they are clipped.

        allow: is told the norm of the raw gradient over all ranks. False, or a norm that is not finite, skips the step: weights, state and
        average stay, and the caller is told.
        """
        lr = learning_rate(step, self.config, self.total_steps)
        squares = self._summed(self.optimizer.grad_sq_norms(grads))
        norm = math.sqrt(sum(squares.values()))
        norms = {group: math.sqrt(value) for group, value in squares.items()}
        if not math.isfinite(norm) or not allow(norm):
            return UpdateResult(lr=lr, grad_norm=norm, grad_norms=norms, update_norms={}, skipped=True)
        factor = clip_factor(norm, self.config.clip_norm) if self.config.clip_norm else 1.0
        if factor < 1.0 and grads:
            torch._foreach_mul_(list(grads), factor)
        self.optimizer.step(grads, lr=lr)
        self.ema.update()
        updates = {group: math.sqrt(value) for group, value in self._summed(self.optimizer.update_sq_norms()).items()}
        return UpdateResult(lr=lr, grad_norm=norm, grad_norms=norms, update_norms=updates, skipped=False)

    def _summed(self, squares: dict[str, Tensor]) -> dict[str, float]:
        total = self._reduce(torch.stack([value.double() for value in squares.values()]))
        # nan when any rank has one: sqrt and isfinite then see it on all ranks alike.
        return dict(zip(squares, total.tolist(), strict=True))
