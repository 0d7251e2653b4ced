"""ELF's network: noisy latents in, clean latents or token logits out, with shared weights (elf.md A.7).

Parameters are stored as the official ones, but for the two matrices of the token head, which are (out, in) here.

Shapes: B rows, L tokens, C latent channels, H width, P prefix tokens of each kind, N = 3P + L, V vocabulary.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elf.nn.attention import RMSNorm, rotary_table
from elf.nn.config import NetworkConfig, Precision
from elf.nn.trunk import Trunk, xavier

SINUSOID_WIDTH = 256


def sinusoid(value_B: Tensor) -> Tensor:
    """float32 [B, 256]: cosines then sines of the raw value at frequencies 1 down to 1e-4 (no factor of 1000, unlike DDPM)."""
    half = SINUSOID_WIDTH // 2
    frequency = torch.exp(torch.arange(half, device=value_B.device, dtype=torch.float32) * (-math.log(10_000.0) / half))
    angle = value_B.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class XHead(nn.Module):
    """Estimate of the clean latents: norm, then a linear map that starts at zero."""

    def __init__(self, hidden: int, channels: int) -> None:
        super().__init__()
        self.norm = RMSNorm(hidden)
        self.linear = nn.Linear(hidden, channels)

    def forward(self, h_BLH: Tensor) -> Tensor:
        """[B, L, H] -> [B, L, C]."""
        return self.linear(self.norm(h_BLH))


class TokenHead(nn.Module):
    """Token logits from the trunk's output: a bottleneck of the latent width, then the unembedding."""

    def __init__(self, hidden: int, channels: int, vocab_size: int) -> None:
        super().__init__()
        self.proj = nn.Linear(hidden, channels)
        self.unembed = nn.Linear(channels, vocab_size)

    def forward(self, h_BLH: Tensor) -> Tensor:
        """[B, L, H] -> [B, L, V]."""
        return self.unembed(F.gelu(self.proj(h_BLH), approximate="tanh"))


class Denoiser(nn.Module):
    """The shared-weight network of ELF; the sequence is [time tokens][guidance tokens][mode tokens][text]."""

    def __init__(
        self, config: NetworkConfig, *, channels: int, vocab_size: int, length: int, precision: Precision = "fp32",
        activation_checkpointing: bool = False, tokens_from: Literal["trunk", "estimate"] = "trunk",
    ) -> None:
        """tokens_from: the token head reads the trunk's output (official code) or, through one matrix, the estimate (paper's text)."""
        super().__init__()
        hidden, prefix = config.hidden, config.prefix_tokens
        self.config, self.channels, self.vocab_size, self.length = config, channels, vocab_size, length
        self.self_cond_proj = nn.Linear(2 * channels, channels)
        self.text_proj = nn.Sequential(nn.Linear(channels, config.bottleneck, bias=False), nn.Linear(config.bottleneck, hidden))
        self.time_tokens = nn.Parameter(torch.empty(1, prefix, hidden))
        self.scale_tokens = nn.Parameter(torch.empty(1, prefix, hidden))
        self.mode_tokens = nn.Parameter(torch.empty(1, prefix, hidden))
        self.time_embed = nn.Sequential(nn.Linear(SINUSOID_WIDTH, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.scale_embed = nn.Sequential(nn.Linear(SINUSOID_WIDTH, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.trunk = Trunk(config, precision=precision, activation_checkpointing=activation_checkpointing)
        self.x_head = XHead(hidden, channels)
        self.tokens_from = tokens_from
        self.token_head = TokenHead(hidden, channels, vocab_size) if tokens_from == "trunk" else nn.Linear(channels, vocab_size)
        self.rotary: Tensor
        self.register_buffer(
            "rotary", rotary_table(3 * prefix, length, hidden // config.heads, config.rope_theta), persistent=False
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Official initialisation (elf.md A.7): Xavier, embedders and prefix tokens N(0, 0.02), output head zero."""
        self.apply(xavier)
        for layer in (*self.time_embed, *self.scale_embed):
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
        for tokens in (self.time_tokens, self.scale_tokens, self.mode_tokens):
            nn.init.normal_(tokens, std=0.02)
        nn.init.zeros_(self.x_head.linear.weight)

    def forward(
        self, z_BLC: Tensor, self_cond_BLC: Tensor, t_B: Tensor, scale_B: Tensor, decode_B: Tensor,
        x_rows: Tensor | None = None, token_rows: Tensor | None = None, *, want_x: bool = True, want_tokens: bool = False,
        key_B: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Estimates (x_hat [Bx, L, C], logits [Bt, L, V]), each None when not wanted.

        decode_B: gate of the mode tokens per row, 1 decodes and 0 denoises. x_rows, token_rows: int64 indices of the rows that go
        through either head (all rows when None): the token head is a large share of a step and is needed for few rows.
        key_B: of dropout, as in RowDropout.
        """
        if z_BLC.shape[1] != self.length:
            raise ValueError(f"the network was built for rows of {self.length} tokens, but got {z_BLC.shape[1]}")
        text_BLH = self.text_proj(self.self_cond_proj(torch.cat([z_BLC, self_cond_BLC], dim=-1)))
        prefix = [
            self.time_tokens + self.time_embed(sinusoid(t_B))[:, None],
            self.scale_tokens + self.scale_embed(sinusoid(scale_B))[:, None],
            self.mode_tokens * decode_B.to(text_BLH.dtype)[:, None, None],
        ]
        h_BNH = self.trunk(torch.cat([*prefix, text_BLH], dim=1), self.rotary, key_B=key_B)
        h_BLH = h_BNH[:, 3 * self.config.prefix_tokens :]
        x_hat = self.x_head(h_BLH if x_rows is None else h_BLH[x_rows]) if want_x else None
        if not want_tokens:
            return x_hat, None
        read_BLH = h_BLH if token_rows is None else h_BLH[token_rows]
        return x_hat, self.token_head(read_BLH if self.tokens_from == "trunk" else self.x_head(read_BLH))
