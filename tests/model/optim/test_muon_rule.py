"""Newton-Schulz, its grouping into batches, and Muon's momentum against float64 rewrites."""

import math

import pytest
import torch
from torch import Tensor

from elf.optim import MatrixPiece, OptimConfig, Optimizer, ParamSlice, newton_schulz, orthogonalise_locally, shape_factor


def slow_newton_schulz(matrix: Tensor) -> Tensor:
    """Straight from the formula, in float64: p(s) = a s + b s^3 + c s^5 applied five times to the singular values."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / (torch.linalg.vector_norm(s) + 1e-8)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ v


@pytest.mark.parametrize("shape", [(8, 8), (24, 7), (7, 24), (1, 5), (5, 1)])
def test_newton_schulz_acts_on_the_singular_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(newton_schulz(matrix).double(), slow_newton_schulz(matrix), atol=2e-5, rtol=0)


def test_singular_values_end_near_one() -> None:
    spectrum = torch.linalg.svdvals(newton_schulz(torch.randn(64, 32, generator=torch.Generator().manual_seed(2))))
    assert spectrum.min() > 0.6 and spectrum.max() < 1.25


def test_scale_of_the_update_does_not_matter_and_zero_stays_zero() -> None:
    matrix = torch.randn(6, 9, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(newton_schulz(matrix * 1e4), newton_schulz(matrix), atol=1e-5, rtol=0)
    assert newton_schulz(torch.zeros(4, 4)).abs().max() == 0


def test_a_batch_is_its_matrices() -> None:
    batch = torch.randn(5, 12, 4, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(newton_schulz(batch), torch.stack([newton_schulz(m) for m in batch]), atol=1e-6, rtol=0)


def test_factors_of_elf_b() -> None:
    """The factors listed in elf.md B for the network of width 768."""
    expected = {
        (2304, 768): 1.732, (4096, 768): 2.309, (32100, 512): 7.918, (768, 128): 2.449, (768, 256): 1.732, (768, 2048): 1.0,
    }
    for shape, factor in expected.items():
        assert shape_factor(shape) == pytest.approx(factor, abs=5e-4)


def test_grouping_keeps_order_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixed shapes, with batches of at most two 4 x 6 matrices, so that a shape spans several batches."""
    monkeypatch.setattr("elf.optim.muon._VALUES_AT_ONCE", 50)
    generator = torch.Generator().manual_seed(5)
    shapes = [(4, 6), (6, 4), (4, 6), (20, 3), (4, 6), (6, 4), (4, 6)]
    matrices = [torch.randn(s, generator=generator) for s in shapes]
    pieces = [
        MatrixPiece(name=str(i), shape=s, start=0, stop=s[0] * s[1], update=m.view(-1).clone())
        for i, (s, m) in enumerate(zip(shapes, matrices, strict=True))
    ]
    for piece, matrix, result in zip(pieces, matrices, orthogonalise_locally(pieces), strict=True):
        expected = slow_newton_schulz(matrix) * math.sqrt(max(1.0, matrix.shape[0] / matrix.shape[1]))
        torch.testing.assert_close(result.view(matrix.shape).double(), expected, atol=5e-5, rtol=0)
        assert result.data_ptr() == piece.update.data_ptr()  # no second set of matrices in memory


def test_a_partial_matrix_is_refused_by_the_local_orthogonaliser() -> None:
    with pytest.raises(AssertionError, match="another rank"):
        orthogonalise_locally([MatrixPiece(name="w", shape=(2, 2), start=0, stop=2, update=torch.zeros(2))])


def test_momentum_is_bias_corrected_nesterov() -> None:
    beta, lr = 0.9, 0.03
    generator = torch.Generator().manual_seed(6)
    weight = torch.randn(10, 6, generator=generator)
    reference, momentum = weight.double(), torch.zeros(10, 6, dtype=torch.float64)
    piece = ParamSlice(name="w", shape=(10, 6), start=0, stop=60, value=weight.view(-1))
    optimizer = Optimizer([piece], OptimConfig(name="muon", lr=lr, momentum=beta))
    for k in range(1, 8):
        grad = torch.randn(10, 6, generator=generator)
        optimizer.step([grad.view(-1)], lr=lr)
        momentum = beta * momentum + (1 - beta) * grad.double()
        ahead = beta * momentum / (1 - beta ** (k + 1)) + (1 - beta) * grad.double() / (1 - beta**k)
        reference -= lr * math.sqrt(10 / 6) * slow_newton_schulz(ahead)
        torch.testing.assert_close(weight.double(), reference, atol=3e-6, rtol=0)
