"""Text measures and operation counts against hand calculations."""

import math

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from elf.metrics.flops import flops_per_row, peak_flops
from elf.metrics.text import known_word_share, unigram_cross_entropy, unigram_entropy
from elf.metrics.tokens import words
from elf.nn.config import NetworkConfig
from elf.processes import Autoregressive, EmbeddedFlow


def test_words_are_runs_of_letters() -> None:
    assert words("Don't stop, naïve_x2 A-b!") == ["don't", "stop", "naïve", "x", "a", "b"]


def test_known_word_share() -> None:
    assert known_word_share(["The cat", "a dgo"], {"the", "cat", "a"}) == 0.75
    assert math.isnan(known_word_share(["12 --"], {"the"}))


def test_unigram_entropy() -> None:
    assert unigram_entropy([[1, 1, 2, 2], [5, 5, 5]]) == pytest.approx(math.log(2) / 2)
    assert unigram_entropy([[], [1, 2, 3, 4]]) == pytest.approx(math.log(4))
    assert math.isnan(unigram_entropy([[]]))


def test_unigram_cross_entropy_is_that_of_the_smoothed_frequencies() -> None:
    train, valid = np.array([3, 0, 5]), np.array([1, 1, 2])
    p = (train + 1) / 11
    assert unigram_cross_entropy(train, valid) == pytest.approx(-(valid * np.log(p)).sum() / 4)


@pytest.mark.parametrize("kind", ["elf", "autoregressive"])
def test_flops_agree_with_torchs_own_counter(kind: str) -> None:
    """One forward pass counted by torch: trunk, heads and attention. The formula's forward part must be within 2 percent."""
    config = NetworkConfig(hidden=64, depth=2, heads=2, bottleneck=16)
    process = EmbeddedFlow(decoder_prob=1.0, self_cond_prob=0.0) if kind == "elf" else Autoregressive()
    net = process.build_network(config, vocab_size=200, channels=32, length=48)
    # The math kernel is made of matrix products, which the counter sees; the fused one on a CPU it does not.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        if kind == "elf":
            z = torch.zeros(1, 48, 32)
            net(z, z, torch.ones(1), torch.ones(1), torch.ones(1), want_x=False, want_tokens=True)
        else:
            net(torch.zeros(1, 48, dtype=torch.int64))
    assert flops_per_row(process, net) == pytest.approx(3 * counter.get_total_flops(), rel=0.02)


def test_peak_is_measured_on_a_cpu() -> None:
    assert 1e8 < peak_flops(torch.device("cpu")) < 1e14
