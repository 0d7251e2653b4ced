"""Dropout as a draw: a mask is a function of row and place, and nothing in training or sampling touches torch's own generators."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from elf.batch import Batch
from elf.codecs import TableConfig
from elf.draws import Draws
from elf.nn.config import NetworkConfig
from elf.nn.dropout import RowDropout, keep_mask
from elf.processes import PROCESSES, Process
from elf.sampling.config import SampleConfig

ROOT = Path(__file__).parents[2]
VOCAB, LENGTH, CHANNELS, ROWS = 23, 10, 6, 8
NETWORK = NetworkConfig(hidden=16, depth=4, heads=2, bottleneck=8, prefix_tokens=2, dropout=0.4)


def network_of(process: Process, **words: bool) -> nn.Module:
    torch.manual_seed(0)
    network = process.build_network(NETWORK, vocab_size=VOCAB, channels=CHANNELS, length=LENGTH, **words)
    with torch.no_grad():  # heads that start at zero would hide what is dropped
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return network.train()


def batch_of() -> tuple[Batch, Tensor]:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, VOCAB, (ROWS, LENGTH), generator=generator)
    batch = Batch.of_ids(ids, torch.full((ROWS,), LENGTH))
    return batch, TableConfig(channels=CHANNELS).build(vocab_size=VOCAB).encode(batch)


def gradients(process: Process, network: nn.Module, parts: int, *, step: int = 3) -> list[Tensor]:
    """Of the loss of all rows, in ``parts`` micro-batches."""
    batch, state = batch_of()
    network.zero_grad()
    for rows in np.split(np.arange(ROWS), parts):
        part = Batch(**{name: value[rows] for name, value in vars(batch).items()})
        drawn = process.draw(Draws(seed=1, step=step, rows=rows, total=ROWS), part, CHANNELS)
        process.loss(network, part, state[rows] if process.needs_codec else None, drawn).total.backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]


def test_masks_are_fair_and_independent() -> None:
    keys = Draws(seed=5, step=0, rows=np.arange(64), total=64).keys("dropout")
    masks = keep_mask(keys, 3, (32, 48), 0.3)
    assert float(masks.float().mean()) == pytest.approx(0.7, abs=0.005)
    flat = masks.view(64, -1).float() - 0.7
    apart = (flat @ flat.T / flat.shape[1] / 0.21).fill_diagonal_(0).abs().max()
    assert float(apart) < 6 / (32 * 48) ** 0.5, "two rows share their mask"
    other = keep_mask(keys, 4, (32, 48), 0.3).view(64, -1).float() - 0.7
    assert float((flat * other).mean().abs() / 0.21) < 0.02, "two places share their mask"
    columns = masks.view(64, -1).float().mean(0)
    assert float((columns - 0.7).abs().max()) < 6 * (0.21 / 64) ** 0.5


def test_it_keeps_the_mean_and_does_nothing_outside_training() -> None:
    x, keys = torch.ones(200, 4, 50), Draws(seed=0, step=0, rows=np.arange(200), total=200).keys("d")
    drop = RowDropout(0.25, 0)
    assert float(drop(x, keys).mean()) == pytest.approx(1.0, abs=0.01)
    assert drop(x, keys).unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert drop.eval()(x, None) is x
    with pytest.raises(ValueError, match="keys"):
        drop.train()(x, None)


@pytest.mark.parametrize("kind", sorted(PROCESSES))
def test_masks_belong_to_the_row(kind: str) -> None:
    """One pass or four, a forward that is done again or not: the same gradient. Another step: another one."""
    process = PROCESSES[kind]()
    whole = gradients(process, network_of(process), 1)
    for other in (gradients(process, network_of(process), 4), gradients(process, network_of(process, activation_checkpointing=True), 1)):
        for a, b in zip(whole, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert any(not torch.allclose(a, b, rtol=1e-2) for a, b in zip(whole, gradients(process, network_of(process), 1, step=4), strict=True))


@pytest.mark.parametrize("kind", sorted(PROCESSES))
def test_nothing_draws_from_the_global_generators(kind: str) -> None:
    process = PROCESSES[kind]()
    network = network_of(process, activation_checkpointing=True)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    gradients(process, network, 2)
    if kind != "token_denoising":
        config = SampleConfig(steps=2, temperature=1.0) if kind == "autoregressive" else SampleConfig(steps=2, sampler="sde")
        draws = Draws(seed=0, step=0, rows=np.arange(2), total=2)
        process.sample(network.eval(), draws, length=LENGTH, channels=CHANNELS, config=config)
    assert torch.equal(before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()


GLOBAL = {
    "torch.rand", "torch.randn", "torch.randint", "torch.randperm", "torch.multinomial", "torch.bernoulli", "torch.normal",
    "torch.rand_like", "torch.randn_like", "torch.randint_like", "torch.poisson",
}
IN_PLACE = {"bernoulli_", "uniform_", "normal_", "exponential_", "random_", "cauchy_", "log_normal_", "geometric_"}
DROPS = {"nn.Dropout", "nn.Dropout1d", "nn.Dropout2d", "nn.AlphaDropout", "F.dropout", "F.alpha_dropout", "F.gumbel_softmax", "F.rrelu"}


def global_draw(call: ast.Call) -> bool:
    """Whether a call takes random numbers from a generator that the whole process shares."""
    name, options = ast.unparse(call.func).replace("torch.nn.functional.", "F.").replace("torch.nn.", "nn."), {k.arg for k in call.keywords}
    if name.startswith("nn.init."):  # initial weights, whose seed is set for them
        return False
    if name in DROPS or (name.startswith("np.random.") and not name.startswith(("np.random.default_rng", "np.random.Generator"))):
        return True
    return (name in GLOBAL or name.rsplit(".", 1)[-1] in IN_PLACE) and "generator" not in options


def test_no_code_draws_from_a_global_generator() -> None:
    for text, wrong in (("torch.randn(3)", True), ("x.uniform_()", True), ("nn.Dropout(0.1)", True), ("np.random.rand()", True),
                        ("torch.randn(3, generator=g)", False), ("np.random.default_rng(0)", False)):
        assert global_draw(ast.parse(text).body[0].value) == wrong, text  # type: ignore[attr-defined]
    found = []
    for path in [*(ROOT / "model").rglob("*.py"), *(ROOT / "platform").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and global_draw(node):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)[:60]}")
    assert found == []
