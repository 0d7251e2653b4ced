"""What a codec is: a frozen map from rows of tokens to clean states x0. One codec is one file plus one line in ``__init__``."""

import abc
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from elf.batch import Batch
from elf.codecs.store import SavedCodec, digest_of, write_codec


class Codec(abc.ABC):
    """A frozen encoder of token rows, ready to use on one device. Not part of the trained module."""

    kind: ClassVar[str]
    channels: int  # C
    vocab_size: int  # V, ids it accepts are 0..V-1
    max_length: int | None  # longest row it can encode, None for any

    @abc.abstractmethod
    def encode(self, batch: Batch, drop_condition_B: Tensor | None = None) -> Tensor:
        """Normalised clean states, float32 [B, L, C], without a graph.

        Condition rows of the attention mask see condition columns only, all others see every token; where ``drop_condition_B``
        is True, target positions do not see the condition (elf.md A.1, A.6)."""

    @abc.abstractmethod
    def to(self, device: torch.device | str) -> "Codec":
        """The same codec with its tensors on ``device``."""

    @abc.abstractmethod
    def _saved(self) -> SavedCodec:
        """Settings and tensors from which ``from_saved`` builds the codec again."""

    def save(self, folder: Path) -> None:
        """Write codec.json and codec.safetensors into ``folder`` (created; no pickle), such that ``load_codec`` reads it back."""
        write_codec(folder, self._saved())

    @property
    def fingerprint(self) -> str:
        """SHA-256 over settings and weights."""
        return digest_of(self._saved())
