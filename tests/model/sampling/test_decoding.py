"""Left-to-right decoding with a key/value cache against the model read anew for every token."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from elf.draws import Draws
from elf.nn.cache import KeyValueCache
from elf.nn.config import NetworkConfig
from elf.nn.token_model import TokenModel
from elf.processes import Autoregressive
from elf.sampling.condition import encode_condition
from elf.sampling.config import SampleConfig
from elf.sampling.decoding import draw_tokens, fine_uniform

VOCAB, LENGTH = 37, 14
AR = Autoregressive()
PREFIXES = [[3, 1, 4, 1, 5], [], [9], [2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8]]


@pytest.fixture
def network() -> TokenModel:
    torch.manual_seed(3)
    sizes = NetworkConfig(hidden=32, depth=3, heads=4)
    net = AR.build_network(sizes, vocab_size=VOCAB, channels=0, length=LENGTH).eval()
    for p in net.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=0.3)
    assert isinstance(net, TokenModel)
    return net


def draws(rows: list[int]) -> Draws:
    return Draws(seed=5, step=0, rows=np.array(rows), total=100)


@torch.no_grad()
def plainly(net: TokenModel, row: int, prefix: list[int], config: SampleConfig, target: int) -> tuple[list[int], list[Tensor]]:
    """(generated ids, logits of each) of one row alone, the whole row read for every token."""
    uniform_T = fine_uniform(draws([row]), target)[0]
    ids, logits = list(prefix), []
    for i in range(min(target, LENGTH - len(prefix))):
        _, logits_BLV = net(torch.tensor([[*ids, 0]]))
        logits.append(logits_BLV[0, -1])
        chosen = draw_tokens(logits[-1][None], uniform_T[i : i + 1], temperature=config.temperature, top_p=config.top_p)
        ids.append(int(chosen))
    return ids[len(prefix) :], logits


@pytest.mark.parametrize("config", [SampleConfig(), SampleConfig(temperature=0.7, top_p=0.8)])
@pytest.mark.parametrize("prefixed", [False, True])
def test_rows_with_and_without_prefixes_equal_each_row_read_anew(network: TokenModel, config: SampleConfig, prefixed: bool) -> None:
    seen: list[Tensor] = []
    network.unembed.register_forward_hook(lambda m, a, out: seen.append(out))
    target = 6 if prefixed else LENGTH
    prefixes = PREFIXES if prefixed else [[]] * 4
    condition = encode_condition(prefixes, length=LENGTH, target_length=target, pad_id=0, codec=None, device="cpu") if prefixed else None
    made = AR.sample(network, draws([0, 1, 2, 3]), length=LENGTH, channels=0, config=config, condition=condition)
    cached_logits = torch.stack(seen)
    assert made.nfe == len(seen) == target and made.ids_BL.shape == (4, target)
    for row, prefix in enumerate(prefixes):
        ids, logits = plainly(network, row, prefix, config, target)
        assert made.ids_BL[row].tolist() == ids + [0] * (target - len(ids))
        torch.testing.assert_close(cached_logits[: len(ids), row], torch.stack(logits), rtol=1e-5, atol=1e-5)


def test_a_row_does_not_depend_on_the_rows_beside_it(network: TokenModel) -> None:
    """Bit for bit at one batch size, while no prefix is longer than what the target length leaves."""
    seen: list[Tensor] = []
    network.unembed.register_forward_hook(lambda m, a, out: seen.append(out[2]))
    made = []
    for rows, prefixes in (([0, 1, 2], [[3, 1, 4], [], [9, 9]]), ([7, 8, 2], [[], [4] * 8, [9, 9]])):
        condition = encode_condition(prefixes, length=LENGTH, target_length=6, pad_id=0, codec=None, device="cpu")
        made.append(AR.sample(network, draws(rows), length=LENGTH, channels=0, config=SampleConfig(), condition=condition).ids_BL[2])
    assert torch.equal(made[0], made[1])
    assert all(torch.equal(a, b) for a, b in zip(seen[:6], seen[6:], strict=True))


def test_the_cache_continues_a_row(network: TokenModel) -> None:
    """States of a row read in one piece and continued token by token."""
    ids_BL = torch.randint(0, VOCAB, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    whole_BLC, _ = network(ids_BL)
    cache = KeyValueCache(network.config.depth, LENGTH)
    cache.slots.keys = 5
    states = [network.extend(ids_BL[:, :4], cache)]
    for slot in range(5, LENGTH):
        # Both forms: one place for all rows, and one per row.
        cache.slots.first, cache.slots.keys = (slot if slot % 2 else torch.tensor([slot, slot])), slot + 1
        states.append(network.extend(ids_BL[:, slot - 1 : slot], cache))
    torch.testing.assert_close(torch.cat(states, dim=1), whole_BLC, rtol=1e-5, atol=1e-5)


def test_inversion_gives_the_probabilities() -> None:
    """Evenly spaced u fall on each token as often as its probability says, to one in the number of them."""
    logits_V = torch.tensor([0.3, -1.0, 2.0, 0.0, float("-inf")])
    count = 100_000
    uniform_B = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    for temperature in (1.0, 0.5, 3.0):
        ids_B = draw_tokens(logits_V.expand(count, -1), uniform_B, temperature=temperature, top_p=1.0)
        expected_V = torch.softmax(logits_V.double() / temperature, 0)
        assert float((torch.bincount(ids_B, minlength=5) / count - expected_V).abs().max()) <= 1.5 / count
    first = draw_tokens(torch.tensor([[float("-inf"), 0.0]]), torch.zeros(1, dtype=torch.float64), temperature=1.0, top_p=1.0)
    assert int(first) == 1  # u = 0 draws no token of probability 0


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.4, {2}), (0.5, {2}), (0.51, {2, 0}), (0.79, {2, 0}), (0.81, {2, 0, 3}), (0.999, {0, 1, 2, 3})]
)
def test_the_nucleus_is_the_smallest_set_of_that_probability(top_p: float, kept: set[int]) -> None:
    probability_V = torch.tensor([0.3, 0.05, 0.5, 0.15], dtype=torch.float64)
    count = 10_000
    uniform_B = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    ids_B = draw_tokens(probability_V.log().expand(count, -1), uniform_B, temperature=1.0, top_p=top_p)
    share_V = torch.bincount(ids_B, minlength=4) / count
    inside_V = torch.tensor([v in kept for v in range(4)])
    expected_V = probability_V * inside_V / (probability_V * inside_V).sum()
    torch.testing.assert_close(share_V.double(), expected_V, rtol=0, atol=2e-4)


def test_rare_tokens_are_drawn_as_often_as_they_should() -> None:
    """A token of probability 2^-30 is drawn at the u that belong to it; float32 draws would never or too often land there."""
    logits_BV = torch.tensor([[30 * math.log(2), 0.0]], dtype=torch.float64).repeat(2, 1)
    edge = 1 / (1 + 2.0**-30)
    ids_B = draw_tokens(logits_BV, torch.tensor([edge - 2.0**-40, edge + 2.0**-40], dtype=torch.float64), temperature=1.0, top_p=1.0)
    assert ids_B.tolist() == [0, 1]
    uniform_BL = fine_uniform(draws(list(range(50))), 200)
    assert uniform_BL.dtype == torch.float64 and float(uniform_BL.min()) >= 0 and float(uniform_BL.max()) < 1
    fine = (uniform_BL * 2**24) % 1
    assert abs(float(fine.mean()) - 0.5) < 5 * math.sqrt(1 / 12 / fine.numel())
