"""The learning rate of a step, and the clipping of a gradient."""

import math

from elf.optim.config import OptimConfig


def learning_rate(step: int, config: OptimConfig, total_steps: int) -> float:
    """Learning rate of optimiser step ``step``, counted from 0, of ``total_steps``.

    Linear warm-up from 0 over warmup_steps, so that the first update has learning rate 0 and step warmup_steps the peak; then
    constant, or half a cosine that reaches final_lr_ratio * lr at the last step (elf.md B)."""
    if step < config.warmup_steps:
        return config.lr * step / config.warmup_steps
    if config.decay == "constant":
        return config.lr
    span = max(total_steps - 1 - config.warmup_steps, 1)
    progress = min((step - config.warmup_steps) / span, 1.0)
    floor = config.final_lr_ratio
    return config.lr * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress)))


def clip_factor(global_norm: float, max_norm: float) -> float:
    """What gradients of ``global_norm`` are multiplied by so that their norm stays at most ``max_norm`` (0: no clipping).

    min(1, max_norm / (norm + 1e-6)) as in torch.nn.utils.clip_grad_norm_; NaN for a NaN norm and 0 for an infinite one, so the
    caller looks at the norm first."""
    if max_norm == 0:
        return 1.0
    factor = max_norm / (global_norm + 1e-6)
    return 1.0 if factor > 1.0 else factor  # min() would turn NaN into 1
