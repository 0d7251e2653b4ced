"""Rows of token ids as the processes and codecs see them. B rows, L tokens."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B packed rows of length L: [condition tokens][target tokens][padding]."""

    ids_BL: Tensor  # int64 token ids, padding included
    length_B: Tensor  # int64, tokens before the padding, condition included
    cond_length_B: Tensor  # int64, leading tokens that are the condition (0 for unconditional text)
    segment_BL: Tensor  # int32, 1, 2, ... per document in the row, 0 on padding
    weight_B: Tensor  # float32, 1 for a real row, 0 for a filler row that only keeps shapes and module calls equal

    @property
    def positions_L(self) -> Tensor:
        return torch.arange(self.ids_BL.shape[1], device=self.ids_BL.device)

    @property
    def valid_BL(self) -> Tensor:
        """bool, True on tokens, False on padding."""
        return self.positions_L < self.length_B[:, None]

    @property
    def condition_BL(self) -> Tensor:
        """bool, True on condition tokens."""
        return self.positions_L < self.cond_length_B[:, None]

    def to(self, device: torch.device | str) -> "Batch":
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__}
        return replace(self, **moved)

    @staticmethod
    def of_ids(ids_BL: Tensor, length_B: Tensor | None = None, cond_length_B: Tensor | None = None) -> "Batch":
        """A batch of plain rows; without lengths every position is a token."""
        rows, length = ids_BL.shape
        full = torch.full((rows,), length, dtype=torch.int64, device=ids_BL.device)
        length_B = full if length_B is None else length_B
        position = torch.arange(length, device=ids_BL.device)
        return Batch(
            ids_BL=ids_BL,
            length_B=length_B,
            cond_length_B=torch.zeros_like(full) if cond_length_B is None else cond_length_B,
            segment_BL=(position < length_B[:, None]).to(torch.int32),
            weight_B=torch.ones(rows, device=ids_BL.device),
        )
