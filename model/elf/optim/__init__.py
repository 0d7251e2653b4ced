"""Optimisers over slices of parameters, the learning-rate schedule and the moving average of the weights."""

from elf.optim.assign import OPTIMIZERS, assign_groups, describe_groups, orthogonalised
from elf.optim.config import OptimConfig
from elf.optim.ema import NEGLIGIBLE_SHARE, Ema, trained_average
from elf.optim.muon import newton_schulz, orthogonalise_locally, shape_factor
from elf.optim.optimizer import Optimizer
from elf.optim.schedule import clip_factor, learning_rate
from elf.optim.slices import MatrixPiece, Orthogonalise, ParamSlice

__all__ = [
    "NEGLIGIBLE_SHARE",
    "OPTIMIZERS",
    "Ema",
    "MatrixPiece",
    "OptimConfig",
    "Optimizer",
    "Orthogonalise",
    "ParamSlice",
    "assign_groups",
    "clip_factor",
    "describe_groups",
    "learning_rate",
    "newton_schulz",
    "orthogonalise_locally",
    "orthogonalised",
    "shape_factor",
    "trained_average",
]
