"""From pairs of source and target to rows [source][target][end of text ...]. Numpy only.

The source is not padded: the target begins right behind it, and the rest of the row is filled with end-of-text tokens (elf.md A.1,
C.1). A row's length counts the first of them, as in every other row; the others are padding, which processes learn with
``loss_on_padding`` (A.2) and which no encoder's query looks at.

Shapes: R rows, one for each pair, L row length, S most tokens of a source.
"""

from collections.abc import Sequence

import numpy as np

from elf.data.packing import Int32, Int64, Packed, check_length, flatten, segment_dtype


def check_source_length(source_length: int, length: int) -> None:
    """Raises ValueError when a row of ``length`` tokens cannot hold that much source, a token of the target and an end-of-text token."""
    check_length(length)
    if not 1 <= source_length <= length - 2:
        raise ValueError(
            f"data.source_length is {source_length}, but must be at least 1 and leave room for a token of the target and the end-of-text "
            f"token in data.length {length}: use 1 to {length - 2}, half of the row for translation"
        )


def pack_pairs(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], *, length: int, source_length: int, eos_id: int
) -> Packed:
    """A row for each pair: the first S tokens of the source, the first L - S - 1 of the target, end-of-text tokens.

    A target is cut as if its source were a longest one, because that is all that a sampler generates. What is cut is counted.
    Raises ValueError when S tokens of source leave no room for a target."""
    check_source_length(source_length, length)
    source_N, source_R = _cut(sources, source_length)
    target_N, target_R = _cut(targets, length - source_length - 1)
    rows, cond_R = len(source_R), np.minimum(source_R, source_length)
    kept_R = np.minimum(target_R, length - source_length - 1)
    position_L = np.arange(length)
    is_source_RL = position_L < cond_R[:, None]
    is_target_RL = (position_L >= cond_R[:, None]) & (position_L < (cond_R + kept_R)[:, None])
    ids_RL = np.full((rows, length), eos_id, dtype=np.int32)
    ids_RL[is_source_RL], ids_RL[is_target_RL] = source_N, target_N
    length_R = (cond_R + kept_R + 1).astype(np.int32)
    cut = {"source_tokens_cut": int((source_R - cond_R).sum()), "target_tokens_cut": int((target_R - kept_R).sum())}
    return Packed(
        ids_RL=ids_RL,
        length_R=length_R,
        cond_length_R=cond_R.astype(np.int32),
        segment_RL=(position_L < length_R[:, None]).astype(segment_dtype(length)),
        documents=rows,
        tokens_in=int(source_R.sum() + target_R.sum()),
        eos_added=rows,
        cut=0,
        truncated=sum(cut.values()),
        sources_cut=int((source_R > cond_R).sum()),
        targets_cut=int((target_R > kept_R).sum()),
        **cut,
    )


def _cut(documents: Sequence[Sequence[int]], limit: int) -> tuple[Int32, Int64]:
    """The first ``limit`` tokens of all documents one after the other, and the whole length of each."""
    tokens_N, _ = flatten([document[:limit] for document in documents])
    return tokens_N, np.fromiter(map(len, documents), dtype=np.int64, count=len(documents))
