"""What runs forward, backward and the update on a worker. Two implementations: plain PyTorch here, DeepSpeed in ``zero``."""

import abc
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from elf.batch import Batch
from elf.optim import OptimConfig, ParamSlice
from elf_platform.config import EngineConfig
from elf_platform.train.context import WorkerContext
from elf_platform.train.module import ProcessModule
from elf_platform.train.update import Updater, UpdateResult

Forward = tuple[Tensor, Tensor, Tensor]


class Engine(abc.ABC):
    """One training engine of a worker; all methods are called by all workers in the same order."""

    updater: Updater
    replicated: bool
    """Every rank holds all slices, so one rank's suffice for a checkpoint."""

    @abc.abstractmethod
    def forward(self, batch: Batch, state_BLC: Tensor | None, drawn: Any) -> Forward:
        """(loss sum, parts, levels) of a micro-batch."""

    @abc.abstractmethod
    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add this micro-batch's gradient. ``loss``: the micro-batch's loss sum over the global count, so that gradients add up to
        that of the mean. last: the step's last micro-batch."""

    @abc.abstractmethod
    def step(self, step: int, allow: Callable[[float], bool] = math.isfinite) -> UpdateResult:
        """Update the weights from the gradients of step ``step``, unless ``allow`` says no to their norm, and clear them."""

    @abc.abstractmethod
    def evaluate(self, batch: Batch, state_BLC: Tensor | None, drawn: Any) -> Forward:
        """``forward`` without a graph."""

    @abc.abstractmethod
    def all_reduce(self, value: Tensor) -> Tensor:
        """Sum over workers, in place."""

    @abc.abstractmethod
    def gather_weights(self, kind: str = "ema") -> dict[str, Tensor] | None:
        """The whole network's weights (kind "weight") or their average ("ema") on the main worker's CPU, None on the others."""

    def close(self) -> None:  # noqa: B027  nothing to do unless an engine says so
        """Let go of all memory, network included; the engine is of no use afterwards."""

    def common(self) -> Mapping[str, Tensor]:
        """What every rank should hold the same, bit for bit; empty where ranks hold nothing in common."""
        return {}


def whole_slices(module: ProcessModule) -> list[ParamSlice]:
    """Every parameter of the network as one slice."""
    return [
        ParamSlice(name=name, shape=tuple(p.shape), start=0, stop=p.numel(), value=p.detach().view(-1))
        for name, p in module.network.named_parameters()
    ]


def unflattened(slices: Sequence[ParamSlice], flat: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Copies on the CPU of whole flat tensors, in their parameters' shapes."""
    return {s.name: flat[f"{kind}/{s.name}"].detach().to("cpu", copy=True).view(s.shape) for s in slices}


class PlainEngine(Engine):
    """PyTorch in one process: for a laptop, and the oracle that DeepSpeed is tested against."""

    replicated = True

    def __init__(self, module: ProcessModule, optim: OptimConfig, *, total_steps: int) -> None:
        self.module = module
        self.updater = Updater(whole_slices(module), optim, total_steps=total_steps)
        self._parameters = list(module.network.parameters())

    def forward(self, batch: Batch, state_BLC: Tensor | None, drawn: Any) -> Forward:
        self.module.train()
        return self.module(batch, state_BLC, drawn)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        loss.backward()

    def step(self, step: int, allow: Callable[[float], bool] = math.isfinite) -> UpdateResult:
        for p in self._parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        result = self.updater.apply([p.grad.view(-1) for p in self._parameters if p.grad is not None], step, allow)
        for p in self._parameters:
            p.grad = None
        return result

    @torch.no_grad()
    def evaluate(self, batch: Batch, state_BLC: Tensor | None, drawn: Any) -> Forward:
        self.module.eval()
        return self.module(batch, state_BLC, drawn)

    def all_reduce(self, value: Tensor) -> Tensor:
        return value

    def gather_weights(self, kind: str = "ema") -> dict[str, Tensor] | None:
        return unflattened(self.updater.slices, self.updater.state(), kind)


def build_engine(
    kind: str, module: ProcessModule, optim: OptimConfig, engine: EngineConfig, context: WorkerContext, *,
    total_steps: int, accumulation: int,
) -> Engine:
    """The engine of ``RunConfig.engine_kind`` on this worker; the module's weights are the ones to start from."""
    if kind == "plain":
        return PlainEngine(module, optim, total_steps=total_steps)
    from elf_platform.train.zero import ZeroEngine  # DeepSpeed takes seconds to import: only where it is used

    return ZeroEngine(module, optim, engine, context, total_steps=total_steps, accumulation=accumulation)
