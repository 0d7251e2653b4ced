"""What an update rule is: how the gradients of one group of parameters become a direction. One rule is one class."""

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from elf.optim.config import OptimConfig
from elf.optim.slices import Orthogonalise, ParamSlice


class Rule(abc.ABC):
    """Update rule of one group. ``state`` holds one flat tensor per kind and slice, zero before the first step."""

    kinds: ClassVar[tuple[str, ...]]
    """Names of the state tensors that the rule keeps for every slice."""
    whole_matrices: ClassVar[bool] = False
    """The rule orthogonalises: its parameters are matrices whose pieces have to be brought together, whatever its group is called."""

    def __init__(self, slices: Sequence[ParamSlice], config: OptimConfig, orthogonalise: Orthogonalise) -> None:
        self.slices, self.config, self.orthogonalise = list(slices), config, orthogonalise
        self.state: dict[str, list[Tensor]] = {kind: [torch.zeros_like(s.value) for s in self.slices] for kind in self.kinds}

    @abc.abstractmethod
    def direction(self, grads: list[Tensor], step: int) -> list[Tensor]:
        """What the learning rate multiplies and the weights lose, per slice (new tensors); advances the state.

        grads: in the order of the slices, left unchanged. step: counted from 1. Called on every rank, also without slices."""

    @staticmethod
    def factor(shape: tuple[int, ...]) -> float:
        """Scale that the rule gives an update by the shape of its parameter."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An optimiser: which group a parameter belongs to, and the rule of each group."""

    assign: Callable[[str, tuple[int, ...]], str]
    rules: Mapping[str, type[Rule]]


def is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a parameter is a linear map. Tables that ids look rows up in (modules named ``...embedding``) are not."""
    return len(shape) == 2 and not any(part.endswith("embedding") for part in name.split("."))
