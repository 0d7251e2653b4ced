"""Every random number of training and sampling, as a pure function of (seed, stream name, step, global row index).

No rank, world size or micro-batch enters, so 1, 2 and 8 workers see the same rows, the same noise and the same branches, and a
resumed run sees what the uninterrupted run saw. Per-row choices are stratified over the global batch, which lowers the variance
of the loss and gives every micro-batch about its share of each branch.

Noise comes from a torch generator on the target device, so a CPU and a GPU draw different (equally good) noise for one seed.

Shapes: B rows held here, G rows in the global batch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from elf.data.order import Int64, Permutation, derive_key, mix64


@dataclass(frozen=True, kw_only=True)
class Strata:
    """Where each row stands in the population over which a choice is stratified."""

    place_B: Int64
    total: int


@dataclass(frozen=True, kw_only=True)
class Coin:
    """Outcome of a stratified coin: who has it on, and each row's place among the rows of either outcome.

    ``on`` and ``off`` hold meaningful places only for the rows of that outcome; the other rows carry a harmless in-range value.
    """

    on_B: NDArray[np.bool_]
    on: Strata
    off: Strata


class Draws:
    """Random numbers for ``rows`` (global row indices, int64 [B]) of one step of a global batch of ``total`` rows."""

    def __init__(self, *, seed: int, step: int, rows: Int64, total: int, device: torch.device | str = "cpu") -> None:
        self.seed, self.step, self.device = seed, step, torch.device(device)
        self.rows = np.asarray(rows, dtype=np.int64)
        self.strata = Strata(place_B=self.rows, total=total)

    def _row_keys(self, stream: str) -> NDArray[np.uint64]:
        base = np.uint64(derive_key(self.seed, stream, self.step))
        return mix64(base ^ mix64(self.rows.astype(np.uint64)))

    def normal(self, stream: str, *shape: int) -> torch.Tensor:
        """Unit normal noise, float32 [B, *shape]; row b depends on its global index alone."""
        out = torch.empty((len(self.rows), *shape), device=self.device)
        generator = torch.Generator(device=self.device)
        for b, key in enumerate(self._row_keys(stream)):
            generator.manual_seed(int(key >> np.uint64(1)))  # torch wants a seed that fits a signed 64-bit integer
            torch.randn(shape, generator=generator, device=self.device, out=out[b])
        return out

    def uniform(self, stream: str, *shape: int) -> torch.Tensor:
        """Independent uniform numbers in [0, 1), float32 [B, *shape]."""
        out = torch.empty((len(self.rows), *shape), device=self.device)
        generator = torch.Generator(device=self.device)
        for b, key in enumerate(self._row_keys(stream)):
            generator.manual_seed(int(key >> np.uint64(1)))
            torch.rand(shape, generator=generator, device=self.device, out=out[b])
        return out

    def quantile(self, stream: str, strata: Strata | None = None) -> torch.Tensor:
        """Stratified uniform numbers, float64 [B] in (0, 1): row i of n gets (perm(i) + u_i) / n, perm new at every step."""
        strata = strata or self.strata
        if strata.total < 1:
            return torch.full((len(self.rows),), 0.5, dtype=torch.float64, device=self.device)
        key = derive_key(self.seed, stream, self.step, "strata")
        cell = Permutation(strata.total, key)(strata.place_B).astype(np.float64)
        # 53 random bits plus a half: never exactly 0 or 1, where a normal quantile would be infinite.
        jitter = ((self._row_keys(stream) >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
        return torch.from_numpy((cell + jitter) / strata.total).to(self.device)

    def coin(self, stream: str, probability: float, strata: Strata | None = None) -> Coin:
        """A coin that comes up on n * probability rows of n, spread evenly: on where floor(i * p + v) steps, v uniform per step.

        The common offset v makes each row's marginal probability exactly p.
        """
        strata = strata or self.strata
        offset = derive_key(self.seed, stream, self.step, "offset") / 2.0**64
        before = np.floor(strata.place_B * probability + offset).astype(np.int64)
        after = np.floor((strata.place_B + 1) * probability + offset).astype(np.int64)
        n_on = int(np.floor(strata.total * probability + offset))
        n_off = strata.total - n_on
        return Coin(
            on_B=after > before,
            on=Strata(place_B=np.clip(before, 0, max(n_on - 1, 0)), total=n_on),
            off=Strata(place_B=np.clip(strata.place_B - before, 0, max(n_off - 1, 0)), total=n_off),
        )

    def keys(self, stream: str) -> torch.Tensor:
        """int32 [B]: a word of each row, for what makes its own random numbers from it (``elf.nn.dropout``)."""
        words = (self._row_keys(stream) >> np.uint64(32)).astype(np.uint32).view(np.int32)
        return torch.from_numpy(words).to(self.device)

    def tensor(self, values: NDArray[np.bool_]) -> torch.Tensor:
        """A numpy per-row array on this device."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)
