"""Models in a notebook or a script: load a run or an artefact, sample, translate, complete, score, and ask for the loss of texts.

    import elf_platform
    model = elf_platform.load("my-run")
    model.sample(4)

A thin face on what the jobs use: the same checks, the same draws, and the same texts as ``jobs/sample.py`` prints (docs/python.md).

Shapes: B rows of a batch, L tokens of a row.
"""

import contextlib
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elf.artefact import Artefact, load_artefact
from elf.batch import Batch
from elf.data.order import Int64
from elf.data.packing import flatten, pack
from elf.data.pairs import pack_pairs
from elf.data.tokenizer import Tokenizer, normalise, well_formed
from elf.nn.config import Precision
from elf.sampling.config import SampleConfig
from elf_platform.config_io import unknown_key
from elf_platform.evaluate.compare import score_table
from elf_platform.evaluate.judge import NO_JUDGE, load_judge
from elf_platform.evaluate.losses import MICRO_BATCH, artefact_losses
from elf_platform.evaluate.record import ScoreRecord
from elf_platform.evaluate.score import Measure
from elf_platform.evaluate.score import score as score_texts
from elf_platform.evaluate.texts import Texts, given
from elf_platform.lookup import resolve
from elf_platform.runtime import this_machine, usable_cpus
from elf_platform.sampling.command import SampleCommand, check
from elf_platform.sampling.pool import sampling_device
from elf_platform.sampling.rows import Sampler, fix_arithmetic, sample_batch
from elf_platform.sampling.settings import SETTINGS

_SETTINGS = (*SETTINGS, "count", "compute_batch", "per_source", "strict", "threads")


class Model:
    """A trained model in this process, made by ``load``."""

    def __init__(self, artefact: Artefact, *, precision: Precision) -> None:
        self.artefact, self.precision = artefact, precision

    def __repr__(self) -> str:
        sizes = self.artefact.sizes
        kind = f"sources of up to {sizes.source_length} tokens" if sizes.source_length else "no sources"
        return f"<{self.artefact.process.kind} model, rows of {sizes.length} tokens, {kind}, from {self.artefact.folder}>"

    def sample(self, count: int = 4, **settings: Any) -> list[str]:
        """``count`` texts from nothing; sample i depends on the seed and i alone.

        settings: of the sampler (``steps=64, sampler="ode", seed=3``), over those that the artefact keeps, and ``compute_batch``.
        Raises ValueError for settings that the model does not have, and for a conditional model, which needs sources."""
        if self.artefact.sizes.source_length:
            raise ValueError(f"{self.artefact.folder} is a conditional model: it answers sources; give them to translate()")
        return self._draw(None, count=count, **settings)

    def translate(self, sources: str | Sequence[str], **settings: Any) -> list[str]:
        """An answer for each source of a conditional model; an empty source has an empty answer. settings: as for ``sample``.

        Raises ValueError for a model without sources."""
        if not self.artefact.sizes.source_length:
            raise ValueError(
                f"{self.artefact.folder} was trained on plain text, so it has nothing to translate with; use sample(), complete() of an "
                "autoregressive model, or load a conditional run"
            )
        return self._draw(_several(sources), **settings)

    def complete(self, prompts: str | Sequence[str], **settings: Any) -> list[str]:
        """What an autoregressive model writes after each prompt; the prompt itself is left out. settings: as for ``sample``.

        Raises ValueError for a model that cannot continue a text."""
        if self.artefact.sizes.source_length:
            raise ValueError(f"{self.artefact.folder} is a conditional model: it answers sources and continues no text; use translate()")
        if self.artefact.process.needs_codec:
            raise ValueError(f"{self.artefact.folder} ({self.artefact.process.kind}) continues no text; use sample()")
        return self._draw(_several(prompts), **settings)

    def loss(
        self, texts: str | Sequence[str], *, sources: str | Sequence[str] | None = None, draws: int = 16, seed: int = 0
    ) -> dict[str, float]:
        """Losses over all tokens of ``texts``, as training validates them.

        A text is a row of its own, a long one several rows. sources: of a conditional model, one for each text. draws: of noise and
        branches that each row is measured with, fixed by ``seed``; a process without noise needs none. The figures are named as in a
        run's log without "valid/" (docs/metrics.md), those by noise level left out. Raises ValueError for texts without a token, and for
        sources where none belong or are missing."""
        if not isinstance(draws, int) or draws < 1:
            raise ValueError(f"draws is {draws!r}, but a whole number was expected, at least 1, of draws that each text is measured with")
        SampleConfig(seed=seed)  # refuses one that is none
        repeats = draws if self.artefact.process.needs_codec else 1
        rows = _TextRows(_several(texts), None if sources is None else _several(sources), self.artefact, repeats=repeats)
        figures = artefact_losses(self.artefact, rows, count=len(rows), micro_batch=MICRO_BATCH, seed=seed, device=self._device)
        return {name.removeprefix("valid/"): value for name, value in figures.items() if "/level/" not in name}

    @property
    def _device(self) -> torch.device:
        return next(self.artefact.network.parameters()).device

    def _draw(self, sources: Sequence[str] | None, **settings: Any) -> list[str]:
        for name in settings:
            if name not in _SETTINGS:
                raise ValueError(unknown_key(name, _SETTINGS))
        command = SampleCommand(
            artefact=self.artefact.folder, precision=self.precision, given=tuple(n for n in SETTINGS if n in settings),
            prompt=None if sources is None else "", **settings,  # stands for the sources
        )
        task = check(command, self.artefact, threads=command.threads or usable_cpus(), texts=sources)
        device = self._device
        task = task.placed(device=device.type, compute_batch=min(command.compute_batch, max(task.config.count, 1)))
        sampler = Sampler(
            artefact=self.artefact, network=self.artefact.network, config=task.config, target_length=task.run.target_length, device=device
        )
        with _fixed_arithmetic(task.run.threads):
            return [
                row["text"]
                for part, keep in enumerate(task.sizes)
                for row in sample_batch(sampler, task.ids(part), task.sources_of(part), keep)
            ]


