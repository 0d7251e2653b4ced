"""Attention with per-head RMS normalisation of queries and keys and rotary positions (elf.md A.7).

Shapes: B rows, N positions (prefix tokens included), H width, A heads, D head width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elf.nn.cache import LayerCache
from elf.nn.dropout import RowDropout


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a weight (Zhang and Sennrich 2019), computed in float32, given back in the input's dtype."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        return F.rms_norm(x.float(), (self.width,), self.weight.float(), self.eps).to(x.dtype)


def rotary_table(prefix: int, length: int, head_width: int, theta: float) -> Tensor:
    """float32 [2, prefix + length, D / 2]: cosines and sines. Prefix tokens are not turned; text stands at 0, 1, 2, ..."""
    frequency = theta ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    position = torch.cat([torch.zeros(prefix, dtype=torch.float64), torch.arange(length, dtype=torch.float64)])
    angle = position[:, None] * frequency
    return torch.stack([angle.cos(), angle.sin()]).float()


def rotate(x_BAND: Tensor, table: Tensor) -> Tensor:
    """Turn each pair of channels (2i, 2i + 1) by its position's angle (Su et al. 2021, interleaved form).

    table: [2, N, D / 2], or broadcastable to [2, B, A, N, D / 2] where rows stand at different positions."""
    cos, sin = table.to(x_BAND.dtype)
    even, odd = x_BAND[..., 0::2], x_BAND[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class Attention(nn.Module):
    """Softmax attention; the fused projection's output axis is ordered [query, key, value][head][head width]."""

    def __init__(self, hidden: int, heads: int, dropout: float = 0.0, place: int = 0) -> None:
        super().__init__()
        self.heads, self.head_width = heads, hidden // heads
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.q_norm = RMSNorm(self.head_width)
        self.k_norm = RMSNorm(self.head_width)
        self.proj = nn.Linear(hidden, hidden)
        self.dropout = RowDropout(dropout, place)

    def forward(
        self, x_BNH: Tensor, table: Tensor, mask: Tensor | None = None, causal: bool = False, cache: LayerCache | None = None,
        key_B: Tensor | None = None,
    ) -> Tensor:
        """mask: bool, broadcastable to [B, A, N, N], True where a query (row) may look at a key (column); None for all.

        cache: queries also look at the positions stored there; the mask's columns are then all that it holds. key_B: as in RowDropout."""
        rows, positions, _ = x_BNH.shape
        q, k, v = self.qkv(x_BNH).view(rows, positions, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)
        q, k = rotate(self.q_norm(q), table), rotate(self.k_norm(k), table)
        if cache is not None:
            k, v = cache.extend(k, v)
        out_BAND = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.dropout(self.proj(out_BAND.transpose(1, 2).reshape(rows, positions, -1)), key_B)
