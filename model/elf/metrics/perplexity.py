"""Generative perplexity: which tokens of a judged text count, and the average over them.

The default is the protocol of the ELF paper's code (elf.md C.3), in its exact masking; everything else is a variant with a name of
its own, because the figures of two protocols do not compare.

Shapes: B texts, L tokens.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from elf.metrics.bootstrap import Columns


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How the tokens of a text enter its perplexity."""

    name: str
    first: bool
    """The first token is scored, given a start vector or a beginning-of-text token; else scoring begins at the second."""
    end: Literal["elf", "once", "none"]
    """elf: [token is not EOS] + [EOS count so far is 1], so the first EOS counts once, and what follows an EOS inside the text counts
    twice. once: all tokens up to the first EOS, and that. none: all tokens before the first EOS."""
    average: Literal["tokens", "texts"]
    """exp of the mean over all tokens of all texts, or exp of the mean over texts of their own means."""


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol(name="elf", first=False, end="elf", average="tokens"),
        Protocol(name="elf-macro", first=False, end="elf", average="texts"),
        Protocol(name="once", first=False, end="once", average="tokens"),
        Protocol(name="no-end", first=False, end="none", average="tokens"),
        Protocol(name="bos", first=True, end="once", average="tokens"),
    )
}
"""Named protocols; ``elf`` is the default everywhere."""


def score_weights(ids_BL: Tensor, eos_id: int, protocol: Protocol) -> Tensor:
    """float64 [B, L]: how often each token counts. Rows are right-padded with ``eos_id``, at least once where the text is shorter than
    the judge's limit; padding after the first EOS counts nowhere."""
    is_eos_BL = ids_BL == eos_id
    ended_BL = is_eos_BL.cumsum(dim=1)
    if protocol.end == "elf":
        weight_BL = (~is_eos_BL).double() + (ended_BL == 1).double()
    elif protocol.end == "once":
        weight_BL = ((ended_BL == 0) | (is_eos_BL & (ended_BL == 1))).double()
    else:
        weight_BL = (ended_BL == 0).double()
    if not protocol.first:
        weight_BL[:, 0] = 0.0
    return weight_BL


def text_sums(nll_BL: Tensor, weight_BL: Tensor) -> Tensor:
    """float64 [B, 2]: each text's weighted sum of negative log-likelihoods in nats, and its sum of weights."""
    nll_BL = torch.where(weight_BL > 0, nll_BL.double(), 0.0)
    return torch.stack([(nll_BL * weight_BL).sum(1), weight_BL.sum(1)], dim=1)


def perplexity_columns(sums_N2: Columns, protocol: Protocol) -> Columns:
    """float64 [N, 2]: what of each text's (nll, weight) sums is added up under the protocol's average; texts of weight zero (one token,
    unscored) are left out."""
    scored_N2 = sums_N2[sums_N2[:, 1] > 0]
    if protocol.average == "texts":
        return np.stack([scored_N2[:, 0] / scored_N2[:, 1], np.ones(len(scored_N2))], axis=1)
    return scored_N2


def perplexity(sums_2: Columns) -> float:
    """Perplexity from the column sums of ``perplexity_columns``; inf beyond the largest number."""
    try:
        return math.exp(sums_2[0] / sums_2[1])
    except OverflowError:
        return math.inf
