"""Tokens that are given to a sampler: the source of a conditional model, or a prefix. B rows, L tokens, C channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elf.batch import Batch

if TYPE_CHECKING:
    from elf.codecs.base import Codec


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Tokens that are given at the head of each row: the source of a conditional model, or a prefix."""

    ids_BL: Tensor  # int64 [B, L], given tokens, then pad
    length_B: Tensor  # int64, how many are given
    state_BLC: Tensor | None  # clean states of the given tokens (encoded alone), zeros elsewhere; None for token processes
    target_length: int  # tokens generated per row at most (L - source_length for conditional models)

    @property
    def given_BL(self) -> Tensor:
        """bool, True on given tokens."""
        return torch.arange(self.ids_BL.shape[1], device=self.ids_BL.device) < self.length_B[:, None]

    def generated(self, ids_BL: Tensor, pad_id: int) -> Tensor:
        """[B, target_length]: the tokens behind the given ones, moved to the head of the row; ``pad_id`` behind the row's end."""
        length = ids_BL.shape[1]
        place_BT = self.length_B[:, None] + torch.arange(self.target_length, device=ids_BL.device)
        return ids_BL.gather(1, place_BT.clamp_max(length - 1)).masked_fill(place_BT >= length, pad_id)


def encode_condition(
    tokens: Sequence[Sequence[int]], *, length: int, target_length: int, pad_id: int, codec: "Codec | None",
    device: torch.device | str,
) -> Condition:
    """The condition of rows of ``length`` tokens that start with ``tokens`` (one list per row, possibly empty).

    codec: encodes the given tokens, which see each other alone (elf.md A.1); None for a process that works on ids.
    Raises ValueError for a row that leaves no room for a target."""
    if not 1 <= target_length <= length:
        raise ValueError(f"target_length is {target_length}, but a row of {length} tokens needs one between 1 and {length}")
    ids_BL = torch.full((len(tokens), length), pad_id, dtype=torch.int64)
    for row, given in enumerate(tokens):
        if len(given) > length - 1:
            raise ValueError(
                f"row {row} is given {len(given)} tokens, but rows have {length} and at least one is to be generated; "
                f"cut it to {length - 1} tokens or fewer"
            )
        ids_BL[row, : len(given)] = torch.as_tensor(list(given), dtype=torch.int64)
    ids_BL = ids_BL.to(device)
    length_B = torch.tensor([len(given) for given in tokens], dtype=torch.int64, device=device)
    state_BLC = None
    if codec is not None:
        batch = Batch.of_ids(ids_BL, length_B, length_B)
        state_BLC = codec.encode(batch).masked_fill(~batch.condition_BL[..., None], 0.0)
    return Condition(ids_BL=ids_BL, length_B=length_B, state_BLC=state_BLC, target_length=target_length)
