"""Given tokens as a sampler's condition, with every codec."""

from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from elf.batch import Batch
from elf.codecs import Codec
from elf.sampling.condition import encode_condition

LENGTH = 12
SOURCES = [[5, 9, 11, 2], [], [7], list(range(20, 31))]


@pytest.mark.parametrize("kind", ["t5", "own", "table"])
def test_given_states_are_those_that_training_shows(kind: str, make_codec: Callable[[str], Codec]) -> None:
    """Training encodes source and target together, and the source does not see the target."""
    codec = make_codec(kind)
    condition = encode_condition(SOURCES, length=LENGTH, target_length=6, pad_id=0, codec=codec, device="cpu")
    ids_BL = torch.randint(0, 40, (4, LENGTH), generator=torch.Generator().manual_seed(0))
    ids_BL = torch.where(condition.given_BL, condition.ids_BL, ids_BL)
    length_B = torch.tensor([8, 3, 12, 12])
    trained_BLC = codec.encode(Batch.of_ids(ids_BL, length_B, condition.length_B))
    given_BL = condition.given_BL
    assert given_BL.sum(1).tolist() == condition.length_B.tolist() == [4, 0, 1, 11]
    assert_close(condition.state_BLC[given_BL], trained_BLC[given_BL], rtol=1e-5, atol=1e-5)
    assert not bool(condition.state_BLC[~given_BL].any()) and bool(condition.state_BLC[given_BL].any())


def test_without_codec_there_are_ids_alone() -> None:
    condition = encode_condition(SOURCES, length=LENGTH, target_length=6, pad_id=3, codec=None, device="cpu")
    assert condition.state_BLC is None and condition.ids_BL[0].tolist() == [5, 9, 11, 2] + [3] * 8


@pytest.mark.parametrize(
    ("tokens", "target", "words"),
    [
        ([[1] * 12], 6, "row 0 is given 12 tokens.*cut it to 11"),
        ([[1], [1] * 30], 6, "row 1"),
        ([[1]], 0, "target_length is 0"),
        ([[1]], 13, "target_length is 13"),
    ],
)
def test_rows_without_room_are_refused(tokens: list[list[int]], target: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        encode_condition(tokens, length=LENGTH, target_length=target, pad_id=0, codec=None, device="cpu")
