"""What a run prints at its end: where things are, samples, headline figures, and what to do next."""


import textwrap
from pathlib import Path

from rich.table import Table

from elf_platform.commands import job_command
from elf_platform.headline import Figures
from elf_platform.terminal import Terminal
from elf_platform.tracking import RunHandle, ui_command
from elf_platform.tracking.journal import read_lines

_ROWS = (
    ("validation loss", "valid/loss", "valid/loss_at_start", "at initialisation"),
    ("flow loss (squared velocity error per channel)", "valid/flow", "valid/flow_at_start", "at initialisation"),
    ("decoder cross-entropy (nats per token)", "valid/decoder_ce", "valid/unigram_ce", "unigram model"),
    ("cross-entropy (nats per token)", "valid/ce", "valid/unigram_ce", "unigram model"),
    ("share of sampled words known from the text", "sample/known_word_share", "sample/known_word_share_unigram", "unigram samples"),
    ("generative perplexity of samples", "score/gen_ppl", "score/gen_ppl_reference", "real text"),
    ("generative perplexity of unigram text", "score/gen_ppl_unigram", "score/gen_ppl_shuffled", "shuffled text"),
    ("unigram entropy of samples (nats, judge's ids)", "score/entropy", "score/entropy_reference", "real text"),
    ("unigram entropy of samples (nats, own ids)", "sample/unigram_entropy", "", ""),
    ("network evaluations per sample (NFE)", "sample/nfe", "", ""),
    ("tokens per second (median)", "perf/tokens_per_second", "", ""),
)


def print_summary(run_folder: Path, figures: Figures, handle: RunHandle | None, *, conditional: bool) -> None:
    """Headline figures, eight samples, and the way on, on standard output. conditional: the model samples from sources."""
    out = Terminal()
    table = Table(box=None, show_header=False, padding=(0, 2))
    for label, name, other, what in _ROWS:
        if name in figures:
            beside = f"{what} {_number(figures[other])}" if other and other in figures else ""
            table.add_row(label, _number(figures[name]), beside)
    out.rule(f"run {figures.get('run', '')}")
    for text in last_samples(run_folder, 8):
        out.print(textwrap.shorten(" ".join(text.split()), 220, placeholder=" ..."))
        out.print()
    out.print(table)
    if "score/protocol" in figures:
        out.print(f"\nperplexity: {figures['score/protocol']}", style="dim")
    out.print(f"\nartefact  {figures['artefact']}")
    out.print(f"report    {run_folder / 'report.html'}")
    command = ui_command(handle) if handle else ""
    if command:
        out.print(f"MLflow    {command}")
    words = ("--sources", "SOURCES.txt") if conditional else ("--count", "16")
    out.print(f"next      {job_command('sample', str(figures['artefact']), *words)}")


def last_samples(run_folder: Path, count: int) -> list[str]:
    """The texts of the last sampled step, in the order of their indices."""
    path = run_folder / "samples.jsonl"
    lines = [line for _, line in read_lines(path) if line]
    if not lines:
        return []
    newest = {line["index"]: line["text"] for line in lines if line["step"] == lines[-1]["step"]}
    return [newest[index] for index in sorted(newest)][:count]


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
