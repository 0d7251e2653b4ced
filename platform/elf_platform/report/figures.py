"""Which charts a run has: each function looks at the record and returns charts, or none where the run logged nothing for them."""

import itertools
import re
from collections.abc import Callable

from elf_platform.report.charts import Chart, Series
from elf_platform.report.record import Line, RunRecord
from elf_platform.report.scale import short
from elf_platform.report.series import logit_normal_density, quantile, same, smooth, spread, thin

LEVELS = 10  # buckets of t, those of the training loop
MOMENTS = 5  # points of training at which the loss by noise level is shown
SMOOTH_FROM = 40  # logged points from which a smoothed line is drawn over the raw one
SMALL = (360, 200)

TURNS = "Thin vertical lines: restarts, resizes and rollbacks."
VELOCITY_ERROR = "mean squared velocity error per channel"
CROSS_ENTROPY = "nats per token"
NAMES = {
    "flow": "Flow matching",
    "decoder_ce": "Decoder cross-entropy",
    "ce": "Cross-entropy",
    "corrupted_ce": "Cross-entropy on corrupted tokens",
}


def part_unit(part: str) -> str:
    """What the loss part is measured in."""
    if part == "ce" or part.endswith("_ce"):
        return CROSS_ENTROPY
    return VELOCITY_ERROR if part == "flow" else "mean per token"


def part_names(record: RunRecord) -> list[str]:
    """Loss parts, the main one first; the total is not among them."""
    parts = dict.fromkeys([*record.names("train/"), *record.names("valid/")])
    return [part for part in parts if part != "loss" and "/" not in part]


def loss_charts(record: RunRecord) -> list[Chart]:
    """Total and parts, in training and validation; the total is left out where it is the same as a part."""
    parts = part_names(record)
    charts = [_loss_chart(record, part, NAMES.get(part, part), part_unit(part)) for part in parts]
    total_is_new = not any(same(record.line("train/loss"), record.line(f"train/{part}")) for part in parts)
    if total_is_new:
        unit = "sum of the parts, mean per token" if parts else "mean per token"
        charts.insert(0, _loss_chart(record, "loss", "Total loss", unit))
    return [chart for chart in charts if chart.series]


def _loss_chart(record: RunRecord, part: str, title: str, unit: str) -> Chart:
    series = _raw_and_smooth(record.line(f"train/{part}"), "training", "s1")
    valid = record.line(f"valid/{part}")
    if valid:
        series.append(Series(name="validation", points=thin(valid), colour="s2", form="dots"))
    unigram = record.summary.get("valid/unigram_ce")
    if series and part in ("ce", "decoder_ce") and isinstance(unigram, int | float):
        ends = [(edge([x for drawn in series for x, _ in drawn.points]), float(unigram)) for edge in (min, max)]
        series.append(Series(name="unigram model", points=ends, colour="s0", form="rule"))
    slug = "loss" if part == "loss" else re.sub(r"\W", "_", f"loss_{part}")
    return Chart(slug=slug, title=title, unit=unit, series=series, marks=record.turns(), note=TURNS if record.turns() else "")


def _raw_and_smooth(line: Line, name: str, colour: str) -> list[Series]:
    if len(line) < SMOOTH_FROM:
        return [Series(name=name, points=line, colour=colour)] if line else []
    return [
        Series(name=name, points=thin(line, 700), colour=colour, form="faint"),
        Series(name=name, points=thin(smooth(line), 300), colour=colour),
    ]


def level_chart(record: RunRecord) -> list[Chart]:
    """Loss against noise level at a few points of training; from validation where there are enough of them."""
    lines = _validated_levels(record)
    note = "From validation, in ten buckets of t."
    if len(lines) < 3:
        lines, note = (
            _trained_levels(record),
            f"Training rows, averaged over each of {MOMENTS} stretches of the run, in ten buckets of t.",
        )
    parts = part_names(record)
    series = [
        Series(name=f"step {short(step)}", points=points, colour=f"q{round(place * 4 / max(1, len(lines) - 1))}")
        for place, (step, points) in enumerate(lines)
    ]
    chart = Chart(
        slug="loss_by_noise_level",
        title="Loss against noise level",
        unit=part_unit(parts[0]) if parts else "mean per token",
        x_label="time t",
        x_name="t",
        x_range=(0.0, 1.0),
        x_ends=("noise", "data"),
        series=series,
        note=note,
    )
    return [chart] if series else []


def _levels(record: RunRecord, source: str) -> dict[float, Line]:
    """Middle of the bucket of t to the points of its metric."""
    names = sorted(int(name) for name in record.names(f"{source}/level/") if name.isdigit())
    return {(level + 0.5) / LEVELS: record.line(f"{source}/level/{level}") for level in names}


def _validated_levels(record: RunRecord) -> list[tuple[float, Line]]:
    """(step, loss by t) at a few validations."""
    levels = {t: dict(line) for t, line in _levels(record, "valid").items()}
    steps = sorted({step for values in levels.values() for step in values})
    chosen = [steps[i] for i in spread(len(steps), MOMENTS)]
    return [(step, [(t, values[step]) for t, values in levels.items() if step in values]) for step in chosen]


