"""From the token lists of documents to rows of one length. Numpy only.

Every document is followed by one end-of-text token, and every token of the input ends up in exactly one row: the three modes
differ in how documents share rows, not in what they keep.

Shapes: D documents, N tokens, P pieces (runs of one document inside one row), R rows, L row length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Mode = Literal["concat", "document", "best_fit"]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Rows of packed documents with the account of where the tokens went."""

    ids_RL: Int32  # token ids, pad_id behind the tokens
    length_R: Int32  # tokens before the padding
    cond_length_R: Int32  # leading tokens that are a condition; 0 for plain text
    segment_RL: NDArray[np.signedinteger]  # 1, 2, ... per document in the row, 0 on padding
    documents: int
    tokens_in: int  # tokens of the documents, without the end-of-text tokens
    eos_added: int
    cut: int  # documents that lie in more than one row
    dropped: int = 0  # tokens in no row
    truncated: int = 0  # tokens cut off the end of a document
    sources_cut: int = 0  # pairs (elf.data.pairs): sources and targets that lost their end, and how many tokens they lost
    targets_cut: int = 0
    source_tokens_cut: int = 0
    target_tokens_cut: int = 0

    @property
    def tokens_in_rows(self) -> int:
        return int(self.length_R.sum(dtype=np.int64))

    def __post_init__(self) -> None:
        held = self.tokens_in_rows + self.dropped + self.truncated
        assert self.tokens_in + self.eos_added == held, f"{self.tokens_in} + {self.eos_added} tokens went in, {held} came out"


def segment_dtype(length: int) -> type[np.signedinteger]:
    """The smallest signed type that can number the documents of a row of ``length`` tokens."""
    return np.int16 if length <= np.iinfo(np.int16).max else np.int32


def check_length(length: int) -> None:
    """Raises ValueError when a row of ``length`` tokens cannot hold a document."""
    if length < 2:
        raise ValueError(
            f"data.length is {length}, but a row must hold at least 2 tokens: one of text and the end-of-text token; "
            "set data.length to 2 or more (1024 is usual)"
        )


def flatten(documents: Sequence[Sequence[int]]) -> tuple[Int32, Int64]:
    """All tokens one after the other, int32 [N], and the length of each document, int64 [D]."""
    length_D = np.fromiter(map(len, documents), dtype=np.int64, count=len(documents))
    tokens_N = np.fromiter(chain.from_iterable(documents), dtype=np.int32, count=int(length_D.sum()))
    return tokens_N, length_D


def pack(tokens_N: Int32, length_D: Int64, *, length: int, mode: Mode, eos_id: int, pad_id: int) -> Packed:
    """Pack documents, given as ``flatten`` returns them, into rows of ``length`` tokens.

    concat: the documents with their end-of-text tokens form one string that is cut into full rows; what is left at the end
    makes one padded row. document: a row holds one document; one that is too long is cut into several rows. best_fit: whole
    documents (cut where they are longer than a row) are placed by best-fit decreasing, the largest first, each into the fullest
    row that still holds it (Johnson 1974; for language models Ding et al. 2024, arXiv 2404.10830).

    Raises ValueError when ``length`` is below 2 or the mode is unknown.
    """
    check_length(length)
    assert int(length_D.sum()) == len(tokens_N), "document lengths do not sum to the number of tokens"
    with_eos_N = np.insert(tokens_N, np.cumsum(length_D), np.int32(eos_id))
    size_D = length_D + 1
    if mode == "concat":
        start_P, size_P, row_P = _concat_pieces(size_D, length)
        last_D = np.cumsum(size_D) - 1
        cut = int(((last_D - size_D + 1) // length != last_D // length).sum())
    elif mode in ("document", "best_fit"):
        start_P, size_P = _chunk(size_D, length)
        row_P = np.arange(len(size_P), dtype=np.int64) if mode == "document" else _best_fit(size_P, length)
        cut = int((size_D > length).sum())
    else:
        raise ValueError(f"data.packing is {mode!r}, but must be one of {', '.join(get_args(Mode))}")

    order = np.argsort(row_P, kind="stable")
    start_P, size_P, row_P = start_P[order], size_P[order], row_P[order]
    rows = int(row_P[-1]) + 1 if len(row_P) else 0
    length_R = np.bincount(row_P, weights=size_P, minlength=rows).astype(np.int32)
    first_of_row_R = np.searchsorted(row_P, np.arange(rows))
    number_P = np.arange(len(row_P)) - first_of_row_R[row_P] + 1
    if mode == "best_fit" and len(start_P):
        stop_P = start_P + size_P
        with_eos_N = np.concatenate([with_eos_N[a:b] for a, b in zip(start_P.tolist(), stop_P.tolist(), strict=True)])

    token_RL = np.arange(length) < length_R[:, None]
    ids_RL = np.full((rows, length), pad_id, dtype=np.int32)
    segment_RL = np.zeros((rows, length), dtype=segment_dtype(length))
    ids_RL[token_RL] = with_eos_N
    segment_RL[token_RL] = np.repeat(number_P.astype(segment_RL.dtype), size_P)
    return Packed(
        ids_RL=ids_RL,
        length_R=length_R,
        cond_length_R=np.zeros(rows, dtype=np.int32),
        segment_RL=segment_RL,
        documents=len(length_D),
        tokens_in=len(tokens_N),
        eos_added=len(length_D),
        cut=cut,
    )


def _concat_pieces(size_D: Int64, length: int) -> tuple[Int64, Int64, Int64]:
    """Start, size and row of each piece when the string of all documents is cut at every multiple of ``length``."""
    total = int(size_D.sum())
    border = np.union1d(np.cumsum(size_D), np.arange(0, total, length, dtype=np.int64))
    start_P = border[:-1]
    return start_P, np.diff(border), start_P // length


def _chunk(size_D: Int64, length: int) -> tuple[Int64, Int64]:
    """Start and size of each piece when every document is cut into pieces of ``length`` and a rest."""
    pieces_D = -(-size_D // length)
    document_P = np.repeat(np.arange(len(size_D)), pieces_D)
    nth_P = np.arange(len(document_P)) - (np.cumsum(pieces_D) - pieces_D)[document_P]
    start_D = np.cumsum(size_D) - size_D
    return start_D[document_P] + nth_P * length, np.minimum(size_D[document_P] - nth_P * length, length)


def _best_fit(size_P: Int64, length: int) -> Int64:
    """Row of each piece under best-fit decreasing; rows are numbered by their first piece, to keep the order of the text."""
    sizes = size_P.tolist()
    row_P = np.zeros(len(sizes), dtype=np.int64)
    with_room: list[list[int]] = [[] for _ in range(length)]  # rows by the room they have left
    rooms = 0  # bit r is set while a row with room r exists, so that the fullest fitting row is found without a search
    rows = 0
    for piece in np.argsort(-size_P, kind="stable").tolist():
        fitting = rooms >> sizes[piece]
        if fitting:
            room = sizes[piece] + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            row, room, rows = rows, length, rows + 1
        row_P[piece] = row
        left = room - sizes[piece]
        if left:
            with_room[left].append(row)
            rooms |= 1 << left
    first_R = np.full(rows, len(sizes), dtype=np.int64)
    np.minimum.at(first_R, row_P, np.arange(len(sizes)))
    rank_R = np.empty(rows, dtype=np.int64)
    rank_R[np.argsort(first_R)] = np.arange(rows)
    return rank_R[row_P]
