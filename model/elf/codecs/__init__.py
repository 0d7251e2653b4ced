"""The codecs, by the name that configs and artefacts use. Adding one is one file here and one line in CODECS and in _CLASSES."""

from pathlib import Path

from elf.codecs.base import Codec
from elf.codecs.check import check_codec
from elf.codecs.own import OwnCodec, OwnConfig
from elf.codecs.store import read_codec
from elf.codecs.t5 import T5Codec, T5Config
from elf.codecs.table import TableCodec, TableConfig

CodecConfig = T5Config | OwnConfig | TableConfig
CODECS: dict[str, type] = {config.kind: config for config in (T5Config, OwnConfig, TableConfig)}
_CLASSES: dict[str, type[T5Codec] | type[OwnCodec] | type[TableCodec]] = {c.kind: c for c in (T5Codec, OwnCodec, TableCodec)}


def load_codec(folder: Path) -> Codec:
    """The codec that ``Codec.save`` wrote into ``folder``, on the CPU; needs no network.

    Raises FileNotFoundError when it is not there, ValueError when it was altered, damaged, or is of an unknown kind or format."""
    saved = read_codec(folder)
    if saved.kind not in _CLASSES:
        raise ValueError(
            f"{folder} holds a codec of kind {saved.kind!r}, but this version knows {', '.join(sorted(_CLASSES))}; "
            "load it with the version that wrote it"
        )
    return _CLASSES[saved.kind].from_saved(saved)


__all__ = [
    "CODECS",
    "Codec",
    "CodecConfig",
    "OwnCodec",
    "OwnConfig",
    "T5Codec",
    "T5Config",
    "TableCodec",
    "TableConfig",
    "check_codec",
    "load_codec",
]
