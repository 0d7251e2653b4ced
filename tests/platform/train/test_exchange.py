"""Which matrices ranks bring together before they are orthogonalised: those of rules that ask for it, whatever a group is called."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from elf.optim import OPTIMIZERS, OptimConfig, Optimizer, ParamSlice, orthogonalise_locally
from elf.optim.adam import NesterovAdam
from elf.optim.muon import Muon
from elf.optim.rules import Recipe, is_matrix
from elf_platform.train.exchange import MatrixExchange


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def slices() -> list[ParamSlice]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a.weight": (6, 4), "a.bias": (6,), "b.weight": (4, 4)}
    values = {name: torch.randn(shape, generator=generator).view(-1) for name, shape in shapes.items()}
    return [ParamSlice(name=n, shape=s, start=0, stop=len(values[n]), value=values[n]) for n, s in shapes.items()]


class Unasking(Muon):
    """A rule that orthogonalises and forgot to say so."""

    whole_matrices = False


def named(group: str, rule: type[Muon]) -> Recipe:
    return Recipe(assign=lambda name, shape: group if is_matrix(name, shape) else "rest", rules={group: rule, "rest": NesterovAdam})


def test_the_rule_says_what_it_needs_and_not_the_name_of_its_group(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(OptimConfig(), name="muon", lr=0.1)
    expected = slices()
    Optimizer(expected, config, orthogonalise=orthogonalise_locally).step([s.value.clone() for s in expected], lr=0.1)
    monkeypatch.setitem(OPTIMIZERS, "muon", named("matrices", Muon))
    found = slices()
    exchange = MatrixExchange(found, config)
    assert set(exchange.shapes) == {"a.weight", "b.weight"}
    Optimizer(found, config, orthogonalise=exchange).step([s.value.clone() for s in found], lr=0.1)
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a.value, b.value), a.name


def test_a_matrix_that_no_one_planned_for_is_refused(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its update would come back as it was: momentum without Muon."""
    monkeypatch.setitem(OPTIMIZERS, "muon", named("muon", Unasking))
    parts, config = slices(), OptimConfig()
    optimizer = Optimizer(parts, config, orthogonalise=MatrixExchange(parts, config))
    with pytest.raises(AssertionError, match="a.weight"):
        optimizer.step([s.value.clone() for s in parts], lr=0.1)
