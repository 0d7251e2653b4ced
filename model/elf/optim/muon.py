"""Muon: momentum, orthogonalised by a Newton-Schulz iteration, on every matrix (Jordan 2024; ELF's exact form is elf.md B).

Shapes: N matrices of R rows and K columns.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from elf.optim.adam import NesterovAdam
from elf.optim.rules import Recipe, Rule, is_matrix
from elf.optim.slices import MatrixPiece

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Quintic that drives every singular value into about [0.7, 1.2] within five steps, rather than to exactly 1 in many."""

_VALUES_AT_ONCE = 2**24
"""Values of equal-shaped matrices stacked into one batched product (64 MB). On 2 CPU cores stacking 12 matrices measured 5 times
as fast at 16 x 16, 1.5 to 4 times at 64 to 128 and about even above, where it costs memory."""


def newton_schulz(matrix: Tensor, steps: int = 5) -> Tensor:
    """Nearly orthogonal matrix of the same shape with the singular vectors of ``matrix`` [R, K], or of each of a batch [N, R, K].

    Computed in float32 (on a GPU in TF32 where the caller has allowed that for matrix products)."""
    a, b, c = COEFFICIENTS
    x = matrix.float()
    x = x[None] if matrix.ndim == 2 else x
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-8)
    tall = matrix.shape[-2] > matrix.shape[-1]
    if tall:  # the square products are then of the smaller side
        x = x.mT
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.mT if tall else x
    return x[0] if matrix.ndim == 2 else x


def shape_factor(shape: tuple[int, ...]) -> float:
    """Scale of an orthogonalised update of a matrix stored (out, in): sqrt(max(1, out / in))."""
    return math.sqrt(max(1.0, shape[0] / shape[1]))


def orthogonalise_locally(pieces: Sequence[MatrixPiece]) -> list[Tensor]:
    """Orthogonalised and scaled updates where every piece is a whole matrix, in the memory of the updates; matrices of one shape share
    batched products."""
    result: list[Tensor] = [piece.update for piece in pieces]
    by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, piece in enumerate(pieces):
        rows, columns = piece.shape
        assert piece.start == 0 and piece.stop == rows * columns, f"{piece.name} is only here in part: another rank has the rest"
        by_shape[piece.shape].append(i)
    for shape, members in by_shape.items():
        at_once = max(1, _VALUES_AT_ONCE // (shape[0] * shape[1]))
        for first in range(0, len(members), at_once):
            chunk = members[first : first + at_once]
            stacked = torch.stack([pieces[i].update.view(shape) for i in chunk])
            for i, matrix in zip(chunk, newton_schulz(stacked).mul_(shape_factor(shape)), strict=True):
                result[i] = pieces[i].update.copy_(matrix.reshape(-1))
    return result


class Muon(Rule):
    """Nesterov momentum with its bias corrected, orthogonalised, scaled by ``shape_factor``; no weight decay."""

    kinds = ("momentum",)
    whole_matrices = True

    def direction(self, grads: list[Tensor], step: int) -> list[Tensor]:
        """NS5(b m / (1 - b^(k+1)) + (1 - b) g / (1 - b^k)) * factor at step k, with m <- b m + (1 - b) g."""
        beta, momentum = self.config.momentum, self.state["momentum"]
        ahead: list[Tensor] = []
        if grads:
            torch._foreach_mul_(momentum, beta)
            torch._foreach_add_(momentum, grads, alpha=1 - beta)
            ahead = list(torch._foreach_mul(momentum, beta / (1 - beta ** (step + 1))))
            torch._foreach_add_(ahead, grads, alpha=(1 - beta) / (1 - beta**step))
        pieces = [
            MatrixPiece(name=s.name, shape=(s.shape[0], s.shape[1]), start=s.start, stop=s.stop, update=u)
            for s, u in zip(self.slices, ahead, strict=True)
        ]
        return self.orthogonalise(pieces)

    @staticmethod
    def factor(shape: tuple[int, ...]) -> float:
        """Scale of the orthogonalised update."""
        return shape_factor(shape)


MUON = Recipe(
    assign=lambda name, shape: "muon" if is_matrix(name, shape) else "adam", rules={"muon": Muon, "adam": NesterovAdam}
)
