"""What a finished run says of itself in words, for the terminal and the page alike: facts, samples, a legend, commands to try next."""

import shlex
import textwrap
from pathlib import Path

from elf_platform.commands import job_command
from elf_platform.report.record import RunRecord, Sample
from elf_platform.tracking.runs import naming

NO_TEXT = "(no text)"
PROMPT = 200
"""Characters of a source that is shown in a command."""

LEGEND = (
    "Lower is better: losses, cross-entropy, perplexity (nats are natural logarithms). Higher is better: BLEU, ROUGE, known words. "
    "Entropy is best where real text has it: far below it the samples repeat themselves. \"a to b\" is the 95 % interval: where the figure "
    "falls when as many samples are drawn again."
)
"""How the figures are read."""


def facts(record: RunRecord) -> list[tuple[str, str]]:
    """(what, the fact) in the order in which they are read; facts that the run did not leave are left out."""
    return [(what, said) for what, said in (
        ("time", time_words(record)),
        ("peak memory", _figure(record, "perf/peak_memory_gb", "{:.2f} GB, main worker")),
        ("corpus", str(record.summary.get("corpus", ""))),
        ("held out", str(record.summary.get("held_out", ""))),
        ("judge", str(record.summary.get("score/protocol", "")).removeprefix("judge ")),
        ("sampler", str(record.summary.get("sample/settings", ""))),
        ("samples", empty_words(record)),
    ) if said]


def places(record: RunRecord) -> list[tuple[str, str]]:
    """(what, path) of what the run left and read."""
    found = [(name, str(record.summary[name])) for name in ("artefact", "checkpoint", "data") if record.summary.get(name)]
    return [*found, ("report", str(record.folder / "report.html"))]


def time_words(record: RunRecord) -> str:
    """How long the run took, and its training; waits between attempts are not counted."""
    total, training = (record.summary.get(f"time/{part}_seconds") for part in ("total", "training"))
    if not isinstance(total, int | float):
        return ""
    within = f", of which training {duration(training)}" if isinstance(training, int | float) else ""
    return f"{duration(total)}{within}"


def duration(seconds: float) -> str:
    """Seconds as one says them: 42 s, 12 min 3 s, 5 h 2 min."""
    minutes, left = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"


def empty_words(record: RunRecord) -> str:
    """How many samples hold no text, and what that means when none does."""
    count, empty = record.summary.get("sample/count"), record.summary.get("sample/empty")
    if not isinstance(count, int | float) or not isinstance(empty, int | float) or not empty:
        return ""
    if empty < count:
        return f"{empty:.0f} of {count:.0f} are empty: {record.summary.get('sample/empty_why', 'end of text at their first place')}"
    return (
        f"all {count:.0f} are empty: the model puts end of text first. It has learnt where texts end before what stands in them, as models "
        "do early on and where most texts are short; train it longer (train.steps)"
    )


def last_samples(record: RunRecord, count: int) -> list[Sample]:
    """Samples of the last sampled step, those with text first."""
    newest = [sample for sample in record.samples if sample.step == record.samples[-1].step]
    return sorted(newest, key=lambda sample: not sample.text.strip())[:count]


def sample_words(sample: Sample, width: int = 220) -> str:
    """One sample on one line; of a conditional run with its source before it and the target, which was held out, behind it."""
    text = _one_line(sample.text, width) or NO_TEXT
    if sample.source is None:
        return text
    target = f"   (target: {_one_line(sample.reference, width)})" if sample.reference else ""
    return f"{_one_line(sample.source, width) or NO_TEXT} -> {text}{target}"


def commands(record: RunRecord, *, anywhere: bool) -> list[tuple[str, str]]:
    """(what, command) to try next. anywhere: for other shells as well, see ``commands``."""
    def job(name: str, *words: str | Path) -> str:
        return job_command(name, *words, anywhere=anywhere)

    artefact, data = str(record.summary.get("artefact", "")), str(record.summary.get("data", ""))
    rows = []
    if artefact and record.setting("data.source_column"):
        source = next((sample.source for sample in last_samples(record, 1) if sample.source), None)
        rows.append(("sample", job("sample", artefact, f"--prompt={_one_line(source, PROMPT)}") if source else ""))
        if data:
            pairs, answers = record.folder / "held-out.jsonl", record.folder / "answers"
            rows.append(("what was held out", f"{job('prepare', '--held-out', data)} > {shlex.quote(str(pairs))}"))
            rows.append(("answer it", job("sample", artefact, "--sources", pairs, "--source_column", "source", "--out", answers)))
            rows.append(("score the answers", job("evaluate", answers, "--judge", "none", "--references", pairs)))
    elif artefact:
        rows.append(("sample", job("sample", artefact, "--count", "16")))
        judge = record.summary.get("score/judge")
        if judge and data:
            rows.append(("sample more", job("sample", artefact, "--count", "128", "--out", record.folder / "samples")))
            words = ("--judge", str(judge), "--real_text", data, "--controls")
            rows.append(("score them", job("evaluate", record.folder / "samples", *words)))
    steps, store = record.setting("train.steps"), naming(str(record.setting("tracking.uri") or ""))
    if artefact and isinstance(steps, int):
        rows.append(("train on", job("pretrain", "--extend", record.folder, *store, "--train.steps", str(2 * steps))))
    if record.config and record.summary:
        seed = str(_seed(record) + 1)
        anew: tuple[str | Path, ...] = ("--config", record.folder, "--seed", seed, "--name", f"{record.name}-seed-{seed}", *store)
        rows.append(("train a variant", job("pretrain", *anew)))
    if record.tracking:
        rows.append(("open in MLflow", record.tracking))
    return [(what, line) for what, line in rows if line]


def _seed(record: RunRecord) -> int:
    seed = record.setting("seed")
    return seed if isinstance(seed, int) else 0


def _figure(record: RunRecord, name: str, form: str) -> str:
    value = record.summary.get(name)
    return form.format(value) if isinstance(value, int | float) else ""


def _one_line(text: str | None, width: int) -> str:
    return textwrap.shorten(" ".join((text or "").split()), width, placeholder=" ...")
