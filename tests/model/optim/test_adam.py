"""AdamW against torch.optim.AdamW, and the Nesterov form against a float64 rewrite."""

import torch
from torch import Tensor

from elf.optim import OptimConfig, Optimizer, ParamSlice

SHAPES: dict[str, tuple[int, ...]] = {
    "proj.weight": (5, 7), "proj.bias": (5,), "tokens": (1, 3, 4), "token_embedding.weight": (6, 2),
}


def start(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def slices(weights: dict[str, Tensor]) -> list[ParamSlice]:
    return [ParamSlice(name=n, shape=tuple(w.shape), start=0, stop=w.numel(), value=w.view(-1)) for n, w in weights.items()]


def test_adamw_is_torch_adamw_with_decay_on_matrices_only() -> None:
    config = OptimConfig(name="adamw", lr=0.02, betas=(0.9, 0.95), weight_decay=0.3)
    ours, theirs = start(1), {name: w.clone().requires_grad_() for name, w in start(1).items()}
    optimizer = Optimizer(slices(ours), config)
    oracle = torch.optim.AdamW(
        [
            {"params": [theirs["proj.weight"]], "weight_decay": 0.3},
            {"params": [w for n, w in theirs.items() if n != "proj.weight"], "weight_decay": 0.0},
        ],
        lr=0.02, betas=(0.9, 0.95), eps=1e-8,
    )
    for step in range(10):
        grads = start(100 + step)
        for name, parameter in theirs.items():
            parameter.grad = grads[name].clone()
        oracle.step()
        optimizer.step([grads[name].view(-1) for name in ours], lr=0.02)
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name].detach(), atol=2e-6, rtol=1e-6)
    assert set(optimizer.update_sq_norms()) == {"adamw"}


def test_nesterov_adam_is_its_formula() -> None:
    b1, b2, eps, lr = 0.9, 0.999, 1e-8, 0.01
    weight = torch.randn(9, generator=torch.Generator().manual_seed(2))
    reference, m, v = weight.double(), torch.zeros(9).double(), torch.zeros(9).double()
    optimizer = Optimizer(slices({"bias": weight}), OptimConfig(name="muon"))
    for k in range(1, 9):
        grad = torch.randn(9, generator=torch.Generator().manual_seed(50 + k))
        optimizer.step([grad], lr=lr)
        g = grad.double()
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        ahead = b1 * m / (1 - b1 ** (k + 1)) + (1 - b1) * g / (1 - b1**k)
        reference -= lr * ahead / ((v / (1 - b2**k)).sqrt() + eps)
        torch.testing.assert_close(weight.double(), reference, atol=1e-6, rtol=0)
