"""Keys and values of positions that were seen, so that a causal model continues a row without reading it again.

Shapes: B rows, A heads, N new positions, K positions read, D head width. A slot is a position of the row.
"""

import torch
from torch import Tensor


class Slots:
    """Where the new positions of a call stand, and how many positions their queries may be given."""

    def __init__(self) -> None:
        self.first: int | Tensor = 0  # new positions stand at first, first + 1, ... in every row; int64 [B]: one position per row
        self.keys = 0  # positions 0 .. keys - 1 are read


class LayerCache:
    """Keys and values of one attention layer, allocated for whole rows at the first call."""

    def __init__(self, length: int, slots: Slots) -> None:
        self.length, self.slots = length, slots
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def extend(self, k_BAND: Tensor, v_BAND: Tensor) -> tuple[Tensor, Tensor]:
        """Stores the new keys and values; all that are read, [B, A, K, D] each."""
        if self._keys is None or self._values is None:
            rows, heads, _, width = k_BAND.shape
            self._keys, self._values = (k_BAND.new_zeros(rows, heads, self.length, width) for _ in range(2))
        first = self.slots.first
        for stored_BALD, new_BAND in ((self._keys, k_BAND), (self._values, v_BAND)):
            if isinstance(first, int):
                stored_BALD[:, :, first : first + new_BAND.shape[2]] = new_BAND
            else:
                stored_BALD[torch.arange(len(first), device=first.device), :, first] = new_BAND[:, :, 0]
        return self._keys[:, :, : self.slots.keys], self._values[:, :, : self.slots.keys]


class KeyValueCache:
    """The caches of all layers of a trunk, which share their slots."""

    def __init__(self, depth: int, length: int) -> None:
        self.slots = Slots()
        self.layers = [LayerCache(length, self.slots) for _ in range(depth)]
