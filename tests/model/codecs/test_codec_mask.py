"""The encoders' attention mask, against the rule written out query by query."""

from collections.abc import Callable
from itertools import product

import torch

from elf.batch import Batch
from elf.nn.mask import encoder_mask


def naive_mask(length: int, tokens: int, condition: int, dropped: bool) -> torch.Tensor:
    mask = torch.zeros(length, length, dtype=torch.bool)
    for query, key in product(range(length), range(length)):
        if query < condition:
            mask[query, key] = key < condition
        else:
            mask[query, key] = key < tokens and not (dropped and key < condition)
    return mask


def test_mask_of_every_shape_of_row() -> None:
    length = 5
    rows = [(tokens, cond, drop) for tokens in range(1, 6) for cond in range(tokens + 1) for drop in (False, True)]
    tokens, condition, dropped = (torch.tensor(column) for column in zip(*rows, strict=True))
    mask = encoder_mask(Batch.of_ids(torch.zeros(len(rows), length, dtype=torch.int64), tokens, condition), dropped)
    assert mask is not None and mask.shape == (len(rows), 1, length, length)
    for row, (n, c, drop) in zip(mask[:, 0], rows, strict=True):
        expected = naive_mask(length, n, c, drop)
        seeing = expected.any(1)
        assert torch.equal(row[seeing], expected[seeing]), (n, c, drop)
        assert row[~seeing].all(), "a query without any key sees all, so that its softmax is finite"


def test_without_condition_the_mask_is_two_dimensional(random_batch: Callable[..., Batch]) -> None:
    mask = encoder_mask(random_batch([12, 7, 0]), torch.tensor([True, False, True]))
    assert mask is not None and mask.shape == (3, 1, 1, 12)
    assert mask[:, 0, 0].sum(-1).tolist() == [12, 7, 12]
    assert mask[1, 0, 0, :7].all()


def test_full_rows_need_no_mask(random_batch: Callable[..., Batch]) -> None:
    assert encoder_mask(random_batch([12, 12])) is None
    assert encoder_mask(random_batch([12, 12], [0, 0]), torch.tensor([True, True])) is None
    assert encoder_mask(random_batch([12, 12], [0, 3])) is not None
