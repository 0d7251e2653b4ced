"""Generative perplexity: the masks by hand and by the formula of elf.md C.3, the averages in closed form."""

import math

import numpy as np
import pytest
import torch

from elf.metrics.bootstrap import estimate
from elf.metrics.perplexity import PROTOCOLS, perplexity, perplexity_columns, score_weights, text_sums

EOS = 9
IDS = torch.tensor([[3, 4, 5, EOS, EOS, EOS], [3, EOS, 4, 5, EOS, EOS], [1, 2, 3, 4, 5, 6]])
EXPECTED = {
    "elf": [[0, 1, 1, 1, 0, 0], [0, 1, 2, 2, 0, 0], [0, 1, 1, 1, 1, 1]],
    "elf-macro": [[0, 1, 1, 1, 0, 0], [0, 1, 2, 2, 0, 0], [0, 1, 1, 1, 1, 1]],
    "once": [[0, 1, 1, 1, 0, 0], [0, 1, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1]],
    "no-end": [[0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1]],
    "bos": [[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]],
}


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_weights_by_hand(name: str) -> None:
    assert score_weights(IDS, EOS, PROTOCOLS[name]).tolist() == EXPECTED[name]


def test_default_weights_are_the_formula() -> None:
    """[token != EOS] + [cumulative EOS count == 1] on positions from 1 on, written as loops."""
    ids = torch.randint(0, 10, (40, 12), generator=torch.Generator().manual_seed(0))
    found = score_weights(ids, EOS, PROTOCOLS["elf"])
    for b in range(40):
        for position in range(1, 12):
            seen = int((ids[b, : position + 1] == EOS).sum())
            assert found[b, position] == int(ids[b, position] != EOS) + int(seen == 1)


def test_more_padding_changes_nothing() -> None:
    more = torch.nn.functional.pad(IDS[:2], (0, 5), value=EOS)
    for protocol in PROTOCOLS.values():
        assert torch.equal(score_weights(more, EOS, protocol)[:, :6], score_weights(IDS[:2], EOS, protocol))
        assert score_weights(more, EOS, protocol)[:, 6:].sum() == 0


def test_sums_ignore_what_does_not_count() -> None:
    nll = torch.full((3, 6), 0.5)
    nll[0, 0] = nll[0, 5] = math.nan
    sums = text_sums(nll, score_weights(IDS, EOS, PROTOCOLS["elf"]))
    assert sums.tolist() == [[1.5, 3.0], [2.5, 5.0], [2.5, 5.0]]


def figure(sums: list[list[float]], name: str) -> float:
    return estimate(perplexity_columns(np.array(sums), PROTOCOLS[name]), perplexity, resamples=0).value


def test_uniform_judge_has_the_vocabulary_as_perplexity() -> None:
    for protocol in PROTOCOLS.values():
        sums = text_sums(torch.full((3, 6), math.log(50)), score_weights(IDS, EOS, protocol))
        assert figure(sums.tolist(), protocol.name) == pytest.approx(50)


def test_micro_and_macro_average() -> None:
    sums = [[2.0, 1.0], [3.0, 9.0], [0.0, 0.0]]
    assert figure(sums, "elf") == pytest.approx(math.exp(0.5))
    assert figure(sums, "elf-macro") == pytest.approx(math.exp((2 + 1 / 3) / 2))
    assert math.isnan(figure([[0.0, 0.0]], "elf"))
