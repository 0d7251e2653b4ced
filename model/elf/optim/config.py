"""Settings of the optimiser, the learning-rate schedule and the moving average of the weights."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser settings (elf.md B; defaults are the published ones)."""

    name: Literal["muon", "adamw"] = "muon"
    """muon: orthogonalised momentum on every matrix, Nesterov Adam on the rest. adamw: AdamW on everything."""
    lr: float = 2e-3
    """Peak learning rate, of both halves of muon. The paper uses 2e-3 with muon and 1e-4 with adamw."""
    momentum: float = 0.95
    """Muon only: decay of the momentum."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam decay rates of the first and second moment. The paper's adamw uses 0.9, 0.95."""
    eps: float = 1e-8
    """Adam denominator offset."""
    weight_decay: float = 0.0
    """adamw only: decoupled weight decay, on matrices alone."""
    clip_norm: float = 1.0
    """Largest global norm of the raw gradient, before any optimiser; 0 turns clipping off."""
    warmup_steps: int = 0
    """Optimiser steps of linear warm-up from 0 (the first update then has learning rate 0)."""
    decay: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: held, or cosine to final_lr_ratio * lr at the last step."""
    final_lr_ratio: float = 0.0
    """cosine only: last learning rate over peak learning rate."""
    ema_decay: float = 0.9999
    """Decay of the exponential moving average of the weights, in float32, updated at each optimiser step."""

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"optim.lr is {self.lr}, but must be above 0")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"optim.ema_decay is {self.ema_decay}, but must be at least 0 and below 1")
        if self.warmup_steps < 0 or self.clip_norm < 0:
            raise ValueError("optim.warmup_steps and optim.clip_norm must be 0 or more")
        if not all(0 <= b < 1 for b in (*self.betas, self.momentum)):
            raise ValueError(f"optim.betas {self.betas} and optim.momentum {self.momentum} must be at least 0 and below 1")
        if self.name == "muon" and self.weight_decay:
            raise ValueError("optim.weight_decay has no effect with muon (ELF uses none); set it to 0, or optim.name to adamw")
        if self.decay == "constant" and self.final_lr_ratio:
            raise ValueError("optim.final_lr_ratio has no effect with optim.decay constant; set it to 0, or decay to cosine")