def load(model: str | Path, *, storage: str | Path | None = None, gpu: str = "auto", precision: Precision = "fp32") -> Model:
    """The model of a run's name, a run's folder or an artefact's folder, ready on a GPU where there is one (``gpu``: auto, on or off).

    storage: where runs are looked up by name; None for $ELF_HOME, or ~/elf-runs. precision: of the network's trunk, fp32 or bf16.
    Raises FileNotFoundError or ValueError, saying what lies there instead, when it is no finished model."""
    SampleCommand(artefact=Path(model), gpu=gpu, precision=precision)  # type: ignore[arg-type]  # refuses words that it does not know
    device, _ = sampling_device(gpu, this_machine(torch.cuda.device_count()))
    folder = resolve(model, "artefact", storage=Path(storage) if storage is not None else None)
    artefact = load_artefact(folder, device=device, precision=precision)
    return Model(artefact, precision=precision)


def score(
    texts: Sequence[str], *, judge: str = NO_JUDGE, references: Sequence[str | Sequence[str]] | None = None,
    real: Sequence[str] | None = None, name: str = "texts", storage: str | Path | None = None,
) -> ScoreRecord:
    """The score record of ``texts``: diversity and repetition; with a ``judge`` (hf:NAME, a folder, or the name of an autoregressive run)
    generative perplexity and entropy; with ``references`` (one or several for each text) BLEU and ROUGE; with ``real`` text to compare
    with, its figures beside them and MAUVE. storage: where runs are looked up.

    ``record.scores["bleu"].value`` is a figure, with ``low`` and ``high`` where it has an interval; ``show(record)`` prints the table.
    Raises ValueError for texts that cannot be scored so."""
    place = Path(storage) if storage is not None else None
    measure = Measure(judge=None if judge == NO_JUDGE else load_judge(judge, storage=place), threads=torch.get_num_threads())
    targets = None if references is None else [_several(each) for each in references]
    return score_texts(measure, _given(texts), name=name, reference=_given(real) if real is not None else None, targets=targets)


