"""Rows of prepared data by number, read through memory maps: no index in memory, no state, any row in constant time."""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from elf.batch import Batch
from elf.data.order import Int64
from elf.data.tokenizer import Tokenizer, load_tokenizer
from elf_platform.data.manifest import Manifest
from elf_platform.data.shards import Block, Split, open_shard


class RowReader:
    """The rows of one split of a prepared folder, numbered in the order of the shards.

    Raises FileNotFoundError or ValueError when the folder is not what its manifest says: sizes and footers are checked when it
    is opened, hashes only by ``inspect_data.verify``.
    """

    def __init__(self, folder: Path, split: Split = "train") -> None:
        self.folder, self.split = folder, split
        self.manifest = Manifest.load(folder)
        self.length = self.manifest.data.length
        self._blocks: list[Block] = []
        for record in self.manifest.shards_of(split):
            self._blocks += open_shard(folder, record, self.length)
        self._ends = np.cumsum([len(block.length_R) for block in self._blocks], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer the rows were made with. Raises ValueError when another one lies in the folder."""
        tokenizer = load_tokenizer(self.folder / "tokenizer.json")
        if tokenizer.fingerprint != self.manifest.tokenizer:
            raise ValueError(
                f"{self.folder / 'tokenizer.json'} is not the tokenizer the data was prepared with: expected fingerprint "
                f"{self.manifest.tokenizer}, found {tokenizer.fingerprint}; delete the file and run jobs/prepare.py again"
            )
        return tokenizer

    @property
    def pad_id(self) -> int:
        return self.tokenizer.pad_id

    def read(self, rows: Int64) -> Batch:
        """The rows with these numbers (int64 [B], each in ``0..len-1``, in any order, repeats allowed) as a batch on the CPU."""
        rows_B = np.asarray(rows, dtype=np.int64)
        assert not len(rows_B) or 0 <= rows_B.min() <= rows_B.max() < len(self), "row number outside the split"
        block_B = np.searchsorted(self._ends, rows_B, side="right")
        ids_BL = np.empty((len(rows_B), self.length), dtype=np.int64)
        segment_BL = np.empty((len(rows_B), self.length), dtype=np.int32)
        length_B = np.empty(len(rows_B), dtype=np.int64)
        cond_length_B = np.empty(len(rows_B), dtype=np.int64)
        for number in np.unique(block_B).tolist():
            block, here = self._blocks[number], np.flatnonzero(block_B == number)
            begin = int(self._ends[number - 1]) if number else 0
            local = rows_B[here] - begin
            ids_BL[here] = block.ids_RL[local]
            segment_BL[here] = block.segment_RL[local]
            length_B[here] = block.length_R[local]
            cond_length_B[here] = block.cond_length_R[local]
        return Batch(
            ids_BL=torch.from_numpy(ids_BL),
            length_B=torch.from_numpy(length_B),
            cond_length_B=torch.from_numpy(cond_length_B),
            segment_BL=torch.from_numpy(segment_BL),
            weight_B=torch.ones(len(rows_B)),
        )
