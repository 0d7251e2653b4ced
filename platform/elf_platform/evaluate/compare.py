"""Score records side by side, and in what their protocols differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from rich.table import Table

from elf.metrics.bootstrap import Estimate
from elf_platform.commands import job_command
from elf_platform.evaluate.record import Facts, ScoreRecord, Scores, load_record
from elf_platform.sampling.folder import MANIFEST, read_manifest
from elf_platform.terminal import Terminal, harmless

LABELS = {
    "gen_ppl": "Gen. PPL",
    "entropy": "entropy",
    "entropy_own": "entropy (own ids)",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "distinct_3": "distinct-3",
    "self_bleu": "self-BLEU",
    "mauve": "MAUVE",
    "bleu": "BLEU",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "decoder_accuracy": "decoder accuracy",
    "nll": "NLL",
}
"""Columns, in this order; other scores follow under their own names."""

MEASURE = ("judge.", "protocol.", "subject.form", "subject.scored", "subject.tokens_at_most")
"""Facts of the measure: where they differ, the figures do not compare. The other facts are what is compared."""
ALWAYS_DIFFER = (
    "subject.path", "subject.sha256", "subject.texts", "subject.empty", "subject.truncated", "subject.tokens", "subject.tokens_judged",
    "subject.unended", "sampling.settings", "sampling.samples_sha256",
)


def check_current(path: Path) -> None:
    """ValueError when the record at ``path`` lies in a sample folder whose samples were replaced or extended since."""
    folder, record = path if path.is_dir() else path.parent, load_record(path)
    scored = record.sampling.get("samples_sha256")
    if scored is None or not (folder / MANIFEST).is_file():
        return
    if read_manifest(folder)["jsonl"]["sha256"] != scored:
        raise ValueError(
            f"the score record at {path} is of other samples than {folder} holds now: they were replaced or extended since; evaluate "
            f"again:\n    {job_command('evaluate', folder)}"
        )


def score_table(record: ScoreRecord) -> str:
    """The record and the texts beside it, one line each, and what is to be said of the figures."""
    rows = [_row(record), *(Row(f"  {name}", scores, record.beside_subjects.get(name, {})) for name, scores in record.beside.items())]
    return harmless("\n".join([_table(rows), *(["", *record_notes(record)] if record_notes(record) else [])]))


def record_notes(record: ScoreRecord) -> list[str]:
    """What a reader of the figures has to know: texts that are empty or were judged in part, and scores that are not defined."""
    notes = []
    for name, facts in {"": record.subject, **record.beside_subjects}.items():
        of = f"{name}: " if name else ""
        if facts.get("empty"):
            after = "; they count as wrong in BLEU and ROUGE, and nowhere else" if not name and "bleu" in record.scores else ""
            notes.append(f"{of}{facts['empty']} of {facts['texts']} texts are empty{after}")
        if facts.get("unended"):
            notes.append(f"{of}{facts['unended']} of {facts['texts']} answers have no end: they stop where the model's room does")
        if facts.get("truncated"):
            notes.append(
                f"{of}{facts['truncated']} of {facts['scored']} texts are longer than the {facts['tokens_at_most']} tokens that the judge "
                f"reads, and are judged by their beginnings{_share(facts, ': %s of all tokens')}"
            )
    said: dict[str, list[str]] = {}
    for name, remark in record.remarks.items():
        row, _, score = name.rpartition(".")
        said.setdefault(remark, []).append(f"{row}: {LABELS.get(score, score)}" if row else LABELS.get(score, score))
    return notes + [f"{', '.join(names)}: {remark}" for remark, names in said.items()]


def _share(facts: Facts, form: str) -> str:
    """The share of tokens that the judge read; records of before have not counted them."""
    tokens = facts.get("tokens")
    return form % f"{facts['tokens_judged'] / tokens:.0%}" if tokens else ""


def compare(records: Sequence[ScoreRecord]) -> str:
    """A table of records, ``*`` before the name of each that was not measured as the first one was, and below it all facts that differ."""
    facts = [_flat(record) for record in records]
    measured = [{name: value for name, value in each.items() if name.startswith(MEASURE)} for each in facts]
    marks = ["" if each == measured[0] else "* " for each in measured]
    lines = [_table([_row(record, mark) for record, mark in zip(records, marks, strict=True)])]
    if notes := [f"  {record.name}: {note}" for record in records for note in record_notes(record)]:
        lines += ["", *notes]
    names = list(dict.fromkeys(name for each in facts for name in each))
    differing = [name for name in names if len({repr(each.get(name)) for each in facts}) > 1 and not name.startswith(ALWAYS_DIFFER)]
    of_measure = [name for name in differing if name.startswith(MEASURE)]
    if of_measure:
        lines += ["", "* measured in another way than the first: these figures do not compare.", *_said(of_measure, records, facts)]
    else:
        lines += ["", "All were measured in the same way."]
    others = [name for name in differing if name not in of_measure]
    if others:
        lines += ["", "What was compared differs in:", *_said(others, records, facts)]
    return harmless("\n".join(lines))


def _flat(record: ScoreRecord) -> dict[str, Any]:
    facts = record.facts()
    settings = facts.get("sampling.settings")
    if isinstance(settings, dict):
        facts |= {f"sampling.{key}": value for key, value in settings.items()}
    return facts | {"code_version": record.code_version}


def _said(names: Sequence[str], records: Sequence[ScoreRecord], facts: Sequence[dict[str, Any]]) -> list[str]:
    return [f"  {name}: " + " | ".join(_short(each.get(name, "-")) for _, each in zip(records, facts, strict=True)) for name in names]


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text


@dataclass(frozen=True)
class Row:
    """One line of a table of scores."""

    name: str
    scores: Scores
    facts: Facts
    """Of the texts."""
    nfe: Any = None


def _row(record: ScoreRecord, mark: str = "") -> Row:
    return Row(mark + record.name, record.scores, record.subject, record.sampling.get("nfe"))


def _table(rows: Sequence[Row]) -> str:
    """Plain text, wide enough for all columns; how many texts are empty, and how many were cut for the judge, where any are."""
    present = dict.fromkeys(name for row in rows for name in row.scores)
    columns = [name for name in LABELS if name in present] + [name for name in present if name not in LABELS]
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("")
    for name in columns:
        table.add_column(LABELS.get(name, name), justify="right", no_wrap=True)
    table.add_column("NFE", justify="right")
    table.add_column("texts", justify="right")
    counts = [(fact, word) for fact, word in (("empty", "empty"), ("truncated", "cut")) if any(row.facts.get(fact) for row in rows)]
    for _, word in counts:
        table.add_column(word, justify="right", no_wrap=True)
    for row in rows:
        texts = max((score.count for score in row.scores.values()), default=0)
        cells = [_figure(row.scores[column]) if column in row.scores else "" for column in columns]
        cells += [str(row.nfe) if isinstance(row.nfe, int | float) else "", str(texts)]
        for fact, _ in counts:
            number = row.facts.get(fact, 0)
            cells.append(f"{number}{_share(row.facts, ' (%s read)')}" if fact == "truncated" and number else str(number))
        table.add_row(row.name, *cells)
    out = StringIO()
    Terminal(out, width=1000).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def _figure(score: Estimate) -> str:
    value = f"{score.value:,.0f}" if abs(score.value) >= 10_000 else f"{score.value:.4g}"
    if score.low is None or score.high is None:
        return value
    return f"{value} ±{(score.high - score.low) / 2:.2g}"
