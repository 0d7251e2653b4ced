"""What a process is: a corruption of clean states, the loss that teaches a network to undo it, and how to sample.

A process is a frozen dataclass of its settings with methods of pure maths: the network is an argument; no optimiser, rank or
logging. Adding one is one file here plus one line in ``elf/processes/__init__.py``.

Shapes: B rows of a micro-batch, L tokens, C latent channels, V vocabulary, K noise-level buckets, P named loss parts.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from elf.batch import Batch
from elf.draws import Draws
from elf.nn.config import NetworkConfig, Precision
from elf.sampling.condition import Condition
from elf.sampling.config import SampleConfig
from elf.sampling.result import Samples
from elf.settings import Settings

LEVELS = 10
"""K: loss is also booked by noise level, bucket k holding t in [k/10, (k+1)/10); t = 0 is noise, t = 1 is data."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Sums and counts of one micro-batch, never means: the loop divides by the count of the whole global batch."""

    total: Tensor  # float32 scalar with a graph: the sum to minimise
    parts_P2: Tensor  # float64 [P, 2], (sum, count) for each of process.part_names, no graph
    levels_K2: Tensor  # float64 [K, 2], (sum, count) of the main loss by noise level, no graph


class Process(Settings, abc.ABC):
    """A generative process over rows of tokens."""

    prefix: ClassVar[str] = "process."

    kind: ClassVar[str]
    """Name in configs and artefacts."""
    part_names: ClassVar[tuple[str, ...]]
    """Names of the loss parts, in the order of ``Loss.parts_P2``."""
    total_parts: ClassVar[tuple[int, ...]]
    """Indices of the parts whose sums add up to ``Loss.total``; any other part is a diagnostic."""
    needs_codec: ClassVar[bool]
    """True when ``loss`` wants clean states x0 of a codec, False when it works on token ids."""

    @abc.abstractmethod
    def build_network(
        self, network: NetworkConfig, *, vocab_size: int, channels: int, length: int, precision: Precision = "fp32",
        activation_checkpointing: bool = False,
    ) -> nn.Module:
        """A freshly initialised network for this process (parameters float32; ``precision`` is the autocast of the trunk)."""

    @abc.abstractmethod
    def count(self, batch: Batch) -> Tensor:
        """float64 scalar: how many token positions of these rows the loss averages over (both branches, filler rows excluded)."""

    def draw(self, draws: Draws, batch: Batch, channels: int) -> Any:
        """All random tensors that ``loss`` needs for this micro-batch; a plain structure, so that tests can write it by hand.

        If it has an attribute ``drop_condition_B`` (bool), the codec is told to hide the condition of those rows."""
        return None

    def times(self, drawn: Any) -> Tensor | None:
        """The training times among ``drawn``, for the report's histogram; None for a process without time."""
        return None

    @abc.abstractmethod
    def loss(self, network: nn.Module, batch: Batch, state_BLC: Tensor | None, drawn: Any) -> Loss:
        """Sums and counts for one micro-batch. Makes the same module calls whatever the branches, as ZeRO-3 demands."""

    @abc.abstractmethod
    def check_sampling(self, config: SampleConfig, *, conditional: bool) -> None:
        """Raises ValueError for a sampler, grid or guidance that this process does not have, naming those that it has.

        conditional: the model was trained with sources, so that classifier-free guidance has something to leave out."""

    @abc.abstractmethod
    def sample(
        self, network: nn.Module, draws: Draws, *, length: int, channels: int, config: SampleConfig,
        condition: Condition | None = None, eos_id: int | None = None, pad_id: int = 0, record: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Samples:
        """len(draws.rows) rows of ``length`` tokens; row i's noise depends on (draws.seed, draws.rows[i]) alone.

        condition: tokens given at the head of each row. The samples then hold the generated tokens alone, moved to the head, at
        most condition.target_length of them. Raises ValueError like ``check_sampling``.
        ids at and after the first ``eos_id`` are replaced by ``pad_id``. ``record``: also decode the estimate of this many
        steps, evenly spaced among the sampler's. ``progress(done, total)`` is called after each step."""


def bucket_by_level(t_B: Tensor, loss_B: Tensor, count_B: Tensor) -> Tensor:
    """float64 [K, 2] sums of per-row losses and counts by noise level t."""
    index_B = (t_B.detach().double() * LEVELS).long().clamp(0, LEVELS - 1)
    levels_K2 = torch.zeros(LEVELS, 2, dtype=torch.float64, device=t_B.device)
    return levels_K2.index_add_(0, index_B, torch.stack([loss_B.detach().double(), count_B.detach().double()], dim=1))


def target_mask(batch: Batch, *, padding: bool) -> Tensor:
    """float32 [B, L]: 1 where a position counts in a loss: no condition, no filler row, and no padding unless ``padding``."""
    mask_BL = ~batch.condition_BL
    if not padding:
        mask_BL = mask_BL & batch.valid_BL
    return mask_BL * batch.weight_B[:, None]
