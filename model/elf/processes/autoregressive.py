"""Autoregressive baseline and judge: next-token cross-entropy on the shared trunk, left to right.

Shapes: B rows, L tokens, V vocabulary. A learned start vector stands before the row, so all L tokens are predicted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elf.batch import Batch
from elf.draws import Draws
from elf.nn.config import NetworkConfig, Precision
from elf.nn.token_model import TokenModel
from elf.processes.base import LEVELS, Loss, Process, Samples, target_mask
from elf.sampling.check import check_autoregressive
from elf.sampling.condition import Condition
from elf.sampling.config import SampleConfig
from elf.sampling.decoding import continue_rows
from elf.sampling.finish import mask_after_eos


@dataclass(frozen=True, kw_only=True)
class Autoregressive(Process):
    """Settings of the autoregressive process."""

    kind: ClassVar[str] = "autoregressive"
    part_names: ClassVar[tuple[str, ...]] = ("ce",)
    total_parts: ClassVar[tuple[int, ...]] = (0,)
    needs_codec: ClassVar[bool] = False

    loss_on_padding: bool = False
    """Padding positions count in the loss."""

    def build_network(
        self, network: NetworkConfig, *, vocab_size: int, channels: int, length: int, precision: Precision = "fp32",
        activation_checkpointing: bool = False,
    ) -> nn.Module:
        return TokenModel(
            network, vocab_size=vocab_size, length=length, causal=True, precision=precision,
            activation_checkpointing=activation_checkpointing,
        )

    def count(self, batch: Batch) -> Tensor:
        return target_mask(batch, padding=self.loss_on_padding).double().sum()

    def draw(self, draws: Draws, batch: Batch, channels: int) -> Tensor:
        """The rows' keys of dropout, int32 [B]."""
        return draws.keys("dropout")

    def loss(self, network: nn.Module, batch: Batch, state_BLC: Tensor | None, drawn: Any) -> Loss:
        _, logits_BLV = network(batch.ids_BL, key_B=drawn)
        ce_BL = F.cross_entropy(logits_BLV.float().flatten(0, 1), batch.ids_BL.flatten(), reduction="none").view_as(batch.ids_BL)
        mask_BL = target_mask(batch, padding=self.loss_on_padding)
        total = (ce_BL * mask_BL).sum()
        return Loss(
            total=total,
            parts_P2=torch.stack([total.detach(), mask_BL.sum()]).double()[None],
            levels_K2=torch.zeros(LEVELS, 2, dtype=torch.float64, device=total.device),
        )

    def check_sampling(self, config: SampleConfig, *, conditional: bool) -> None:
        check_autoregressive(self.kind, config)

    def sample(
        self, network: nn.Module, draws: Draws, *, length: int, channels: int, config: SampleConfig,
        condition: Condition | None = None, eos_id: int | None = None, pad_id: int = 0, record: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Samples:
        self.check_sampling(config, conditional=condition is not None)
        assert isinstance(network, TokenModel)
        ids_BL, nfe = continue_rows(
            network, draws, length=length, temperature=config.temperature, top_p=config.top_p, condition=condition, progress=progress
        )
        if condition is not None:
            ids_BL = condition.generated(ids_BL, pad_id)
        return Samples(ids_BL=mask_after_eos(ids_BL, eos_id, pad_id), nfe=nfe)
