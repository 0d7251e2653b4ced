"""Settings of the optimiser, the learning-rate schedule and the moving average of the weights."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from elf.settings import Bounds, Count, Decay, LearningRate, NotNegative, Settings, Share


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Settings):
    """Optimiser settings (elf.md B; defaults are the published ones)."""

    prefix: ClassVar[str] = "optim."

    name: Literal["muon", "adamw"] = "muon"
    """muon: orthogonalised momentum on every matrix, Nesterov Adam on the rest. adamw: AdamW on everything."""
    lr: LearningRate = 2e-3
    """Peak learning rate, of both halves of muon. The paper uses 2e-3 with muon and 1e-4 with adamw."""
    momentum: Decay = 0.95
    """Muon only: decay of the momentum."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Adam decay rates of the first and second moment. The paper's adamw uses 0.9, 0.95."""
    eps: Annotated[float, Bounds(above=0, most=1)] = 1e-8
    """Adam denominator offset."""
    weight_decay: Annotated[float, Bounds(least=0, most=1000)] = 0.0
    """adamw only: decoupled weight decay, on matrices alone."""
    clip_norm: NotNegative = 1.0
    """Largest global norm of the raw gradient, before any optimiser; 0 turns clipping off."""
    warmup_steps: Count = 0
    """Optimiser steps of linear warm-up from 0 (the first update then has learning rate 0)."""
    decay: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: held, or cosine to final_lr_ratio * lr at the last step."""
    final_lr_ratio: Share = 0.0
    """cosine only: last learning rate over peak learning rate."""
    ema_decay: Decay = 0.9999
    """Decay of the exponential moving average of the weights, in float32, updated at each optimiser step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name == "muon" and self.weight_decay:
            raise ValueError("optim.weight_decay has no effect with muon (ELF uses none); set it to 0, or optim.name to adamw")
        if self.decay == "constant" and self.final_lr_ratio:
            raise ValueError("optim.final_lr_ratio has no effect with optim.decay constant; set it to 0, or decay to cosine")
