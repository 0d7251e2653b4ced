"""Refusals of a codec that does not fit the data, before any time is spent."""

from elf.codecs.base import Codec


def check_codec(codec: Codec, *, vocab_size: int, length: int) -> None:
    """Raises ValueError when ``codec`` cannot encode rows of ``length`` ids in 0..vocab_size-1, or was plainly made for another
    vocabulary."""
    # Token tables are padded by a few rows for speed (t5-small: 32128 rows, 32100 ids); one used by less than half is another's.
    if vocab_size > codec.vocab_size or 2 * vocab_size < codec.vocab_size:
        raise ValueError(
            f"the tokenizer has {vocab_size} ids, but the {codec.kind} codec was made for a vocabulary of {codec.vocab_size}, "
            "so its states would mean nothing. Use the tokenizer that belongs to the codec (data.tokenizer.source), or the own "
            "codec, which is trained with this tokenizer"
        )
    if codec.max_length is not None and length > codec.max_length:
        raise ValueError(
            f"data.length is {length}, but the {codec.kind} codec was trained on rows of {codec.max_length} tokens and cannot "
            f"encode longer ones; set data.length to {codec.max_length} or less, or train the codec with data.length {length}"
        )
