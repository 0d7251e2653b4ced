"""Packing keeps every token: the account closes, and the documents can be read back from the rows."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elf.data.packing import Mode, Packed, flatten, pack

EOS, PAD = 1, 0
DOCUMENTS = st.lists(st.lists(st.integers(2, 60_000), max_size=40), max_size=25)
MODES = st.sampled_from(["concat", "document", "best_fit"])


def packed(documents: list[list[int]], length: int, mode: Mode) -> Packed:
    return pack(*flatten(documents), length=length, mode=mode, eos_id=EOS, pad_id=PAD)


def rows_of(result: Packed) -> list[list[int]]:
    return [row[:size].tolist() for row, size in zip(result.ids_RL, result.length_R, strict=True)]


def pieces_of(result: Packed) -> list[tuple[int, ...]]:
    """What each segment of each row holds."""
    return [
        tuple(ids[segment == number].tolist())
        for ids, segment in zip(result.ids_RL, result.segment_RL, strict=True)
        for number in range(1, int(segment.max(initial=0)) + 1)
    ]


@given(DOCUMENTS, st.integers(2, 17), MODES)
def test_account_closes_and_padding_is_clean(documents: list[list[int]], length: int, mode: Mode) -> None:
    result = packed(documents, length, mode)
    assert result.ids_RL.shape == result.segment_RL.shape == (len(result.length_R), length)
    assert result.documents == result.eos_added == len(documents)
    assert result.tokens_in == sum(map(len, documents))
    assert result.tokens_in + result.eos_added == result.tokens_in_rows + result.dropped + result.truncated
    assert result.dropped == result.truncated == 0
    padding_RL = np.arange(length) >= result.length_R[:, None]
    assert (result.ids_RL[padding_RL] == PAD).all() and (result.segment_RL[padding_RL] == 0).all()
    assert (result.ids_RL[~padding_RL] != PAD).all() and (result.segment_RL[~padding_RL] > 0).all()
    assert (result.length_R > 0).all() and (result.cond_length_R == 0).all()
    steps = np.diff(result.segment_RL.astype(int), axis=1)[~padding_RL[:, 1:]]
    assert set(steps.tolist()) <= {0, 1} and (result.segment_RL[:, :1] == 1).all(), "segments count up from 1"


@given(DOCUMENTS, st.integers(2, 17), st.sampled_from(["concat", "document"]))
def test_documents_are_read_back_in_order(documents: list[list[int]], length: int, mode: Mode) -> None:
    string = [token for document in documents for token in [*document, EOS]]
    result = packed(documents, length, mode)
    assert [token for row in rows_of(result) for token in row] == string
    if mode == "concat":
        assert (result.length_R[:-1] == length).all()


@given(DOCUMENTS, st.integers(2, 17))
def test_document_mode_puts_one_document_in_a_row(documents: list[list[int]], length: int) -> None:
    result = packed(documents, length, "document")
    assert len(result.length_R) == sum(-(-(len(document) + 1) // length) for document in documents)
    assert result.segment_RL.max(initial=0) <= 1
    assert result.cut == sum(len(document) + 1 > length for document in documents)


@given(DOCUMENTS, st.integers(2, 17))
def test_best_fit_keeps_documents_whole(documents: list[list[int]], length: int) -> None:
    chunks: Counter[tuple[int, ...]] = Counter()
    for document in documents:
        whole = [*document, EOS]
        chunks.update(tuple(whole[i : i + length]) for i in range(0, len(whole), length))
    assert Counter(pieces_of(packed(documents, length, "best_fit"))) == chunks


@given(DOCUMENTS, st.integers(2, 17))
def test_best_fit_leaves_no_two_rows_that_would_fit_in_one(documents: list[list[int]], length: int) -> None:
    room = np.sort(packed(documents, length, "best_fit").length_R)
    assert len(room) < 2 or room[0] + room[1] > length


@given(st.lists(st.integers(1, 12), max_size=30))
def test_best_fit_matches_a_plain_search(sizes: list[int]) -> None:
    """Against the textbook loop: the largest piece first, into the row with the least room that holds it."""
    length, rooms = 12, list[int]()
    for size in sorted(sizes, reverse=True):
        fitting = [i for i, room in enumerate(rooms) if room >= size]
        if fitting:
            rooms[min(fitting, key=lambda i: rooms[i])] -= size
        else:
            rooms.append(length - size)
    result = packed([[9] * (size - 1) for size in sizes], length, "best_fit")
    assert sorted(length - result.length_R) == sorted(rooms)


def test_small_example_by_hand() -> None:
    documents = [[5, 6, 7], [8], [2, 3, 4, 5, 6, 7]]
    concat = packed(documents, 4, "concat")
    assert concat.ids_RL.tolist() == [[5, 6, 7, 1], [8, 1, 2, 3], [4, 5, 6, 7], [1, 0, 0, 0]]
    assert concat.segment_RL.tolist() == [[1, 1, 1, 1], [1, 1, 2, 2], [1, 1, 1, 1], [1, 0, 0, 0]]
    assert concat.cut == 1
    document = packed(documents, 4, "document")
    assert document.ids_RL.tolist() == [[5, 6, 7, 1], [8, 1, 0, 0], [2, 3, 4, 5], [6, 7, 1, 0]]
    best = packed([[5, 6], [8], [2, 3, 4]], 5, "best_fit")
    assert best.ids_RL.tolist() == [[5, 6, 1, 8, 1], [2, 3, 4, 1, 0]]
    assert best.segment_RL.tolist() == [[1, 1, 1, 2, 2], [1, 1, 1, 1, 0]]


def test_no_documents_make_no_rows() -> None:
    assert packed([], 8, "concat").ids_RL.shape == (0, 8)


def test_rows_longer_than_int16_can_number_their_documents() -> None:
    assert packed([[2]], 40_000, "concat").segment_RL.dtype == np.int32


@pytest.mark.parametrize("length", [1, 0, -3])
def test_length_too_small_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r"data\.length is -?\d, but a row must hold at least 2 tokens"):
        packed([[2]], length, "concat")


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="'sliding', but must be one of concat, document, best_fit"):
        packed([[2]], 8, "sliding")  # type: ignore[arg-type]
