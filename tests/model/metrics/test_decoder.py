"""Decoder accuracy against a network whose decoding is known."""

import torch
from torch import nn

from elf.batch import Batch
from elf.metrics.decoder import decoder_hits
from elf.nn.config import NetworkConfig
from elf.nn.denoiser import Denoiser
from elf.processes import EmbeddedFlow


def test_hits_are_counted_on_targets_alone() -> None:
    network = EmbeddedFlow().build_network(NetworkConfig(hidden=16, depth=1, heads=2, bottleneck=4), vocab_size=7, channels=6, length=5)
    assert isinstance(network, Denoiser)
    nn.init.zeros_(network.token_head.unembed.weight)
    with torch.no_grad():
        network.token_head.unembed.bias.copy_(torch.arange(7.0))  # reads a 6 everywhere
    ids = torch.tensor([[6, 6, 1, 6, 6], [6, 2, 6, 3, 6]])
    batch = Batch.of_ids(ids, torch.tensor([4, 5]), torch.tensor([1, 0]))
    assert decoder_hits(network, batch, torch.randn(2, 5, 6)).tolist() == [[2, 3], [3, 5]]


def test_hits_are_the_argmax_of_the_decoding_pass() -> None:
    torch.manual_seed(0)
    network = EmbeddedFlow().build_network(NetworkConfig(hidden=16, depth=1, heads=2, bottleneck=4), vocab_size=7, channels=6, length=5)
    state, ones = torch.randn(3, 5, 6), torch.ones(3)
    logits = network(state, torch.zeros_like(state), ones, ones, ones, want_tokens=True)[1]
    hits = decoder_hits(network, Batch.of_ids(logits.argmax(-1)), state)
    assert hits.tolist() == [[5, 5]] * 3
