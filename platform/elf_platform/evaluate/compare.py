"""Score records side by side, and in what their protocols differ."""

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from rich.table import Table

from elf.metrics.bootstrap import Estimate
from elf_platform.commands import job_command
from elf_platform.evaluate.record import ScoreRecord, Scores, load_record
from elf_platform.sampling.folder import MANIFEST, read_manifest
from elf_platform.terminal import Terminal

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
    "subject.path", "subject.sha256", "subject.texts", "subject.empty", "subject.truncated", "sampling.settings",
    "sampling.samples_sha256",
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
    """The record and the texts beside it, one line each."""
    rows: list[tuple[str, Scores, Any]] = [(record.name, record.scores, record.sampling.get("nfe"))]
    rows += [(f"  {name}", scores, None) for name, scores in record.beside.items()]
    return _table(rows, [""] * len(rows))


def compare(records: Sequence[ScoreRecord]) -> str:
    """A table of records, ``*`` before the name of each that was not measured as the first one was, and below it all facts that differ."""
    facts = [_flat(record) for record in records]
    measured = [{name: value for name, value in each.items() if name.startswith(MEASURE)} for each in facts]
    marks = ["" if each == measured[0] else "* " for each in measured]
    lines = [_table([(record.name, record.scores, record.sampling.get("nfe")) for record in records], marks)]
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
    return "\n".join(lines)


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


def _table(rows: Sequence[tuple[str, Scores, Any]], marks: Sequence[str]) -> str:
    """Plain text, wide enough for all columns."""
    present = dict.fromkeys(name for _, scores, _ in rows for name in scores)
    columns = [name for name in LABELS if name in present] + [name for name in present if name not in LABELS]
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("")
    for name in columns:
        table.add_column(LABELS.get(name, name), justify="right", no_wrap=True)
    table.add_column("NFE", justify="right")
    table.add_column("texts", justify="right")
    for (name, scores, nfe), mark in zip(rows, marks, strict=True):
        count = max((score.count for score in scores.values()), default=0)
        cells = [_figure(scores[column]) if column in scores else "" for column in columns]
        table.add_row(f"{mark}{name}", *cells, str(nfe) if isinstance(nfe, int | float) else "", str(count))
    out = StringIO()
    Terminal(out, width=1000).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def _figure(score: Estimate) -> str:
    value = f"{score.value:,.0f}" if abs(score.value) >= 10_000 else f"{score.value:.4g}"
    if score.low is None or score.high is None:
        return value
    return f"{value} ±{(score.high - score.low) / 2:.2g}"
