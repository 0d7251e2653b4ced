"""The optimiser over slices: any division among ranks gives the weights of one process; state, norms and resume."""

import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from elf.optim import OPTIMIZERS, MatrixPiece, OptimConfig, Optimizer, ParamSlice, newton_schulz, shape_factor

SHAPES: dict[str, tuple[int, ...]] = {
    "a.weight": (8, 4), "a.bias": (8,), "b.weight": (3, 8), "tokens": (1, 2, 5), "c.weight": (8, 4),
}
CONFIGS = [OptimConfig(name="muon"), OptimConfig(name="adamw", weight_decay=0.1)]


def tensors(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def whole(weights: dict[str, Tensor]) -> list[ParamSlice]:
    return [ParamSlice(name=n, shape=tuple(w.shape), start=0, stop=w.numel(), value=w.view(-1)) for n, w in weights.items()]


def flat(values: dict[str, Tensor]) -> list[Tensor]:
    return [value.reshape(-1) for value in values.values()]


def train(config: OptimConfig, steps: int) -> tuple[dict[str, Tensor], Optimizer]:
    weights = tensors(0)
    optimizer = Optimizer(whole(weights), config)
    for step in range(steps):
        optimizer.step(flat(tensors(10 + step)), lr=0.05)
    return weights, optimizer


class Exchange:
    """Orthogonalise over ranks that are threads: every rank's pieces meet in one place between two barriers."""

    def __init__(self, ranks: int) -> None:
        self.barrier = threading.Barrier(ranks, timeout=30)
        self.held: dict[int, Sequence[MatrixPiece]] = {}

    def of_rank(self, rank: int, pieces: Sequence[MatrixPiece]) -> list[Tensor]:
        self.held[rank] = pieces
        self.barrier.wait()
        matrices: dict[str, Tensor] = defaultdict(lambda: torch.empty(0))
        for piece in [p for held in self.held.values() for p in held]:
            if piece.name not in matrices:
                matrices[piece.name] = torch.full(piece.shape, float("nan"))
            matrices[piece.name].view(-1)[piece.start : piece.stop] = piece.update
        result = [(newton_schulz(matrices[p.name]) * shape_factor(p.shape)).reshape(-1)[p.start : p.stop] for p in pieces]
        self.barrier.wait()
        return result


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("cuts", [(41, 60), (1, 97), (0, 106)], ids=str)
def test_three_ranks_with_pieces_make_the_weights_of_one(config: OptimConfig, cuts: tuple[int, int]) -> None:
    """All values laid end to end and cut as ZeRO cuts them; with (0, 106) two of them hold nothing."""
    expected, alone = train(config, steps=4)
    total = sum(w.numel() for w in expected.values())
    bounds = [0, *cuts, total]
    start_values = tensors(0)
    exchange, failures = Exchange(3), []
    results: dict[str, Tensor] = {name: torch.full_like(w.reshape(-1), float("nan")) for name, w in expected.items()}
    update_sq: list[dict[str, Tensor]] = []

    def rank_main(rank: int) -> None:
        try:
            pieces, offset = [], 0
            for name, weight in start_values.items():
                low, high = max(bounds[rank], offset) - offset, min(bounds[rank + 1], offset + weight.numel()) - offset
                if high > low:
                    value = weight.reshape(-1)[low:high].clone()
                    pieces.append(ParamSlice(name=name, shape=tuple(weight.shape), start=low, stop=high, value=value))
                offset += weight.numel()
            optimizer = Optimizer(pieces, config, orthogonalise=lambda matrices: exchange.of_rank(rank, matrices))
            for step in range(4):
                grads = tensors(10 + step)
                optimizer.step([grads[p.name].reshape(-1)[p.start : p.stop] for p in pieces], lr=0.05)
            for p in pieces:
                results[p.name][p.start : p.stop] = p.value
            update_sq.append(optimizer.update_sq_norms())
        except Exception as error:
            failures.append(error)
            exchange.barrier.abort()

    threads = [threading.Thread(target=rank_main, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    for name, weight in expected.items():
        torch.testing.assert_close(results[name], weight.reshape(-1), atol=1e-6, rtol=0)
    for group, value in alone.update_sq_norms().items():
        torch.testing.assert_close(sum(rank[group] for rank in update_sq), value, rtol=1e-5, atol=0)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_a_restored_state_continues_bit_for_bit(config: OptimConfig) -> None:
    expected, _ = train(config, steps=6)
    weights, first = train(config, steps=3)
    resumed = Optimizer(whole(weights), config)
    saved = {key: value.clone() for key, value in first.state().items()}
    assert saved.keys() == resumed.state().keys() and not any(value.any() for value in resumed.state().values())
    for key, live in resumed.state().items():
        live.copy_(saved[key])
    resumed.counters.update(first.counters)
    for step in range(3, 6):
        resumed.step(flat(tensors(10 + step)), lr=0.05)
    for name in expected:
        assert torch.equal(weights[name], expected[name])


def test_state_is_named_by_kind_and_parameter() -> None:
    _, optimizer = train(CONFIGS[0], steps=1)
    assert set(optimizer.state()) == {
        "momentum/a.weight", "momentum/b.weight", "momentum/c.weight",
        "exp_avg/a.bias", "exp_avg_sq/a.bias", "exp_avg/tokens", "exp_avg_sq/tokens",
    }
    assert optimizer.counters == {"step": 1}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_update_norms_are_those_of_the_change_of_the_weights(config: OptimConfig) -> None:
    before, _ = train(config, steps=2)
    after, optimizer = train(config, steps=3)
    for group, value in optimizer.update_sq_norms().items():
        change = sum((after[n] - before[n]).double().square().sum() for n in SHAPES if optimizer.groups[n] == group)
        torch.testing.assert_close(value.double(), change, rtol=1e-4, atol=0)
    grads = tensors(12)
    total = sum(optimizer.grad_sq_norms(flat(grads)).values())
    torch.testing.assert_close(total, torch.cat(flat(grads)).square().sum())


def test_a_step_of_learning_rate_zero_moves_nothing_but_the_state() -> None:
    weights = tensors(0)
    optimizer = Optimizer(whole(weights), CONFIGS[0])
    grads = flat(tensors(1))
    kept = [g.clone() for g in grads]
    optimizer.step(grads, lr=0.0)
    assert all(torch.equal(weights[name], value) for name, value in tensors(0).items())
    assert all(value.any() for value in optimizer.state().values())
    assert all(float(value) == 0 for value in optimizer.update_sq_norms().values())
    assert all(torch.equal(a, b) for a, b in zip(grads, kept, strict=True)), "the gradients belong to the caller"


def test_a_rank_without_slices_still_takes_part_in_the_exchange() -> None:
    calls: list[int] = []

    def count(pieces: Sequence[MatrixPiece]) -> list[Tensor]:
        calls.append(len(pieces))
        return []

    optimizer = Optimizer([], CONFIGS[0], orthogonalise=count)
    optimizer.step([], lr=0.1)
    assert calls == [0]
    assert {group: float(v) for group, v in optimizer.update_sq_norms().items()} == {"muon": 0.0, "adam": 0.0}


def test_the_setting_offers_every_registered_optimiser() -> None:
    assert set(get_args(get_type_hints(OptimConfig)["name"])) == set(OPTIMIZERS)
