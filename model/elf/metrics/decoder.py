"""How well a network reads the tokens off clean states: the ceiling of whatever is sampled with it.

Shapes: B rows, L tokens, C channels, V vocabulary.
"""

import torch
from torch import Tensor, nn

from elf.batch import Batch
from elf.nn.denoiser import Denoiser


@torch.no_grad()
def decoder_hits(network: nn.Module, batch: Batch, state_BLC: Tensor, *, guidance: float = 1.0) -> Tensor:
    """float64 [B, 2]: correct and all target tokens of each row, when the decoding pass (t = 1, no self-conditioning) is given the
    codec's own states. ``guidance``: the self-conditioning scale that the pass is fed."""
    assert isinstance(network, Denoiser), "only a network with a decoding pass reads tokens off states"
    rows = len(batch.ids_BL)
    ones_B = torch.ones(rows, device=state_BLC.device)
    _, logits_BLV = network(
        state_BLC, torch.zeros_like(state_BLC), ones_B, ones_B * guidance, ones_B, want_x=False, want_tokens=True
    )
    counted_BL = batch.valid_BL & ~batch.condition_BL & (batch.weight_B > 0)[:, None]
    correct_BL = (logits_BLV.argmax(-1) == batch.ids_BL) & counted_BL
    return torch.stack([correct_BL.sum(1), counted_BL.sum(1)], dim=1).double()
