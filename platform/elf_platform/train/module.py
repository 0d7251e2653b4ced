"""The module that an engine wraps: the process runs inside it, so all forwards of a micro-batch are one engine call."""

from typing import Any

from torch import Tensor, nn

from elf.batch import Batch
from elf.processes import Loss, Process


class ProcessModule(nn.Module):
    """A module whose forward is the process's loss and whose parameters are the network's."""

    def __init__(self, process: Process, network: nn.Module) -> None:
        super().__init__()
        self.process, self.network = process, network

    def forward(self, batch: Batch, state_BLC: Tensor | None, drawn: Any) -> tuple[Tensor, Tensor, Tensor]:
        """(total, parts [P, 2], levels [K, 2]) of ``elf.processes.Loss``; a tuple, since engines hook tensors in tuples."""
        loss: Loss = self.process.loss(self.network, batch, state_BLC, drawn)
        return loss.total, loss.parts_P2, loss.levels_K2
