"""The last step of every sampler: tokens after the end of the text are cleared. B rows, L tokens."""

import torch
from torch import Tensor


def mask_after_eos(ids_BL: Tensor, eos_id: int | None, pad_id: int) -> Tensor:
    """ids at and after each row's first ``eos_id`` become ``pad_id``; unchanged when ``eos_id`` is None (elf.md C.1)."""
    if eos_id is None:
        return ids_BL
    ended_BL = torch.cumsum(ids_BL == eos_id, dim=1) > 0
    return ids_BL.masked_fill(ended_BL, pad_id)
