"""What a sampler hands back."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What a sampler made for B rows of L tokens; of target_length tokens with a condition, which is dropped."""

    ids_BL: Tensor  # int64
    nfe: int  # network forward evaluations per row, the decoding pass included
    trajectory: list[tuple[float, Tensor]] = field(default_factory=list)  # (t, ids_BL) of the estimates that were recorded
