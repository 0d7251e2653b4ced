"""Sizes of the one trunk that every process shares."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from elf.settings import Bounds, Decay, Positive, Settings

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Settings):
    """The transformer trunk (elf.md A.7); the presets B, M and L of the ELF paper are in the recipes."""

    prefix: ClassVar[str] = "network."

    hidden: Positive = 768
    """Width of the residual stream."""
    depth: Annotated[int, Bounds(least=1, most=10_000)] = 12
    """Number of transformer blocks."""
    heads: Positive = 12
    """Attention heads; hidden must be a multiple of it and the head width even (rotary embedding turns pairs)."""
    bottleneck: Positive = 128
    """Width between the latent channels and the trunk on the input side (ELF's text_proj)."""
    prefix_tokens: Positive = 4
    """Learned tokens for each of time, guidance scale and mode that stand before the text (ELF uses 4 of each)."""
    dropout: Decay = 0.0
    """Probability of dropping activations after the projections of the middle half of the blocks; the paper trains with 0."""
    rope_theta: Annotated[float, Bounds(least=1, most=1e12)] = 10_000.0
    """Base of the rotary position frequencies."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden % self.heads or (self.hidden // self.heads) % 2:
            raise ValueError(
                f"network.hidden {self.hidden} over network.heads {self.heads} gives head width {self.hidden / self.heads:g}, "
                f"but rotary embedding needs an even whole number; choose hidden as a multiple of {2 * self.heads}"
            )
