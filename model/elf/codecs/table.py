"""A codec without context: each token's clean state is its row of a frozen table (elf.md D.5).

Shapes: B rows, L tokens, C channels, V vocabulary.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor

from elf.batch import Batch
from elf.codecs.base import Codec
from elf.codecs.store import HEADER, SavedCodec
from elf.codecs.t5 import T5Config
from elf.settings import Positive, Seed, Settings

_CHANNELS = 128


@dataclass(frozen=True, kw_only=True)
class TableConfig(Settings):
    """A frozen table of token embeddings."""

    kind: ClassVar[str] = "table"
    prefix: ClassVar[str] = "codec."

    table: Literal["gaussian", "normalised"] = "gaussian"
    """gaussian: every number from a unit normal. normalised: the token embeddings of the encoder in source, each row shifted and
    scaled to mean 0 and standard deviation 1."""
    channels: Positive = _CHANNELS
    """gaussian only: width of the clean states."""
    seed: Seed = 0
    """gaussian only: seed of the numbers."""
    source: str = ""
    """normalised only: folder of a codec, folder of a T5 (config.json and model.safetensors), or hub:NAME."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.table == "gaussian" and self.source:
            raise ValueError("codec.source has no effect with codec.table gaussian; drop it, or set codec.table to normalised")
        if self.table == "normalised" and not self.source:
            raise ValueError(
                "codec.table normalised needs codec.source: the folder of a codec, the folder of a T5, or hub:google-t5/t5-small"
            )
        if self.table == "normalised" and (self.channels, self.seed) != (_CHANNELS, 0):
            raise ValueError(
                f"codec.channels {self.channels} and codec.seed {self.seed} have no effect with codec.table normalised, whose "
                f"width and rows are those of codec.source; leave them at {_CHANNELS} and 0"
            )

    def build(self, *, vocab_size: int) -> "TableCodec":
        """The table, on the CPU: ``vocab_size`` random rows, or as many as ``source`` has (compare with ``check_codec``).

        Raises FileNotFoundError or ValueError when ``source`` cannot be read."""
        if self.table == "normalised":
            return TableCodec(_normalised(_source_table(self.source)))
        generator = torch.Generator().manual_seed(self.seed)
        return TableCodec(torch.randn(vocab_size, self.channels, generator=generator))


class TableCodec(Codec):
    """One row of numbers per token id, whatever stands around it; masks and dropped conditions make no difference."""

    kind = "table"
    max_length = None

    def __init__(self, table_VC: Tensor) -> None:
        self.token_table_VC = table_VC
        self.vocab_size, self.channels = table_VC.shape

    @torch.no_grad()
    def encode(self, batch: Batch, drop_condition_B: Tensor | None = None) -> Tensor:
        return self.token_table_VC[batch.ids_BL]

    def to(self, device: torch.device | str) -> "TableCodec":
        self.token_table_VC = self.token_table_VC.to(device)
        return self

    def _saved(self) -> SavedCodec:
        return SavedCodec(kind=self.kind, settings={}, tensors={"table": self.token_table_VC})

    @staticmethod
    def from_saved(saved: SavedCodec) -> "TableCodec":
        """The codec that was saved, on the CPU."""
        return TableCodec(saved.tensors["table"])


def _source_table(source: str) -> Tensor:
    """Token embeddings, float32 [V, C], of a saved codec or of a T5."""
    from elf.codecs import load_codec

    folder = Path(source).expanduser()
    if not (folder / HEADER).exists():
        return T5Config(source=source).build(vocab_size=0).token_table_VC
    codec = load_codec(folder)
    table_VC = getattr(codec, "token_table_VC", None)
    if table_VC is None:
        raise ValueError(f"codec.source {source} holds a codec of kind {codec.kind}, which has no token table; use one that has")
    return torch.as_tensor(table_VC)


def _normalised(table_VC: Tensor) -> Tensor:
    """Every row shifted to mean 0 and scaled to (population) standard deviation 1; a row of equal numbers becomes 0."""
    table_VC = table_VC.double()
    centred_VC = table_VC - table_VC.mean(1, keepdim=True)
    std_V1 = centred_VC.square().mean(1, keepdim=True).sqrt()
    return (centred_VC / torch.where(std_V1 > 1e-6 * table_VC.abs().amax(1, keepdim=True), std_V1, torch.inf)).float()
