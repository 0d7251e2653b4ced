"""Texts through a judge: fixed batches by length, so that the figures do not depend on who scores which batch.

Shapes: N texts, B texts of a batch, L tokens, H width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from elf.metrics.perplexity import Protocol, score_weights, text_sums
from elf_platform.data.progress import ProgressLine
from elf_platform.evaluate.judge import Judge

BATCH_TOKENS = 4096
"""Tokens of one judge batch, padding included."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a judge said about N texts, none of them empty."""

    sums_N2: NDArray[np.float64]  # weighted nll in nats, weight
    state_NH: NDArray[np.float64]  # hidden state after the last token
    ids: list[list[int]]  # the judge's token ids, cut to its limit
    truncated: int  # texts that were cut
    tokens: int  # of the texts before they were cut


@dataclass(frozen=True, kw_only=True)
class JudgeBatch:
    """One unit of scoring: these rows, padded to the same width."""

    index: list[int]  # of the texts
    ids: list[list[int]]  # cut to the limit
    limit: int  # tokens of a text at most


BatchScores = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(sums [B, 2], states [B, H]) of one batch."""

Run = Callable[[Sequence[JudgeBatch]], Iterator[tuple[int, BatchScores]]]
"""Scores batches: the place of a batch among those given, and what it scored, in whatever order they are ready."""


def plan_batches(ids: Sequence[list[int]], *, limit: int, budget: int) -> list[JudgeBatch]:
    """Texts sorted by length (then by place) and cut into batches of at most ``budget`` tokens, at least one text each."""
    order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))
    batches: list[list[int]] = []
    for i in order:
        width = min(len(ids[i]) + 1, limit)
        if not batches or (len(batches[-1]) + 1) * width > budget:
            batches.append([])
        batches[-1].append(i)
    return [JudgeBatch(index=batch, ids=[ids[i] for i in batch], limit=limit) for batch in batches]


def score_batch(judge: Judge, protocol: Protocol, batch: JudgeBatch) -> BatchScores:
    """(sums [B, 2], states [B, H]); texts shorter than the limit are followed by end-of-text, which is what pads."""
    width = min(max(map(len, batch.ids)) + 1, batch.limit)
    ids_BL = torch.full((len(batch.ids), width), judge.eos_id, dtype=torch.int64)
    for b, ids in enumerate(batch.ids):
        ids_BL[b, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
    ids_BL = ids_BL.to(judge.device)
    nll_BL, state_BLH = judge.read(ids_BL, start=protocol.first)
    sums_B2 = text_sums(nll_BL, score_weights(ids_BL, judge.eos_id, protocol))
    last_B = torch.tensor([len(ids) - 1 for ids in batch.ids], device=judge.device)
    state_BH = state_BLH[torch.arange(len(last_B), device=judge.device), last_B]
    return sums_B2.cpu().numpy(), state_BH.double().cpu().numpy()


def run_here(judge: Judge, protocol: Protocol) -> Run:
    """Scoring in this process."""
    return lambda batches: ((number, score_batch(judge, protocol, batch)) for number, batch in enumerate(batches))


def check_protocol(judge: Judge, protocol: Protocol) -> None:
    """ValueError when the judge cannot score as the protocol says."""
    if protocol.first and not judge.scores_first:
        raise ValueError(
            f"the protocol {protocol.name} scores the first token, but the judge {judge.card.name} has no beginning-of-text token; use "
            "another protocol, such as elf"
        )


def score_sets(
    judge: Judge, sets: Sequence[Sequence[list[int]]], protocol: Protocol, *, run: Run | None = None, limit: int = 0,
    budget: int = BATCH_TOKENS, progress: bool = False,
) -> list[Scored]:
    """Score sets of texts in one go, so that actors load the judge once; batches never mix sets, so a set's figures are its own.

    sets: texts as the judge's tokens, none of them empty. limit: tokens of a text at most (0: the judge's own limit). Raises ValueError
    for a limit that the judge does not have."""
    check_protocol(judge, protocol)
    if limit < 0 or limit > judge.card.length:
        raise ValueError(f"tokens is {limit}, but the judge {judge.card.name} takes 1 to {judge.card.length}; 0 stands for all of these")
    limit = limit or judge.card.length
    # A beginning-of-text token takes a place of a model that has no start vector; one rule for all keeps judges alike.
    cut = limit - 1 if protocol.first else limit
    ids = [[row[:cut] for row in whole] for whole in sets]
    assert all(map(all, ids)), "empty texts are dropped before they are scored"
    planned = [(owner, batch) for owner, rows in enumerate(ids) for batch in plan_batches(rows, limit=cut, budget=budget)]
    sums = [np.zeros((len(rows), 2)) for rows in ids]
    states: list[list[NDArray[np.float64]]] = [[np.zeros(1)] * len(rows) for rows in ids]
    tokens = [sum(map(len, batch.ids)) for _, batch in planned]
    with ProgressLine("scoring with the judge", sum(tokens), unit="tokens", digits=0, on=progress) as line:
        for number, (sums_B2, state_BH) in (run or run_here(judge, protocol))([batch for _, batch in planned]):
            owner, batch = planned[number]
            sums[owner][batch.index] = sums_B2
            for i, state_H in zip(batch.index, state_BH, strict=True):
                states[owner][i] = state_H
            line.advance(tokens[number])
    return [
        Scored(
            sums_N2=sums[owner], state_NH=np.stack(states[owner]) if states[owner] else np.zeros((0, 1)), ids=ids[owner],
            truncated=sum(len(row) > cut for row in whole), tokens=sum(map(len, whole)),
        )
        for owner, whole in enumerate(sets)
    ]
