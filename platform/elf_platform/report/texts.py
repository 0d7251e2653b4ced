"""The parts of the report that are words: samples, the denoising of one of them, the configuration."""

import difflib
import itertools
import re
from typing import Any

from elf_platform.report.charts import clean
from elf_platform.report.closing import NO_TEXT, last_samples
from elf_platform.report.record import RunRecord, Sample
from elf_platform.report.series import spread

MOMENTS = 5  # points of training whose samples are shown
EARLIER, LAST = 3, 6  # samples shown at each of them, and at the last
LONGEST = 4000  # characters of one sample
COMPARED = 600  # words of a trajectory that are shown and compared with its end; the comparison is quadratic


def samples_section(record: RunRecord) -> str:
    """Samples at several points of training; the same index is the same noise, so that columns can be followed downwards."""
    steps = [(step, list(group)) for step, group in itertools.groupby(record.samples, key=lambda sample: sample.step)]
    if not steps:
        return ""
    shown = [steps[i] for i in spread(len(steps), MOMENTS)]
    order = {sample.index: place for place, sample in enumerate(last_samples(record, len(record.samples)))}
    blocks = []
    for step, samples in shown:
        last = step == shown[-1][0]
        cards = "".join(_sample(sample) for sample in _first(samples, order, LAST if last else EARLIER))
        small = "<small>end of training</small>" if last and len(shown) > 1 else ""
        blocks.append(f'<div class="at"><h3>step {step:,}{small}</h3><div class="samples">{cards}</div></div>')
    lead = "What the model writes as it learns. A column starts from the same noise at every step."
    return f'<section><h2>Samples</h2><p class="lead">{lead if len(shown) > 1 else ""}</p>{"".join(blocks)}</section>'


def _first(samples: list[Sample], order: dict[int, int], count: int) -> list[Sample]:
    """Those whose index has text at the end of training come first, at every step."""
    return sorted(samples, key=lambda sample: order.get(sample.index, len(order)))[:count]


def _sample(sample: Sample) -> str:
    facts = [f"sample {sample.index}"]
    facts += [f"seed {sample.seed}"] if sample.seed is not None else []
    facts += [f"{sample.nfe} NFE"] if sample.nfe is not None else []
    source = f'<p class="meta">{clean(_cut(sample.source.strip()))} →</p>' if sample.source is not None else ""
    target = f'<p class="meta">target: {clean(_cut(sample.reference.strip()))}</p>' if sample.reference is not None else ""
    return f'<div class="sample">{source}{_prose(sample.text)}{target}<small>{clean(" · ".join(facts))}</small></div>'


def _prose(text: str) -> str:
    """A text as a paragraph; one that is empty says so."""
    text = clean(_cut(text.strip()))
    return f'<p class="prose">{text}</p>' if text else f'<p class="prose"><span class="open">{NO_TEXT}</span></p>'


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text) - LONGEST:,} more characters)"


def trajectory_section(record: RunRecord) -> str:
    """One sample, decoded on its way from noise to text; words that are already those of the end are set in full ink."""
    if not record.trajectory:
        return ""
    final = _words(record.trajectory[-1][1])
    stops = []
    for t, text in record.trajectory:
        share, body = _against(_words(text), final)
        body = body or f'<span class="open">{NO_TEXT}</span>'
        bar = f'<div class="bar-t"><i style="width:{100 * min(1, max(0, t)):.0f}%"></i></div>'
        left = f'<div><span class="t">t = {t:.2f}</span>{bar}<span class="meta">{share:.0%} final</span></div>'
        stops.append(f'<div class="stop">{left}<p class="prose">{body}</p></div>')
    seed = f" (seed {record.trajectory_seed})" if record.trajectory_seed is not None else ""
    lead = f"The model's estimate of one text{seed} at {len(stops)} times between noise and data. Grey words still change."
    return f'<section><h2>Denoising</h2><p class="lead">{lead}</p><div class="panel walk">{"".join(stops)}</div></section>'


def _words(text: str) -> list[str]:
    """Words with the white space that follows them."""
    return re.findall(r"\S+\s*", _cut(text.strip()))


def _against(words: list[str], final: list[str]) -> tuple[float, str]:
    """(share of the words that are those of the end, HTML with the others marked)."""
    bare, bare_final = ([word.strip() for word in part[:COMPARED]] for part in (words, final))
    kept = [False] * len(words)
    for block in difflib.SequenceMatcher(a=bare, b=bare_final, autojunk=False).get_matching_blocks():
        kept[block.a : block.a + block.size] = [True] * block.size
    runs = []
    for settled, group in itertools.groupby(range(min(len(words), COMPARED)), key=lambda i: kept[i]):
        text = clean("".join(words[i] for i in group))
        runs.append(text if settled else f'<span class="open">{text}</span>')
    return sum(kept) / max(1, len(bare)), "".join(runs)


def events_section(record: RunRecord) -> str:
    """What happened on the way: attempts, resizes, skipped windows, stops, warnings; nothing for a run that went straight through."""
    if not record.eventful:
        return ""
    attempts = sum(event.kind == "attempt" for event in record.events)
    lead = f"{attempts} attempt{'s' if attempts != 1 else ''}." if attempts else ""
    start = min(event.time for event in record.events)
    rows = []
    for event in record.events:
        facts = f"step {event.step:,}<small>{clean(event.kind.replace('_', ' '))}, {_duration(event.time - start)}</small>"
        rows.append(f"<tr><th>{facts}</th><td>{clean(_cut(event.text))}</td></tr>")
    table = f'<table class="events">{"".join(rows)}</table>'
    return f'<section><h2>Events</h2><p class="lead">{lead}</p><div class="panel">{table}</div></section>'


def _duration(seconds: float) -> str:
    """Time since the first event, as hours, minutes and seconds."""
    minutes, left = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"after {hours}:{minutes:02d}:{left:02d}" if hours or minutes or left else "at the start"


def settings_section(record: RunRecord) -> str:
    """The whole configuration and every other figure of the summary, folded."""
    rows = _rows(record.config)
    figures = list(record.summary.items())
    tables = []
    if figures:
        body = "".join(f"<tr><th>{clean(key)}</th><td>{clean(_plain(value))}</td></tr>" for key, value in figures)
        tables.append(f"<details><summary>All figures of the summary</summary><table>{body}</table></details>")
    if rows:
        tables.append(f"<details><summary>Configuration</summary><table>{''.join(rows)}</table></details>")
    return f"<section><h2>Record</h2>{''.join(tables)}</section>" if tables else ""


def _rows(config: dict[str, Any]) -> list[str]:
    single = {key: value for key, value in config.items() if not isinstance(value, dict)}
    rows = []
    for group, settings in [("run", single), *((key, value) for key, value in config.items() if isinstance(value, dict))]:
        if settings:
            rows.append(f'<tr class="group"><th colspan="2">{clean(group)}</th></tr>')
            rows += [f"<tr><th>{clean(path)}</th><td>{clean(_plain(value))}</td></tr>" for path, value in _leaves(settings, "")]
    return rows


def _leaves(settings: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in settings.items():
        leaves += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return leaves


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "on", False: "off", None: "none"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)
