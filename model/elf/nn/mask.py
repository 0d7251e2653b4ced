"""Which tokens an encoder's query may look at (elf.md A.1, A.6).

Shapes: B rows, L tokens. The transformers library is never given a 2-D or 3-D mask: it expands the latter wrongly.
"""

import torch
from torch import Tensor

from elf.batch import Batch


def encoder_mask(batch: Batch, drop_condition_B: Tensor | None = None) -> Tensor | None:
    """bool, broadcastable to [B, 1, L, L], True where a query (row) may look at a key (column); None when all see all.

    Condition queries see condition keys only, all other queries see every token; where ``drop_condition_B`` is True, other
    queries do not see the condition. Padding keys are never seen, except by a query that would see nothing (in an empty row, or
    padding behind a dropped condition without a target): that query sees everything, so that its meaningless state is finite.
    """
    valid_BL, condition_BL = batch.valid_BL, batch.condition_BL & batch.valid_BL
    if not bool(condition_BL.any()):
        return None if bool(valid_BL.all()) else _never_blind(valid_BL[:, None, None, :])
    others_BL = valid_BL if drop_condition_B is None else valid_BL & ~(condition_BL & drop_condition_B[:, None])
    mask_BLL = torch.where(condition_BL[:, :, None], condition_BL[:, None, :], others_BL[:, None, :])
    return _never_blind(mask_BLL[:, None])


def _never_blind(mask: Tensor) -> Tensor:
    return mask | ~mask.any(dim=-1, keepdim=True)
