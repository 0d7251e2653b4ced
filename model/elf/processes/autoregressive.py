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
from elf.sampling.config import SampleConfig
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

    def loss(self, network: nn.Module, batch: Batch, state_BLC: Tensor | None, drawn: Any) -> Loss:
        _, logits_BLV = network(batch.ids_BL)
        ce_BL = F.cross_entropy(logits_BLV.float().flatten(0, 1), batch.ids_BL.flatten(), reduction="none").view_as(batch.ids_BL)
        mask_BL = target_mask(batch, padding=self.loss_on_padding)
        total = (ce_BL * mask_BL).sum()
        return Loss(
            total=total,
            parts_P2=torch.stack([total.detach(), mask_BL.sum()]).double()[None],
            levels_K2=torch.zeros(LEVELS, 2, dtype=torch.float64, device=total.device),
        )

    @torch.no_grad()
    def sample(
        self, network: nn.Module, draws: Draws, *, length: int, channels: int, config: SampleConfig,
        eos_id: int | None = None, pad_id: int = 0, record: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Samples:
        ids_BL = torch.full((len(draws.rows), length), pad_id, dtype=torch.int64, device=draws.device)
        uniform_BL = draws.uniform("autoregressive", length).double()
        for position in range(length):
            _, logits_BLV = network(ids_BL[:, : position + 1])
            # float64: the tail of a float32 cumulative sum rounds rare tokens away and lowers the entropy of the text.
            probability_BV = torch.softmax(logits_BLV[:, -1].double() / config.temperature, dim=-1)
            chosen_B1 = torch.searchsorted(probability_BV.cumsum(-1), uniform_BL[:, position, None])
            ids_BL[:, position] = chosen_B1[:, 0].clamp_max(probability_BV.shape[1] - 1)
            if progress:
                progress(position + 1, length)
        return Samples(ids_BL=mask_after_eos(ids_BL, eos_id, pad_id), nfe=length)
