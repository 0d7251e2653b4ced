"""jobs/evaluate.py: what the command line asks for, done."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro

from elf.artefact import load_artefact
from elf.metrics.perplexity import PROTOCOLS
from elf.nn.config import Precision
from elf.settings import Bounds, Count, Positive, Settings
from elf_platform.commands import job_command
from elf_platform.config import TrackingConfig
from elf_platform.config_io import default_storage
from elf_platform.evaluate.compare import check_current, compare, score_table
from elf_platform.evaluate.judge import NO_JUDGE, is_artefact, load_judge
from elf_platform.evaluate.losses import score_artefact
from elf_platform.evaluate.metrics import Resampling
from elf_platform.evaluate.record import ScoreRecord, check_complete, load_record, place_of, save_record
from elf_platform.evaluate.score import Measure, score
from elf_platform.evaluate.scoring import BATCH_TOKENS, Run
from elf_platform.evaluate.texts import Texts, Unit, read_references, read_texts
from elf_platform.evaluate.track import track_record

_JUDGE_OPTIONS = ("protocol", "tokens", "precision", "batch_tokens", "threads", "actors")
_TEXT_OPTIONS = (
    "judge", "reference", "references", "controls", "protocol", "tokens", "unit", "batch_tokens", "actors",
    "references_column", "text_column",
)


@dataclass(frozen=True, kw_only=True)
class EvaluateCommand(Settings):
    """Score samples, a text or an artefact, and leave a score record."""

    subject: Annotated[Path, tyro.conf.Positional]
    """A folder of samples (jobs/sample.py --out); a file of text, or a folder of them, in any format that data are prepared from; prepared
    data; or an artefact."""
    judge: str = ""
    """hf:gpt2-large, a folder of a Hugging Face causal model, an artefact of the autoregressive process, or none."""
    reference: Path | None = None
    """Real text to score the same way and to take MAUVE against: whatever a subject may be, but an artefact. As many texts are read."""
    references: Path | None = None
    """The targets of the sources or texts, in their order, for BLEU and ROUGE: lines of .txt, or a column. A list holds several for one."""
    references_column: str = ""
    """Column of the references, by name or, where the first line holds no names, by number; empty for text, target or reference."""
    controls: bool = False
    """Also score the reference with its words shuffled, and words drawn from its frequencies."""
    protocol: str = "elf"
    """How tokens enter perplexity: elf (the paper's code), elf-macro, once, no-end or bos (docs/scores.md)."""
    tokens: Count = 0
    """Judge tokens of a text at most, the rest is cut; 0 for the judge's limit."""
    count: Count = 0
    """Texts at most, the first ones; 0 for all."""
    unit: Unit = "paragraph"
    """What one text of a .txt file is."""
    text_column: str = ""
    """Column of the texts, of the subject and --reference alike, in files that have columns: a name, or a number; empty for text."""
    data: Path | None = None
    """For an artefact: prepared data whose validation rows it is measured on."""
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
    storage: Path = Path("")
    """Folder for records and the tracking store; empty for $ELF_HOME, or ~/elf-runs."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol is {self.protocol!r}, but there are {', '.join(PROTOCOLS)}")
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


def evaluate(command: EvaluateCommand) -> ScoreRecord:
    """Score, print the table, write the record and track it. Raises ValueError or OSError for what cannot be scored."""
    storage = command.storage.expanduser() if command.storage != Path("") else default_storage()
    subject = command.subject.expanduser()
    record = _of_artefact(command) if is_artefact(subject) else _of_texts(command)
    folder = subject if record.subject["kind"] == "samples" else storage / "scores" / f"{record.name}-{record.subject['sha256'][:8]}"
    check_complete(record, str(command.out or folder))
    out = command.out.expanduser() if command.out else place_of(record, folder.expanduser())
    save_record(record, out)
    sys.stdout.write(score_table(record) + "\n")
    sys.stdout.write(f"\nrecord  {out}\n")
    command_line = track_record(record, out, storage=storage.expanduser(), tracking=command.tracking)
    if command_line:
        sys.stdout.write(f"MLflow  {command_line}\n")
    return record


def compare_records(command: CompareCommand) -> str:
    """The comparison, printed. Raises ValueError for a record that is broken, incomplete, or of samples that are no longer there."""
    for path in command.records:
        check_current(path.expanduser())
    text = compare([load_record(path.expanduser()) for path in command.records])
    sys.stdout.write(text + "\n")
    return text


def _of_texts(command: EvaluateCommand) -> ScoreRecord:
    if command.data is not None:
        raise ValueError("data has no effect on texts: it is what an artefact is measured on; drop --data, or give it as --reference")
    if not command.judge:
        raise ValueError(
            f"no judge is given; give --judge hf:gpt2-large, a folder, or an artefact of an autoregressive run, or --judge {NO_JUDGE} for "
            "the scores that need none"
        )
    if command.judge == NO_JUDGE and (without := _changed(command, *_JUDGE_OPTIONS)):
        raise ValueError(f"{', '.join(without)} cannot be used with --judge {NO_JUDGE}: there is no judge to apply them to; drop them")
    whole = read_texts(command.subject, unit=command.unit, column=command.text_column)
    subject = whole.first(command.count)
    # As many texts as the subject: distinct-n and MAUVE move with the number of texts.
    reference = None
    if command.reference:
        reference = read_texts(command.reference, unit=command.unit, column=command.text_column).first(len(subject.texts))
    targets = _targets(command, whole)[: len(subject.texts)] if command.references else None
    torch.set_num_threads(command.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    judge = None if command.judge == NO_JUDGE else load_judge(command.judge, precision=command.precision, device=device)
    measure = Measure(
        judge=judge, protocol=PROTOCOLS[command.protocol], limit=command.tokens, budget=command.batch_tokens, threads=command.threads,
        resampling=Resampling(resamples=command.resamples, seed=command.seed), progress=True,
    )
    with _actors(command, device) as (run, device):
        if judge is not None:
            judge.card = replace(judge.card, device=device)  # of the machines that judge
        return score(
            replace(measure, run=run), subject, name=command.name or _name(command.subject), reference=reference, targets=targets,
            with_controls=command.controls,
        )


@contextlib.contextmanager
def _actors(command: EvaluateCommand, device: str) -> Iterator[tuple[Run | None, str]]:
    """Where batches are scored (None for this process), and the device they are scored on there."""
    if not command.actors or command.judge == NO_JUDGE:
        yield None, device
        return
    from elf_platform.evaluate.pool import run_on_actors
    from elf_platform.runtime import connect, native_stderr_off
    from elf_platform.sampling.pool import plan_pool, sampling_device

    source = command.judge if command.judge.startswith("hf:") else str(Path(command.judge).expanduser().absolute())
    with connect() as cluster, native_stderr_off():
        device, note = sampling_device("auto", cluster)
        if note:
            sys.stderr.write(f"judging {note}\n")
        pool = plan_pool(cluster, actors=command.actors, threads=command.threads, device=device, parts=command.actors)
        yield (
            run_on_actors(
                source, precision=command.precision, device=device, protocol=command.protocol, threads=command.threads, pool=pool
            ),
            device,
        )


def _of_artefact(command: EvaluateCommand) -> ScoreRecord:
    if texts_only := _changed(command, *_TEXT_OPTIONS):
        raise ValueError(
            f"{', '.join(texts_only)} cannot be used on an artefact, which is measured on prepared rows: its texts are scored once they "
            f"are there. Sample first, and give SAMPLES:\n    "
            + job_command("sample", command.subject, "--count", "512", "--out", "SAMPLES")
        )
    if command.data is None:
        raise ValueError(
            f"{command.subject} is an artefact, and its losses are measured on prepared rows: give --data, the folder data/KEY that it was "
            "trained on. For scores of its texts sample first (jobs/sample.py --out) and give the samples"
        )
    torch.set_num_threads(command.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    artefact = load_artefact(command.subject.expanduser(), device=device, precision=command.precision)
    return score_artefact(
        artefact, command.data.expanduser(), name=command.name or _name(command.subject), count=command.count, seed=command.seed,
        device=device, precision=command.precision, resampling=Resampling(resamples=command.resamples, seed=command.seed),
    )


def _changed(command: EvaluateCommand, *names: str) -> list[str]:
    """Those of the options that are not as they are by default."""
    return [option.name for option in fields(command) if option.name in names and getattr(command, option.name) != option.default]


def _targets(command: EvaluateCommand, subject: Texts) -> list[list[str]]:
    """The references of each text of the whole subject, repeated where several were sampled from one source.

    Raises ValueError when there are not some for each."""
    assert command.references is not None
    references = read_references(command.references, command.references_column)
    wanted = len(subject.texts) // subject.per_source
    if len(references) != wanted:
        raise ValueError(
            f"{command.references} holds {len(references)} references, but {subject.path} {wanted} texts or sources: one line "
            "belongs to each, in the same order; give the references of these very sources, all of them with --count too"
        )
    return [some for some in references for _ in range(subject.per_source)]


def _name(subject: Path) -> str:
    """artefact says nothing of its run; its folder's name does."""
    path = subject.expanduser().absolute()
    return path.parent.name if path.name == "artefact" else path.stem


