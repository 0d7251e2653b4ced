"""Rows of pairs against a plain loop, and the account of what was cut."""

import numpy as np
import pytest

from elf.data.pairs import pack_pairs

EOS = 1


@pytest.mark.parametrize("seed", range(40))
def test_rows_are_those_of_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sides = rng.integers(1, 13, (rng.integers(0, 9), 2))
    pairs = [tuple(rng.integers(2, 10, size).tolist() for size in row) for row in sides]
    source_length, room = int(rng.integers(1, 9)), int(rng.integers(2, 9))
    length = source_length + room
    packed = pack_pairs([s for s, _ in pairs], [t for _, t in pairs], length=length, source_length=source_length, eos_id=EOS)
    assert packed.ids_RL.shape == packed.segment_RL.shape == (len(pairs), length) and packed.documents == len(pairs)
    lost = {"sources_cut": 0, "targets_cut": 0, "source_tokens_cut": 0, "target_tokens_cut": 0}
    for row, (source, target) in enumerate(pairs):
        head, tail = source[:source_length], target[: room - 1]
        text = [*head, *tail, EOS]
        assert packed.ids_RL[row].tolist() == text + [EOS] * (length - len(text))
        assert (packed.length_R[row], packed.cond_length_R[row]) == (len(text), len(head))
        assert packed.segment_RL[row].tolist() == [1] * len(text) + [0] * (length - len(text))
        lost["sources_cut"] += source != head
        lost["targets_cut"] += target != tail
        lost["source_tokens_cut"] += len(source) - len(head)
        lost["target_tokens_cut"] += len(target) - len(tail)
    assert {name: getattr(packed, name) for name in lost} == lost
    assert packed.truncated == lost["source_tokens_cut"] + lost["target_tokens_cut"]
    assert packed.tokens_in + packed.eos_added == packed.tokens_in_rows + packed.truncated


def test_a_target_is_cut_as_if_its_source_were_a_longest_one() -> None:
    packed = pack_pairs([[5], [5] * 9], [[7] * 9, [7] * 9], length=8, source_length=4, eos_id=EOS)
    assert packed.ids_RL.tolist() == [[5, 7, 7, 7, 1, 1, 1, 1], [5, 5, 5, 5, 7, 7, 7, 1]]
    assert packed.ids_RL.dtype == np.int32


@pytest.mark.parametrize("source_length", [0, -1, 7, 8, 100])
def test_a_source_that_leaves_no_room_is_refused(source_length: int) -> None:
    with pytest.raises(ValueError, match=rf"data\.source_length is {source_length}, but must .* in data\.length 8: use 1 to 6"):
        pack_pairs([[5]], [[7]], length=8, source_length=source_length, eos_id=EOS)
