"""The trunk on token ids: the autoregressive baseline (causal) and the encoder that our own codec is made of (bidirectional).

Shapes: B rows, L tokens, H width, C state channels, V vocabulary.
"""

import torch
from torch import Tensor, nn

from elf.nn.attention import RMSNorm, rotary_table
from elf.nn.cache import KeyValueCache
from elf.nn.config import NetworkConfig, Precision
from elf.nn.trunk import Trunk, xavier


class TokenModel(nn.Module):
    """Token embedding, trunk, norm, states, unembedding (not tied)."""

    def __init__(
        self, config: NetworkConfig, *, vocab_size: int, length: int, causal: bool, channels: int | None = None,
        extra_ids: int = 0, precision: Precision = "fp32", activation_checkpointing: bool = False,
    ) -> None:
        """channels: width of the states that the logits are read from; None for the trunk's own width.
        extra_ids: input ids beyond the vocabulary that are never predicted, such as a mask token."""
        super().__init__()
        self.config, self.vocab_size, self.length, self.causal = config, vocab_size, length, causal
        hidden = config.hidden
        # Named embedding: the optimisers treat such tables as lookups (Adam), not as matrices to orthogonalise.
        self.token_embedding = nn.Embedding(vocab_size + extra_ids, hidden)
        self.start_embedding = nn.Parameter(torch.empty(1, 1, hidden)) if causal else None
        self.trunk = Trunk(config, precision=precision, activation_checkpointing=activation_checkpointing)
        self.norm = RMSNorm(hidden)
        self.to_states = nn.Linear(hidden, channels) if channels is not None else nn.Identity()
        self.unembed = nn.Linear(channels or hidden, vocab_size)
        self.rotary: Tensor
        self.register_buffer("rotary", rotary_table(0, length, hidden // config.heads, config.rope_theta), persistent=False)
        self.apply(xavier)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        if self.start_embedding is not None:
            nn.init.normal_(self.start_embedding, std=0.02)

    def forward(
        self, ids_BL: Tensor, mask: Tensor | None = None, *, want_logits: bool = True, key_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(states [B, L, C], logits [B, L, V] or None).

        A causal model is given the row itself: position l sees a learned start vector and ids 0..l-1, and predicts id l.
        mask: bool, broadcastable to [B, 1, L, L], True where a query may look at a key; bidirectional models only.
        key_B: of dropout, as in RowDropout.
        """
        if ids_BL.shape[1] > self.length:
            raise ValueError(f"the network was built for rows of at most {self.length} tokens, but got {ids_BL.shape[1]}")
        x_BLH = self.token_embedding(ids_BL)
        if self.start_embedding is not None:
            x_BLH = torch.cat([self.start_embedding.expand(len(ids_BL), -1, -1), x_BLH[:, :-1]], dim=1)
        h_BLH = self.trunk(x_BLH, self.rotary[:, : ids_BL.shape[1]], mask, self.causal, key_B=key_B)
        states_BLC = self.to_states(self.norm(h_BLH))
        return states_BLC, self.unembed(states_BLC) if want_logits else None

    def extend(self, ids_BN: Tensor, cache: KeyValueCache) -> Tensor:
        """States [B, N, C] from which ``unembed`` predicts the id after each of ``ids_BN``; causal models only.

        The slots of ``cache`` say where the ids are read: id l of a row is the input of slot l + 1. At slot 0 the learned start vector
        stands before the ids, and the states are [B, N + 1, C]: the first predicts id 0. With one slot per row, N must be 1."""
        assert self.start_embedding is not None, "a bidirectional model reads whole rows"
        x_BNH, first = self.token_embedding(ids_BN), cache.slots.first
        mask = None
        if isinstance(first, int):
            assert first == 0 or ids_BN.shape[1] == 1, "a causal mask over stored positions exists for one new position alone"
            if first == 0:
                x_BNH = torch.cat([self.start_embedding.expand(len(ids_BN), -1, -1), x_BNH], dim=1)
            table = self.rotary[:, first : first + x_BNH.shape[1]]
        else:
            table = self.rotary[:, first][:, :, None, None]
            mask = (torch.arange(cache.slots.keys, device=first.device) <= first[:, None])[:, None, None]
        return self.to_states(self.norm(self.trunk(x_BNH, table, mask, x_BNH.shape[1] > 1, cache)))
