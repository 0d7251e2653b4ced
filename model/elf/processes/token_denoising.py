"""Token denoising: trains the bidirectional encoder that becomes our own codec when no pretrained one is at hand (elf.md D.5).

A share of the tokens is replaced by a mask id or by a random token, and the encoder recovers the row (Devlin et al. 2019, with the
loss on all positions by default: the states must carry each token's identity, since ELF decodes tokens from them). Rows with a source are
encoded by the rule that the codec will use (elf.md A.1, A.6): the source sees itself alone, and some targets do not see it.

Shapes: B rows, L tokens, C state channels, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elf.batch import Batch
from elf.draws import Draws
from elf.nn.config import NetworkConfig, Precision
from elf.nn.mask import encoder_mask
from elf.nn.token_model import TokenModel
from elf.processes.base import LEVELS, Loss, Process, Samples
from elf.sampling.condition import Condition
from elf.sampling.config import SampleConfig
from elf.settings import Share

_NO_TEXT = "token_denoising trains an encoder and cannot generate text; sample from an elf or autoregressive artefact"


@dataclass(frozen=True, kw_only=True)
class DenoisingDraws:
    """Random tensors of one micro-batch."""

    corrupt_BL: Tensor  # uniform, corrupted where below corrupt_prob
    how_BL: Tensor  # uniform, random token where below random_share, mask id otherwise
    token_BL: Tensor  # uniform, which random token
    drop_condition_B: Tensor  # bool, target does not see the source
    dropout_B: Tensor | None = None  # int32, the rows' keys of dropout


@dataclass(frozen=True, kw_only=True)
class TokenDenoising(Process):
    """Settings of the encoder's training objective."""

    kind: ClassVar[str] = "token_denoising"
    part_names: ClassVar[tuple[str, ...]] = ("ce", "corrupted_ce")
    total_parts: ClassVar[tuple[int, ...]] = (0,)
    needs_codec: ClassVar[bool] = False

    corrupt_prob: Share = 0.25
    """Share of tokens that are corrupted."""
    random_share: Share = 0.2
    """Share of the corrupted tokens that become a random token; the others become the mask id."""
    loss_on: Literal["all", "corrupted"] = "all"
    """Positions whose token is predicted."""
    condition_drop_prob: Share = 0.1
    """Share of rows with a source whose target is encoded without it, as the flow's rows without their condition are."""
    loss_on_padding: bool = False
    """Padding positions are predicted too: on where the process that uses the states learns them. They are never corrupted or looked at."""

    def build_network(
        self, network: NetworkConfig, *, vocab_size: int, channels: int, length: int, precision: Precision = "fp32",
        activation_checkpointing: bool = False,
    ) -> nn.Module:
        return TokenModel(
            network, vocab_size=vocab_size, length=length, causal=False, channels=channels, extra_ids=1, precision=precision,
            activation_checkpointing=activation_checkpointing,
        )

    def count(self, batch: Batch) -> Tensor:
        # The corrupted positions differ with the draw, so the mean is over all tokens whichever positions carry loss.
        return self._mask(batch).double().sum()

    def _mask(self, batch: Batch) -> Tensor:
        """float32 [B, L]: 1 on the tokens of rows that are no filler, and on their padding where that counts."""
        counted_BL = torch.ones_like(batch.valid_BL) if self.loss_on_padding else batch.valid_BL
        return counted_BL * batch.weight_B[:, None]

    def draw(self, draws: Draws, batch: Batch, channels: int) -> DenoisingDraws:
        length = batch.ids_BL.shape[1]
        corrupt, how, token = draws.uniform("corruption", 3, length).unbind(1)
        drop_B = draws.tensor(draws.coin("drop_condition", self.condition_drop_prob).on_B) & (batch.cond_length_B > 0)
        return DenoisingDraws(corrupt_BL=corrupt, how_BL=how, token_BL=token, drop_condition_B=drop_B, dropout_B=draws.keys("dropout"))

    def loss(self, network: nn.Module, batch: Batch, state_BLC: Tensor | None, drawn: DenoisingDraws) -> Loss:
        assert isinstance(network, TokenModel)
        ids_BL, vocab = batch.ids_BL, network.vocab_size
        corrupted_BL = (drawn.corrupt_BL < self.corrupt_prob) & batch.valid_BL
        random_BL = (drawn.token_BL * vocab).long().clamp_max(vocab - 1)
        replacement_BL = torch.where(drawn.how_BL < self.random_share, random_BL, vocab)
        mask = encoder_mask(batch, drawn.drop_condition_B)
        _, logits_BLV = network(torch.where(corrupted_BL, replacement_BL, ids_BL), mask, key_B=drawn.dropout_B)
        assert logits_BLV is not None
        ce_BL = F.cross_entropy(logits_BLV.float().flatten(0, 1), ids_BL.flatten(), reduction="none").view_as(ids_BL)
        ce_BL = ce_BL * self._mask(batch)
        counted_BL = torch.ones_like(ce_BL) if self.loss_on == "all" else corrupted_BL.float()
        total = (ce_BL * counted_BL).sum()
        weight_BL = corrupted_BL.float() * batch.weight_B[:, None]
        corrupted = torch.stack([(ce_BL.detach() * weight_BL).sum().double(), weight_BL.sum().double()])
        return Loss(
            total=total,
            parts_P2=torch.stack([torch.stack([total.detach().double(), self.count(batch)]), corrupted]),
            levels_K2=torch.zeros(LEVELS, 2, dtype=torch.float64, device=total.device),
        )

    def check_sampling(self, config: SampleConfig, *, conditional: bool) -> None:
        raise ValueError(_NO_TEXT)

    def sample(
        self, network: nn.Module, draws: Draws, *, length: int, channels: int, config: SampleConfig,
        condition: Condition | None = None, eos_id: int | None = None, pad_id: int = 0, record: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Samples:
        raise ValueError(_NO_TEXT)
