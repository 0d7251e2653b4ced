"""Communication over slices: whole matrices for Muon from ranks that hold pieces, and whole weights on the main rank.

Only torch.distributed. Memory beyond a rank's share is bounded by BUCKET elements.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from elf.optim import MatrixPiece, OptimConfig, ParamSlice, newton_schulz, orthogonalise_locally, orthogonalised, shape_factor

BUCKET = 2**24
"""Elements of split matrices that are exchanged at a time, over all ranks."""

Piece = tuple[str, tuple[int, ...], int, int]  # name, shape, start, stop


@dataclass(frozen=True)
class _Bucket:
    """Split matrices that are exchanged together, and who makes each whole."""

    owner: dict[str, int]


def _layout(slices: Sequence[ParamSlice]) -> list[list[Piece]]:
    """What each rank holds, in its own order."""
    mine: list[Piece] = [(s.name, s.shape, s.start, s.stop) for s in slices if s.stop > s.start]
    everyone: list[list[Piece]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(everyone, mine)
    return everyone


class MatrixExchange:
    """``Orthogonalise`` over ranks: a matrix that one rank holds whole stays there; the pieces of a split one go to its owner,
    who orthogonalises it and sends the pieces of the result back. The work is spread over the ranks by cost."""

    def __init__(self, slices: Sequence[ParamSlice], config: OptimConfig) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.holders: dict[str, list[tuple[int, int, int]]] = {}  # name -> (rank, start, stop)
        shapes: dict[str, tuple[int, ...]] = {}
        for rank, pieces in enumerate(_layout(slices)):
            for name, shape, start, stop in pieces:
                shapes[name] = shape
                self.holders.setdefault(name, []).append((rank, start, stop))
        self.shapes = orthogonalised(shapes, config)
        self.buckets = self._plan([name for name in sorted(self.shapes) if len(self.holders[name]) > 1])

    def _plan(self, split: list[str]) -> list[_Bucket]:
        """Deterministic, so that all ranks agree without talking: largest first, to the rank with the least work so far."""
        cost = {name: self.shapes[name][0] * self.shapes[name][1] * min(self.shapes[name]) for name in split}
        load = [0] * self.world
        buckets: list[_Bucket] = []
        size = BUCKET
        for name in sorted(split, key=lambda n: (-cost[n], n)):
            rank = load.index(min(load))
            load[rank] += cost[name]
            elements = self.shapes[name][0] * self.shapes[name][1]
            if size + elements > BUCKET:
                buckets.append(_Bucket(owner={}))
                size = 0
            buckets[-1].owner[name] = rank
            size += elements
        return buckets

    def __call__(self, pieces: Sequence[MatrixPiece]) -> list[Tensor]:
        # Empty pieces have nothing to send, and a matrix of one value may leave them beside its only holder.
        held = {piece.name: piece for piece in pieces if piece.stop > piece.start}
        unplanned = sorted(held.keys() - self.shapes.keys())
        assert not unplanned, f"{unplanned[0]} is to be orthogonalised, but its rule does not say that it needs whole matrices"
        whole = [piece for name, piece in held.items() if len(self.holders[name]) == 1]
        result = dict(zip((p.name for p in whole), orthogonalise_locally(whole), strict=True))
        for bucket in self.buckets:
            result.update(self._exchange(bucket, held))
        return [result[piece.name] if piece.name in held else piece.update for piece in pieces]

    def _exchange(self, bucket: _Bucket, held: dict[str, MatrixPiece]) -> dict[str, Tensor]:
        """Pieces to owners, Newton-Schulz there, pieces of the result back."""
        order = sorted(bucket.owner)
        out_names: list[list[str]] = [[n for n in order if bucket.owner[n] == r and n in held] for r in range(self.world)]
        mine = [n for n in order if bucket.owner[n] == self.rank]
        in_pieces = [[(n, *span[1:]) for n in mine for span in self.holders[n] if span[0] == r] for r in range(self.world)]
        device = next(iter(held.values())).update.device if held else self._device()

        sent = [held[n].update for names in out_names for n in names]
        send_sizes = [sum(held[n].update.numel() for n in names) for names in out_names]
        receive_sizes = [sum(stop - start for _, start, stop in spans) for spans in in_pieces]
        received = torch.empty(sum(receive_sizes), device=device)
        dist.all_to_all_single(received, _flat(sent, device), receive_sizes, send_sizes)

        matrices = {n: torch.empty(self.shapes[n][0] * self.shapes[n][1], device=device) for n in mine}
        offset = 0
        for n, start, stop in (span for spans in in_pieces for span in spans):
            matrices[n][start:stop] = received[offset : offset + stop - start]
            offset += stop - start
        for n, flat in matrices.items():
            matrices[n] = newton_schulz(flat.view(self.shapes[n])).mul_(shape_factor(self.shapes[n])).reshape(-1)

        answer = [matrices[n][start:stop] for spans in in_pieces for n, start, stop in spans]
        returned = torch.empty(sum(send_sizes), device=device)
        dist.all_to_all_single(returned, _flat(answer, device), send_sizes, receive_sizes)
        names = [n for group in out_names for n in group]
        return dict(zip(names, returned.split([held[n].update.numel() for n in names]), strict=True))

    def _device(self) -> torch.device:
        return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def _flat(tensors: list[Tensor], device: torch.device) -> Tensor:
    return torch.cat(tensors) if tensors else torch.empty(0, device=device)


def gather_slices(slices: Sequence[ParamSlice], state: dict[str, Tensor], kind: str) -> dict[str, Tensor] | None:
    """Whole tensors "kind/name" in their parameters' shapes on rank 0's CPU, None elsewhere; one piece is in flight at a time."""
    layout = _layout(slices)
    if dist.get_rank() != 0:
        for s in slices:
            if s.stop > s.start:
                dist.send(state[f"{kind}/{s.name}"].contiguous(), dst=0)
        return None
    whole: dict[str, Tensor] = {}
    for rank, pieces in enumerate(layout):
        for name, shape, start, stop in pieces:
            if name not in whole:
                whole[name] = torch.empty(shape)
            if rank == 0:
                piece = state[f"{kind}/{name}"]
            else:
                piece = torch.empty(stop - start, device=slices[0].value.device)
                dist.recv(piece, src=rank)
            whole[name].view(-1)[start:stop] = piece.detach().cpu()
    return whole
