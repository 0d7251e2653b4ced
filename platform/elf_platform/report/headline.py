"""The top of the report: figure cards, the artefact and the commands to try next."""

from collections.abc import Mapping
from typing import Any

from elf_platform.report.charts import clean, sparkline
from elf_platform.report.closing import LEGEND, commands, facts, places
from elf_platform.report.figures import NAMES, part_names, typical
from elf_platform.report.record import RunRecord
from elf_platform.report.scale import short
from elf_platform.report.series import same, thin

MOST_COLUMNS = 5


def header(record: RunRecord) -> str:
    """Title, facts, cards and commands as HTML."""
    facts = {
        "recipe": record.config.get("recipe"),
        "process": record.setting("process.kind"),
        "status": record.summary.get("status"),
        "device": record.summary.get("device"),
        "code": record.config.get("code_version"),
    }
    shown = "".join(f"<span>{name} <b>{clean(value)}</b></span>" for name, value in facts.items() if value)
    cards = _loss_cards(record) + _score_cards(record) + _figure_cards(record)
    columns = -(-len(cards) // max(1, -(-len(cards) // MOST_COLUMNS)))  # rows of about equal length
    return (
        f'<p class="over">Training run</p><h1>{clean(record.name)}</h1><p class="facts">{shown}</p>'
        f'<div class="cards" style="--columns:{columns}">{"".join(cards)}</div>{_closing(record)}'
    )


def _card(name: str, value: str, sub: str = "", spark: str = "") -> str:
    return (
        f'<div class="card"><span class="name">{clean(name)}</span><span class="value">{clean(value)}</span>'
        f'{spark}<span class="sub">{clean(sub)}</span></div>'
    )


def _loss_cards(record: RunRecord) -> list[str]:
    """Final validation loss of the total and of each part, or of training where nothing was validated."""
    cards = []
    parts = part_names(record)
    for part in ["loss", *parts]:
        source = "valid" if record.line(f"valid/{part}") or f"valid/{part}" in record.summary else "train"
        line = record.line(f"{source}/{part}")
        last = _number(record.summary, f"{source}/{part}", line[-1][1] if line else None)
        if last is None or (part == "loss" and line and any(same(record.line(f"{source}/{other}"), line) for other in parts)):
            continue
        name = "validation" if source == "valid" else "training"
        title = f"{name} loss".capitalize() if part == "loss" else NAMES.get(part, part).replace("cross-entropy", "CE")
        first = _number(record.summary, f"{source}/{part}_at_start", line[0][1] if len(line) > 1 else None)
        unigram = _number(record.summary, "valid/unigram_ce") if part in ("ce", "decoder_ce") else None
        words = [name if part != "loss" else "", f"from {short(first)}" if first is not None else ""]
        words.append(f"unigram {short(unigram)}" if unigram is not None else "")
        colour = "s2" if source == "valid" else "s1"
        cards.append(_card(title, f"{last:.4g}", ", ".join(filter(None, words)), sparkline(thin(line, 100), colour)))
    return cards


def _score_cards(record: RunRecord) -> list[str]:
    """Generative perplexity and entropy of the samples, each beside that of real text; perplexity alone would praise repetition."""
    cards = []
    for key, title, others in (
        ("score/gen_ppl", "Gen. PPL", ("reference", "unigram")),
        ("score/entropy", "Entropy", ("reference",)),
        ("score/bleu", "BLEU", ()),
        ("score/rougeL", "ROUGE-L", ()),
    ):
        value = _number(record.summary, key)
        if value is None:
            continue
        low, high = _number(record.summary, f"{key}_low"), _number(record.summary, f"{key}_high")
        words = [f"{short(low)} to {short(high)}" if low is not None and high is not None else ""]
        for other in others:
            beside = _number(record.summary, f"{key}_{other}")
            name = "real text" if other == "reference" else other
            words.append(f"{name} {short(beside)}" if beside is not None else "")
        cards.append(_card(title, f"{value:.4g}", ", ".join(filter(None, words))))
    return cards


def _figure_cards(record: RunRecord) -> list[str]:
    summary = record.summary
    last_step = max((line[-1][0] for line in record.metrics.values()), default=None)
    steps = _number(summary, "steps", last_step)
    wanted = record.setting("train.steps")
    speed = _number(summary, "perf/tokens_per_second", typical(record.line("perf/tokens_per_second")))
    nfe = _number(
        summary, "sample/nfe", next((sample.nfe for sample in reversed(record.samples) if sample.nfe is not None), None)
    )
    known, by_chance = _number(summary, "sample/known_word_share"), _number(summary, "sample/known_word_share_unigram")
    parameters = _number(summary, "parameters")
    cards = []
    if known is not None:
        cards.append(_card("Known words", f"{known:.0%}", "of the samples" if by_chance is None else f"unigram {by_chance:.0%}"))
    if steps is not None:
        of = f"of {wanted:,}" if isinstance(wanted, int) and wanted != steps else "optimiser steps"
        cards.append(_card("Steps", f"{int(steps):,}", of))
    if speed is not None:
        cards.append(_card("Tokens / s", short(speed), "in training, median"))
    if parameters is not None:
        cards.append(_card("Parameters", short(parameters), "trained"))
    if nfe is not None:
        cards.append(_card("NFE", short(nfe), "evaluations per sample"))
    return cards


def _number(summary: Mapping[str, Any], key: str, otherwise: float | None = None) -> float | None:
    value = summary.get(key, otherwise)
    return value if isinstance(value, int | float) else otherwise


def _closing(record: RunRecord) -> str:
    """The facts of the run, where the artefact is, and what to do next."""
    said = [*facts(record), *places(record)] if record.summary else []
    told = "".join(f"<tr><th>{clean(name)}</th><td>{clean(value)}</td></tr>" for name, value in said)
    rows = [("artefact", str(record.summary["artefact"]))] if record.summary.get("artefact") else []
    rows += commands(record, anywhere=True)
    lines = [
        f'<div class="row"><span class="name">{clean(name[:1].upper() + name[1:])}</span><code>{clean(value)}</code>'
        f'<button type="button" data-copy="{clean(value)}">copy</button></div>'
        for name, value in rows
    ]
    legend = f'<p class="lead">{clean(LEGEND)}</p>' if told else ""
    table = f'<div class="panel"><table class="told">{told}</table></div>' if told else ""
    return legend + table + (f'<div class="panel">{"".join(lines)}</div>' if lines else "")
