"""Learning rate against torch's schedulers, clipping against torch's, moving average against its closed form."""

import math
import warnings

import pytest
import torch

from elf.optim import Ema, OptimConfig, ParamSlice, clip_factor, learning_rate, trained_average


def test_warm_up_starts_at_zero_and_ends_at_the_peak() -> None:
    config = OptimConfig(lr=0.004, warmup_steps=4)
    assert [learning_rate(s, config, 10) for s in range(7)] == pytest.approx([0, 0.001, 0.002, 0.003, 0.004, 0.004, 0.004])
    assert learning_rate(0, OptimConfig(lr=0.004), 10) == 0.004


def test_cosine_is_that_of_torch() -> None:
    """torch.optim.lr_scheduler with a warm-up from 0 of 5 steps and a cosine to a tenth over the rest."""
    config = OptimConfig(name="adamw", lr=0.3, warmup_steps=5, decay="cosine", final_lr_ratio=0.1)
    total = 23
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=total - 1 - 5, eta_min=0.03)
    for step in range(5, total):
        assert learning_rate(step, config, total) == pytest.approx(sgd.param_groups[0]["lr"], rel=1e-9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wants an optimiser step in between, which plays no part here
            cosine.step()
    assert learning_rate(total - 1, config, total) == pytest.approx(0.03)
    assert learning_rate(2, config, total) == pytest.approx(0.3 * 2 / 5)


def test_cosine_of_a_run_that_is_all_warm_up_or_one_step_is_finite() -> None:
    for warmup in (0, 1):
        value = learning_rate(0, OptimConfig(lr=0.3, warmup_steps=warmup, decay="cosine"), 1)
        assert value == (0.0 if warmup else 0.3)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_clipping_is_that_of_torch(scale: float) -> None:
    parameter = torch.zeros(40, requires_grad=True)
    grad = torch.randn(40, generator=torch.Generator().manual_seed(1)) * scale
    parameter.grad = grad.clone()
    norm = float(torch.nn.utils.clip_grad_norm_([parameter], max_norm=1.0))
    torch.testing.assert_close(grad * clip_factor(norm, 1.0), parameter.grad)
    assert clip_factor(norm, 0.0) == 1.0
    assert math.isnan(clip_factor(math.nan, 1.0)) and clip_factor(math.inf, 1.0) == 0.0


def test_moving_average_is_its_sum() -> None:
    decay, steps = 0.97, 50
    weights = torch.randn(steps + 1, 30, generator=torch.Generator().manual_seed(2))
    value = weights[0].clone()
    ema = Ema([ParamSlice(name="w", shape=(5, 6), start=0, stop=30, value=value)], decay)
    for k in range(1, steps + 1):
        value.copy_(weights[k])
        ema.update()
    share = torch.tensor([decay**steps] + [(1 - decay) * decay ** (steps - k) for k in range(1, steps + 1)], dtype=torch.float64)
    torch.testing.assert_close(ema.state()["ema/w"].double(), (share[:, None] * weights.double()).sum(0), atol=1e-6, rtol=0)
    assert share.sum() == pytest.approx(1.0)


def test_moving_average_starts_as_a_copy_and_restores_in_place() -> None:
    value = torch.ones(4)
    ema = Ema([ParamSlice(name="w", shape=(4,), start=0, stop=4, value=value)], 0.5)
    value.fill_(3.0)
    assert ema.averages[0].tolist() == [1.0] * 4
    ema.state()["ema/w"].fill_(2.0)
    ema.update()
    assert ema.averages[0].tolist() == [2.5] * 4
    Ema([], 0.5).update()


def test_an_average_without_its_initial_weights_is_the_weighted_mean_of_what_was_trained() -> None:
    torch.manual_seed(0)
    value, decay, updates = torch.randn(50), 0.9, 12
    initial = value.clone()
    ema = Ema([ParamSlice(name="w", shape=(50,), start=0, stop=50, value=value)], decay)
    seen = []
    for _ in range(updates):
        value += torch.randn(50)
        seen.append(value.double())
        ema.update()
    weights = [decay ** (updates - 1 - k) for k in range(updates)]
    expected = sum(w * v for w, v in zip(weights, seen, strict=True)) / sum(weights)
    average = {"w": ema.averages[0]}
    got = trained_average(average, {"w": initial}, decay=decay, updates=updates)["w"]
    assert (got - expected).abs().max() < 1e-5
    assert (average["w"] - expected).abs().max() > 0.1  # 28 % of it are initial weights
    assert torch.equal(trained_average(average, {"w": initial}, decay=decay, updates=0)["w"], average["w"])
    assert torch.equal(trained_average(average, {"w": initial}, decay=decay, updates=60)["w"], average["w"])  # 0.2 %
