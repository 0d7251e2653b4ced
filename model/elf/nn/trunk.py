"""The transformer trunk that every process shares: pre-norm blocks of attention and SwiGLU on a float32 residual stream (elf.md A.7).

Shapes: B rows, N positions, H width.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from elf.nn.attention import Attention, RMSNorm
from elf.nn.cache import KeyValueCache, LayerCache
from elf.nn.config import NetworkConfig, Precision
from elf.nn.dropout import RowDropout


def feed_forward_width(hidden: int) -> int:
    """F of the SwiGLU block: two thirds of four times the width."""
    return int(4 * hidden * 2 / 3)


class SwiGLU(nn.Module):
    """Gated feed-forward block (Shazeer 2020): silu(first half) * second half, then back to the width."""

    def __init__(self, hidden: int, dropout: float = 0.0, place: int = 0) -> None:
        super().__init__()
        inner = feed_forward_width(hidden)
        self.w12 = nn.Linear(hidden, 2 * inner)
        self.w3 = nn.Linear(inner, hidden)
        self.dropout = RowDropout(dropout, place)

    def forward(self, x_BNH: Tensor, key_B: Tensor | None = None) -> Tensor:
        """[B, N, H] -> [B, N, H]; key_B as in RowDropout."""
        gate, value = self.w12(x_BNH).chunk(2, dim=-1)
        return self.dropout(self.w3(F.silu(gate) * value), key_B)


class Block(nn.Module):
    """x += attention(norm(x)); x += feed_forward(norm(x))."""

    def __init__(self, hidden: int, heads: int, dropout: float = 0.0, layer: int = 0) -> None:
        super().__init__()
        self.norm1 = RMSNorm(hidden)
        self.attn = Attention(hidden, heads, dropout, 2 * layer)
        self.norm2 = RMSNorm(hidden)
        self.mlp = SwiGLU(hidden, dropout, 2 * layer + 1)

    def forward(
        self, x_BNH: Tensor, table: Tensor, mask: Tensor | None = None, causal: bool = False, cache: LayerCache | None = None,
        key_B: Tensor | None = None,
    ) -> Tensor:
        """[B, N, H] -> [B, N, H]; mask, cache and key_B as in Attention."""
        x_BNH = x_BNH + self.attn(self.norm1(x_BNH), table, mask, causal, cache, key_B)
        return x_BNH + self.mlp(self.norm2(x_BNH), key_B)


class Trunk(nn.Module):
    """A stack of blocks. With precision bf16 its matrix products run in bfloat16 under autocast; everything around it stays float32."""

    def __init__(self, config: NetworkConfig, *, precision: Precision = "fp32", activation_checkpointing: bool = False) -> None:
        super().__init__()
        self.precision, self.activation_checkpointing = precision, activation_checkpointing
        # The official network drops activations in the middle half of the blocks only.
        middle = range(config.depth // 4, 3 * config.depth // 4)
        self.blocks = nn.ModuleList(
            Block(config.hidden, config.heads, config.dropout if i in middle else 0.0, i) for i in range(config.depth)
        )

    def forward(
        self, x_BNH: Tensor, table: Tensor, mask: Tensor | None = None, causal: bool = False, cache: KeyValueCache | None = None,
        key_B: Tensor | None = None,
    ) -> Tensor:
        """[B, N, H] float32 -> [B, N, H] float32; table from rotary_table; mask, cache and key_B as in Attention."""
        with torch.autocast(x_BNH.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            for layer, block in enumerate(self.blocks):
                run: Callable[..., Tensor] = block
                if self.activation_checkpointing and self.training and torch.is_grad_enabled():
                    # Nothing in a block draws from torch's generators, whose state need not be kept for the second forward.
                    run = partial(checkpoint, block, use_reentrant=False, preserve_rng_state=False)
                x_BNH = run(x_BNH, table, mask, causal, None if cache is None else cache.layers[layer], key_B)
        return x_BNH.float()


def xavier(module: nn.Module) -> None:
    """The official initialisation of linear layers: Xavier uniform weights, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
