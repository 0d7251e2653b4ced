"""Dropout whose mask is a pure function of its row and place, so that it is one more of the draws (``elf.draws``): no rank, world size,
micro-batch, device, recomputed forward or resume changes it.

Shapes: B rows, N positions, H width.
"""

import torch
from torch import Tensor, nn

_GOLDEN = 0x9E3779B9  # odd: multiplying by it is a bijection of 32-bit words


class RowDropout(nn.Module):
    """Drops elements with probability p in training and scales the others by 1 / (1 - p), as ``torch.nn.Dropout`` does.

    ``place`` tells apart the places of a network that are given the same row's key."""

    def __init__(self, p: float, place: int) -> None:
        super().__init__()
        self.p, self.place = p, place

    def forward(self, x_BNH: Tensor, key_B: Tensor | None) -> Tensor:
        """key_B: int32, of ``Draws.keys``; it is needed where something is dropped."""
        if not self.training or not self.p:
            return x_BNH
        if key_B is None:
            raise ValueError("a network with dropout was run in training mode without its rows' keys; pass key_B, or call eval() first")
        return torch.where(keep_mask(key_B, self.place, x_BNH.shape[1:], self.p), x_BNH * (1 / (1 - self.p)), 0.0)

    def extra_repr(self) -> str:
        return f"p={self.p}, place={self.place}"


def keep_mask(key_B: Tensor, place: int, shape: torch.Size | tuple[int, ...], p: float) -> Tensor:
    """bool [B, *shape], True with probability 1 - p."""
    key_B = _mixed(key_B ^ _signed(place * _GOLDEN))
    size = int(torch.Size(shape).numel())
    # Every element's own word first, mixed again with the row's key: rows do not share a sequence at an offset.
    word_E = _mixed(torch.arange(1, size + 1, device=key_B.device, dtype=torch.int32) * _signed(_GOLDEN))
    word_BE = _mixed(word_E ^ key_B[:, None])
    return (word_BE >= round(p * 2**32) - 2**31).view(len(key_B), *shape)


def _signed(word: int) -> int:
    word %= 1 << 32
    return word - (1 << 32) if word >> 31 else word


def _mixed(word: Tensor) -> Tensor:
    """A bijection of int32 in which every bit depends on every bit (Wellons 2018, lowbias32)."""
    word = (word ^ _shifted(word, 16)) * _signed(0x7FEB352D)
    word = (word ^ _shifted(word, 15)) * _signed(0x846CA68B)
    return word ^ _shifted(word, 16)


def _shifted(word: Tensor, by: int) -> Tensor:
    """To the right with zeros coming in; torch copies the sign."""
    return (word >> by) & ((1 << (32 - by)) - 1)
