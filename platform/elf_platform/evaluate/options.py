"""The command line of jobs/evaluate.py."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from elf.metrics.overlap import BleuTokens, bleu_metric
from elf.nn.config import Precision
from elf.settings import Bounds, Count, Positive, Settings
from elf_platform.config import TrackingConfig
from elf_platform.evaluate.scoring import BATCH_TOKENS
from elf_platform.evaluate.texts import Unit
from elf_platform.terminal import say

JUDGE_OPTIONS = ("protocol", "tokens", "precision", "batch_tokens", "threads", "actors")
TEXT_OPTIONS = (
    "judge", "real_text", "references", "controls", "protocol", "tokens", "unit", "batch_tokens", "actors",
    "references_column", "text_column", "bleu_tokenize",
)
OLD_NAMES = {"reference": "real_text"}
"""Options that were called otherwise."""


@dataclass(frozen=True, kw_only=True)
class EvaluateCommand(Settings):
    """Score samples, a text or an artefact, and leave a score record."""

    subject: Annotated[Path, tyro.conf.Positional]
    """A folder of samples (jobs/sample.py --out); a file of text, or a folder of them, in any format that data are prepared from; prepared
    data; an artefact; or a run, by its folder or name, which stands for its artefact."""
    judge: str = ""
    """hf:gpt2-large, a folder of a Hugging Face causal model, an autoregressive run (its name, folder or artefact), or none."""
    real_text: Path | None = None
    """Text by people, scored the same way for scale, and what MAUVE is taken against: a file or folder of text, samples, prepared data, or
    a run, which stands for its data. As many texts of it are read as there are to score."""
    references: Path | None = None
    """The right answers, one for each source or text in their order, for BLEU and ROUGE: lines of .txt, or a column. A list holds several
    right answers for one."""
    references_column: str = ""
    """Column of the references, by name or, where the first line holds no names, by number; empty for the one that the model learned
    from, or text, target or reference."""
    bleu_tokenize: Literal["auto"] | BleuTokens = "auto"
    """sacrebleu's tokenizer for BLEU and self-BLEU. auto goes by the script of the references: zh for Chinese, char for Japanese and other
    scripts without spaces, else 13a."""
    controls: bool = False
    """Also score the real text with its words shuffled, and words drawn from its frequencies."""
    protocol: Literal["elf", "elf-macro", "once", "no-end", "bos"] = "elf"
    """How tokens enter perplexity: elf is the paper's code (docs/scores.md)."""
    tokens: Count = 0
    """Judge tokens of a text at most, the rest is cut; 0 for the judge's limit."""
    count: Count = 0
    """Texts at most, the first ones; 0 for all."""
    unit: Unit = "paragraph"
    """What one text of a .txt file is."""
    text_column: str = ""
    """Column of the texts, of the subject and --real_text alike: a name, or a number from 1 where the first line holds none. Empty for
    text, and for whole paragraphs or lines of .txt, which is tab-separated with a column."""
    data: Path | None = None
    """For an artefact: prepared data whose validation rows it is measured on, or a run that was trained on them; the artefact's own where
    none are named and they are in the storage."""
    precision: Precision = "fp32"
    """Of the judge, or of the artefact that is measured."""
    batch_tokens: Positive = BATCH_TOKENS
    """Tokens of one judge batch."""
    threads: Annotated[int, Bounds(least=1, most=10_000)] = 1
    """CPU threads of each judge; figures may differ in the last digits between numbers of threads, so the record holds it."""
    actors: Annotated[int, Bounds(least=0, most=100_000)] = 0
    """Judges at work at the same time, as Ray actors; 0 for one in this process. The figures are the same."""
    resamples: Annotated[int, Bounds(least=0, most=1_000_000)] = 1000
    """Bootstrap resamples of the texts for 95 % intervals; 0 for none."""
    seed: Annotated[int, Bounds(least=0, most=2**32 - 1)] = 0
    """Of resampling, controls, k-means and the choice of texts for self-BLEU."""
    name: str = ""
    """Of the record; empty for the subject's name."""
    out: Path | None = None
    """File of the record; default: score.json in the sample folder, else under scores/NAME-KEY in the storage; score-KEY.json where a
    record that was measured in another way is there already."""
    storage: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(default: $ELF_HOME, or ~/elf-runs)")] = None
    """Folder for records and the tracking store, and in which runs are found by their names."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bleu_tokenize != "auto":
            bleu_metric(self.bleu_tokenize, lowercase=True)  # refuses one whose packages are missing before any work
        if self.references_column and self.references is None:
            raise ValueError("references_column names a column of --references, but none are given; give them, or leave it away")


@dataclass(frozen=True, kw_only=True)
class CompareCommand(Settings):
    """Print score records side by side and mark where their protocols differ."""

    records: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Files, or folders that hold a score.json."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.records:
            raise ValueError("there is nothing to compare; give score records: python jobs/evaluate.py compare A/score.json B/score.json")


def with_new_names(argv: Sequence[str]) -> list[str]:
    """The words of a command line with options by the names that they have now, and a notice for each that had another."""
    words = []
    for word in argv:
        option, equals, value = word.partition("=")
        if option.startswith("--") and (new := OLD_NAMES.get(option[2:])):
            say(f"{option} is called --{new} now, apart from --references, the right answers; the old word still works")
            word = f"--{new}{equals}{value}"
        words.append(word)
    return words