def show(record: ScoreRecord) -> None:
    """Print the table of a score record, as jobs/evaluate.py does."""
    sys.stdout.write(score_table(record) + "\n")


class _TextRows:
    """Texts as rows of an artefact's length, in memory; what ``train.feed.Rows`` asks for."""

    def __init__(self, texts: Sequence[str], sources: Sequence[str] | None, artefact: Artefact, *, repeats: int) -> None:
        sizes, tokenizer = artefact.sizes, artefact.tokenizer
        if bool(sizes.source_length) != (sources is not None):
            said = "is a conditional model, so each text needs its source: give sources=[...]"
            raise ValueError(f"{artefact.folder} {said if sources is None else 'was trained without sources; leave sources away'}")
        ids = _encode(texts, tokenizer)
        if sources is None:
            ids = [row for row in ids if row]
            tokens_N, length_D = flatten(ids)
            packed = pack(
                tokens_N, length_D, length=sizes.length, mode="document", eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id
            )
        else:
            if len(sources) != len(texts):
                raise ValueError(
                    f"there are {len(texts)} texts but {len(sources)} sources; one source belongs to each text, in the same order"
                )
            packed = pack_pairs(
                _encode(sources, tokenizer), ids, length=sizes.length, source_length=sizes.source_length, eos_id=tokenizer.eos_id
            )
        if not any(ids):
            raise ValueError(f"there is no text to measure: all {len(texts)} texts are empty")
        self._repeats = repeats
        self._batch = Batch.of_ids(
            torch.from_numpy(packed.ids_RL.astype(np.int64)), torch.from_numpy(packed.length_R.astype(np.int64)),
            torch.from_numpy(packed.cond_length_R.astype(np.int64)),
        )

    def __len__(self) -> int:
        return self._repeats * len(self._batch.length_B)

    def read(self, rows: Int64) -> Batch:
        """The rows at these indices; behind the last text the first one comes again, for other draws."""
        index_B = torch.from_numpy(np.asarray(rows) % len(self._batch.length_B))
        return Batch(**{name: value[index_B] for name, value in vars(self._batch).items()})


def _encode(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Token ids of each text, normalised as prepared data is."""
    return tokenizer.encode_batch([normalise(text).strip() for text in texts])


def _several(texts: str | Sequence[str]) -> list[str]:
    """One text or many, as a list. Raises ValueError for what is no text."""
    if not isinstance(texts, Iterable) or isinstance(texts, Mapping):
        raise ValueError(f"texts are {type(texts).__name__} ({texts!r:.60}), but a string or a list of strings was expected; convert them")
    many = [texts] if isinstance(texts, str) else list(texts)
    for number, text in enumerate(many):
        if not isinstance(text, str):
            raise ValueError(f"text {number} is {type(text).__name__} ({text!r:.60}), but a string was expected; convert it")
    return [well_formed(text) for text in many]


def _given(texts: Sequence[str]) -> Texts:
    return Texts(kind="text", path="texts given in Python", form="texts given in Python", texts=_several(texts), sampling=given())


@contextlib.contextmanager
def _fixed_arithmetic(threads: int) -> Iterator[None]:
    """As jobs/sample.py computes, so that the texts are the same; what is set for that is put back, since this process is the user's."""
    before = (
        torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision(),
    )
    with warnings.catch_warnings():
        fix_arithmetic(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.use_deterministic_algorithms(before[1], warn_only=before[2])
            torch.utils.deterministic.fill_uninitialized_memory = before[3]  # type: ignore[attr-defined]
            torch.backends.cudnn.benchmark = before[4]
            torch.set_float32_matmul_precision(before[5])