def _trained_levels(record: RunRecord) -> list[tuple[float, Line]]:
    """(last step, loss by t) of equal stretches of training."""
    levels = _levels(record, "train")
    steps = [step for line in levels.values() for step, _ in line]
    found = []
    for i in range(MOMENTS if steps else 0):
        low, high = (min(steps) + (max(steps) - min(steps)) * (i + end) / MOMENTS for end in (0, 1))
        inside = {t: [y for step, y in line if low <= step <= high] for t, line in levels.items()}
        points = [(t, sum(values) / len(values)) for t, values in inside.items() if values]
        if points:
            found.append((high, points))
    return found


def rate_chart(record: RunRecord) -> list[Chart]:
    """The learning rate that was used, one line per parameter group that logs its own."""
    groups = [("learning rate", record.line("optim/lr"))]
    groups += [(name, record.line(f"optim/lr/{name}")) for name in record.names("optim/lr/")]
    series = [Series(name=name, points=thin(line), colour=f"s{1 + i % 4}") for i, (name, line) in enumerate(groups) if line]
    chart = Chart(
        slug="learning_rate", title="Learning rate", unit="step size, as used", series=series, from_zero=True, log=False
    )
    return [chart] if series else []


def times_chart(record: RunRecord) -> list[Chart]:
    """Sampled training times against the density that they should follow."""
    edges, counts = record.time_edges, record.time_counts
    if not edges:
        return []
    total = sum(counts)
    middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
    heights = [count / total / (high - low) for count, (low, high) in zip(counts, itertools.pairwise(edges), strict=True)]
    series = [Series(name="drawn", points=list(zip(middles, heights, strict=True)), form="bars")]
    mean, std = record.setting("process.time_mean"), record.setting("process.time_std")
    if isinstance(mean, int | float) and isinstance(std, int | float) and std > 0:
        curve = [(i / 200, logit_normal_density(i / 200, mean, std)) for i in range(201)]
        series.append(Series(name=f"logit-normal({mean:g}, {std:g})", points=curve, colour="s2"))
    return [
        Chart(
            slug="training_times",
            title="Sampled times",
            unit="density of t",
            x_label="time t",
            x_name="t",
            x_range=(0.0, 1.0),
            x_ends=("noise", "data"),
            series=series,
            from_zero=True,
            log=False,
            note=f"{short(total)} times drawn, as a histogram of area one.",
        )
    ]


def machine_charts(record: RunRecord) -> list[Chart]:
    """Small multiples: speed, memory, gradient and update norms."""
    charts = []
    for slug, metric, title, unit, from_zero in (
        ("tokens_per_second", "perf/tokens_per_second", "Throughput", "tokens per second", True),
        ("mfu", "perf/mfu", "Model FLOP/s utilisation", "share of the device's peak", True),
        ("step_seconds", "perf/step_seconds", "Step time", "seconds", True),
        ("data_wait", "perf/data_wait_share", "Waiting for data", "share of the step", True),
        ("memory", "perf/memory_gb", "Memory", "GB, highest", True),
        ("grad_norm", "optim/grad_norm", "Gradient norm", "Euclidean norm", False),
        ("skipped_steps", "health/skipped_steps", "Skipped steps", "count", True),
    ):
        line = record.line(metric)
        if line and not (slug == "skipped_steps" and all(value == 0 for _, value in line)):
            series = _raw_and_smooth(line, title.lower(), "s1")
            charts.append(Chart(slug=slug, title=title, unit=unit, series=series, from_zero=from_zero, size=SMALL))
    for kind, title in (("grad_norm", "Gradient norm by group"), ("update_norm", "Update norm by group")):
        groups = [(name, record.line(f"optim/{kind}/{name}")) for name in record.names(f"optim/{kind}/")][:4]
        series = [Series(name=name, points=thin(smooth(line), 300), colour=f"s{1 + i}") for i, (name, line) in enumerate(groups)]
        if series:
            charts.append(Chart(slug=f"{kind}_by_group", title=title, unit="Euclidean norm", series=series, size=SMALL))
    return charts


BETWEEN = "Training figures are means over the steps between two logged points; a bold line smooths a thin one."
SECTIONS: list[tuple[str, str, tuple[Callable[[RunRecord], list[Chart]], ...]]] = [
    (
        "Learning",
        BETWEEN,
        (loss_charts, rate_chart),
    ),
    ("Noise levels", "t = 0 is pure noise, t = 1 is data.", (level_chart, times_chart)),
    ("Machine", "", (machine_charts,)),
]


def section_charts(record: RunRecord) -> list[tuple[str, str, list[Chart]]]:
    """(title, lead, charts) of the sections that have charts in this run."""
    found = [(title, lead, [chart for build in builders for chart in build(record)]) for title, lead, builders in SECTIONS]
    return [section for section in found if section[2]]


def typical(line: Line) -> float | None:
    """The median; None for an empty line."""
    return quantile([value for _, value in line], 0.5) if line else None
