"""What a run prints at its end: samples, headline figures and how to read them, where things are, and what to do next."""

import math
from pathlib import Path
from typing import Any

from rich.table import Table

from elf_platform.report.closing import LEGEND, commands, facts, last_samples, places, sample_words
from elf_platform.report.record import read_record
from elf_platform.terminal import Terminal

_ROWS = (
    ("validation loss", "valid/loss", "valid/loss_at_start", "at initialisation"),
    ("flow loss (squared velocity error per channel)", "valid/flow", "valid/flow_at_start", "at initialisation"),
    ("decoder cross-entropy (nats per token)", "valid/decoder_ce", "valid/unigram_ce", "unigram model"),
    ("cross-entropy (nats per token)", "valid/ce", "valid/unigram_ce", "unigram model"),
    ("BLEU of the answers", "score/bleu", "", ""),
    ("ROUGE-1 of the answers", "score/rouge1", "", ""),
    ("ROUGE-2 of the answers", "score/rouge2", "", ""),
    ("ROUGE-L of the answers", "score/rougeL", "", ""),
    ("share of sampled words known from the text", "sample/known_word_share", "sample/known_word_share_unigram", "unigram samples"),
    ("generative perplexity of samples", "score/gen_ppl", "score/gen_ppl_reference", "real text"),
    ("generative perplexity of unigram text", "score/gen_ppl_unigram", "score/gen_ppl_shuffled", "shuffled text"),
    ("unigram entropy of samples (nats, judge's ids)", "score/entropy", "score/entropy_reference", "real text"),
    ("unigram entropy of samples (nats, own ids)", "sample/unigram_entropy", "", ""),
    ("network evaluations per sample (NFE)", "sample/nfe", "", ""),
    ("tokens per second (median)", "perf/tokens_per_second", "", ""),
)
_SAMPLES = 8


def print_summary(run_folder: Path) -> None:
    """What the files of a finished run say, on standard output; the report shows the same."""
    record = read_record(run_folder, anywhere=False)
    figures, out = record.summary, Terminal()
    out.rule(f"run {record.name}")
    for sample in last_samples(record, _SAMPLES):
        out.print(f"{sample_words(sample)}\n")
    table = Table(box=None, show_header=False, padding=(0, 2))
    for label, name, other, what in _ROWS:
        if name in figures:
            beside = f"{what} {_number(figures[other])}" if other and other in figures else ""
            table.add_row(label, _number(figures[name]), _interval(figures, name), beside)
    Terminal(width=1000).print(table)  # never wrapped within its cells
    out.print(f"\n{LEGEND}\n", style="dim")
    for what, said in [*facts(record), *places(record)]:
        out.print(f"{what:<12} {said}")
    out.print("\nnext:")
    for what, line in commands(record, anywhere=False):
        out.print(f"  {what + ':':<20} {line}")


def _interval(figures: dict[str, Any], name: str) -> str:
    low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
    return f"{_number(low)} to {_number(high)}" if isinstance(low, int | float) and isinstance(high, int | float) else ""


def _number(value: Any) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "not defined"
    return value if isinstance(value, str) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
