"""Whether the disk can hold what a preparation writes, asked before it starts."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elf.data.packing import Mode, segment_dtype
from elf_platform.data.files import Compression
from elf_platform.data.parts import CorpusPart

_BYTES_PER_TOKEN = 3.0  # of text; English has 4 to 4.5 under a 32k vocabulary and 3 to 3.5 under a 4k one
_EXPANSION: dict[Compression, float] = {"": 1.0, "gzip": 3.5, "zstd": 4.0, "bz2": 4.5, "xz": 5.0}


def text_bytes(part: CorpusPart) -> int:
    """Bytes of text to expect, from the sizes of the files; 0 where they are not known."""
    return int(sum(piece.size * _EXPANSION[piece.compression] for piece in (part, *part.rest)))


def shard_bytes(size_D: NDArray[np.int64], length: int, mode: Mode) -> int:
    """Bytes of the shards that documents of these sizes (bytes of text) will need."""
    token_D = size_D / _BYTES_PER_TOKEN + 1
    rows = np.ceil(token_D / length).sum() if mode == "document" else np.ceil(token_D.sum() / length)
    return int(rows) * (length * (4 + np.dtype(segment_dtype(length)).itemsize) + 8)


def check_disk(folder: Path, *, free: int, text: int, shards: int) -> None:
    """Raises ValueError, with the sum, when ``free`` bytes do not hold ``text`` bytes between the passes and ``shards`` bytes."""
    if text + shards > free:
        raise ValueError(
            f"the disk of {folder} has {_size(free)} free, but the preparation needs about {_size(text + shards)}: {_size(text)} "
            f"for normalised text, which is removed at the end, and {_size(shards)} for shards; free some space, or choose "
            "another place with --storage or ELF_HOME"
        )


def _size(number: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
