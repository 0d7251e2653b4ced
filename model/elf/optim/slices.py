"""What an optimiser is given: pieces of parameters, so that it works unchanged on whole weights and on a rank's share of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ParamSlice:
    """One contiguous piece of one parameter's flattened values; a rank holds at most one piece of each parameter."""

    name: str
    shape: tuple[int, ...]  # of the whole parameter
    start: int  # the piece is values [start, stop) of the flattened parameter; start == stop is an empty piece
    stop: int
    value: Tensor  # float32 [stop - start], the master weights themselves: updates are written here


@dataclass(frozen=True, kw_only=True)
class MatrixPiece:
    """A piece of a matrix-shaped update that is to be orthogonalised as a whole."""

    name: str
    shape: tuple[int, int]
    start: int
    stop: int
    update: Tensor  # float32 [stop - start]


Orthogonalise = Callable[[Sequence[MatrixPiece]], list[Tensor]]
"""Gives back, in the same order, the same pieces of the orthogonalised and scaled matrices. It is called once per step on every
rank, with an empty list where a rank holds no matrix, so that it may communicate."""
