"""jobs/evaluate.py: what the command line asks for, done."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import torch

from elf.artefact import load_artefact
from elf.metrics.perplexity import PROTOCOLS
from elf_platform.commands import job_command
from elf_platform.config_io import default_storage
from elf_platform.evaluate.compare import check_current, compare, score_table
from elf_platform.evaluate.judge import NO_JUDGE, judge_source, load_judge
from elf_platform.evaluate.losses import score_artefact
from elf_platform.evaluate.metrics import Resampling
from elf_platform.evaluate.options import JUDGE_OPTIONS, TEXT_OPTIONS, CompareCommand, EvaluateCommand
from elf_platform.evaluate.record import ScoreRecord, check_complete, load_record, place_of, save_record
from elf_platform.evaluate.score import Measure, score
from elf_platform.evaluate.scoring import Run
from elf_platform.evaluate.texts import Texts, read_references, read_texts
from elf_platform.evaluate.track import track_record
from elf_platform.lookup import is_artefact, is_run, resolve
from elf_platform.tracking.runs import store_uri
from elf_platform.writable import check_place


def evaluate(command: EvaluateCommand) -> ScoreRecord:
    """Score, print the table, write the record and track it. Raises ValueError or OSError for what cannot be scored."""
    storage = command.storage.expanduser().absolute() if command.storage is not None else default_storage()
    command = replace(command, storage=storage, subject=_subject(command.subject, storage))
    subject = command.subject
    if command.tracking.kind == "mlflow":
        store_uri(command.tracking.uri, storage)
    check_place(command.out.expanduser().parent if command.out else storage, "--out" if command.out else "--storage")
    record = _of_artefact(command) if is_artefact(subject) else _of_texts(command)
    folder = subject if record.subject["kind"] == "samples" else storage / "scores" / f"{record.name}-{record.subject['sha256'][:8]}"
    check_complete(record, str(command.out or folder))
    out = command.out.expanduser() if command.out else place_of(record, folder.expanduser())
    save_record(record, out)
    sys.stdout.write(score_table(record) + "\n")
    sys.stdout.write(f"\nrecord  {out}\n")
    command_line = track_record(record, out, storage=storage, tracking=command.tracking)
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
        raise ValueError("data has no effect on texts: it is what an artefact is measured on; drop --data, or give it as --real_text")
    if not command.judge:
        raise ValueError(
            f"no judge is given; give --judge hf:gpt2-large, a folder, or an artefact of an autoregressive run, or --judge {NO_JUDGE} for "
            "the scores that need none"
        )
    if command.judge == NO_JUDGE and (without := _changed(command, *JUDGE_OPTIONS)):
        raise ValueError(f"{', '.join(without)} cannot be used with --judge {NO_JUDGE}: there is no judge to apply them to; drop them")
    if command.judge != NO_JUDGE:
        judge_source(command.judge, command.storage)  # a judge that is missing is told before anything is read
    whole = read_texts(command.subject, unit=command.unit, column=command.text_column)
    subject = whole.first(command.count)
    # As many texts as the subject: distinct-n and MAUVE move with the number of texts.
    reference = None
    if command.real_text:
        place = _prepared(command.real_text, command.storage)
        reference = read_texts(place, unit=command.unit, column=command.text_column).first(len(subject.texts))
    targets = _targets(command, whole)[: len(subject.texts)] if command.references else None
    torch.set_num_threads(command.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    judge = None
    if command.judge != NO_JUDGE:
        judge = load_judge(command.judge, precision=command.precision, device=device, storage=command.storage)
    measure = Measure(
        judge=judge, protocol=PROTOCOLS[command.protocol], limit=command.tokens, budget=command.batch_tokens, threads=command.threads,
        resampling=Resampling(resamples=command.resamples, seed=command.seed), progress=True, bleu_tokenize=command.bleu_tokenize,
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

    source = judge_source(command.judge, command.storage)
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
    if texts_only := _changed(command, *TEXT_OPTIONS):
        raise ValueError(
            f"{', '.join(texts_only)} cannot be used on an artefact, which is measured on prepared rows: its texts are scored once they "
            f"are there. Sample first, and give SAMPLES:\n    "
            + job_command("sample", command.subject, "--count", "512", "--out", "SAMPLES")
        )
    try:
        data = resolve(command.data or command.subject, "data", storage=command.storage)
    except FileNotFoundError as error:
        if command.data is not None:
            raise
        raise ValueError(
            f"{command.subject} is an artefact, and its losses are measured on prepared rows, but those that it was trained on are not in "
            f"{command.storage}: give --data, a folder of prepared data or a run. For scores of its texts sample first (jobs/sample.py "
            "--out) and give the samples"
        ) from error
    torch.set_num_threads(command.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    artefact = load_artefact(command.subject, device=device, precision=command.precision)
    return score_artefact(
        artefact, data, name=command.name or _name(command.subject), count=command.count, seed=command.seed,
        device=device, precision=command.precision, resampling=Resampling(resamples=command.resamples, seed=command.seed),
    )


def _subject(subject: Path, storage: Path) -> Path:
    """The folder or file to score: a path that is there, a run's artefact, or the artefact of the run of that name."""
    path = subject.expanduser().absolute()
    return path if path.exists() and not is_run(path) else resolve(subject, "artefact", storage=storage)


def _prepared(real_text: Path, storage: Path | None) -> Path:
    """Where text by people is: a path that is there, else, or of a run, the prepared data."""
    path = real_text.expanduser().absolute()
    return path if path.exists() and not is_run(path) else resolve(real_text, "data", storage=storage)


def _changed(command: EvaluateCommand, *names: str) -> list[str]:
    """Those of the options that are not as they are by default."""
    return [option.name for option in fields(command) if option.name in names and getattr(command, option.name) != option.default]


def _targets(command: EvaluateCommand, subject: Texts) -> list[list[str]]:
    """The references of each text of the whole subject, repeated where several were sampled from one source.

    Raises ValueError when there are not some for each."""
    assert command.references is not None
    references = read_references(command.references, command.references_column, remembered=subject.target_column)
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


