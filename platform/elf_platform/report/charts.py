"""Line charts and histograms as SVG, drawn by hand: colours come from style sheet variables, so that one picture serves light and
dark pages, and the points stay readable for the page's tooltips. No library does both without scripts from elsewhere."""

import html
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from elf_platform.report.record import Line
from elf_platform.report.scale import Scale, padded, short
from elf_platform.report.series import quantile
from elf_platform.report.style import plain_chart_css

LOG_SPAN = 4.0  # highest value over lowest from which a logarithmic axis reads better
JOINED_FROM = 4  # marks; a line between fewer tells a course that nobody has seen


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line, or the bars of a histogram (points are then the middles). ``colour``: a class of the style sheet, s0-s4, q0-q4."""

    name: str
    points: Line
    colour: str = "s1"
    form: Literal["line", "faint", "dots", "bars", "rule"] = "line"
    """faint: as logged, without legend. dots: with a mark at each point. rule: dashed, to compare with."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart and the words around it."""

    slug: str
    """File name without ending."""
    title: str
    unit: str
    """What y is, with its unit."""
    x_label: str = "optimiser step"
    x_name: str = "step"
    """What the tooltip calls x."""
    series: list[Series]
    note: str = ""
    x_range: tuple[float, float] | None = None
    x_ends: tuple[str, str] = ("", "")
    """Words under the two ends of the x axis."""
    from_zero: bool = False
    log: bool | None = None
    """None: logarithmic where the values span a factor of more than ``LOG_SPAN``."""
    marks: list[tuple[float, str]] = field(default_factory=list)
    """(x, words) of thin vertical lines."""
    size: tuple[int, int] = field(default=(560, 300))

    @property
    def logarithmic(self) -> bool:
        """Whether y is drawn on a logarithmic axis."""
        low, high = _value_range(self)
        wanted = high > low * LOG_SPAN and not self.from_zero if self.log is None else self.log
        return wanted and low > 0

    @property
    def unit_line(self) -> str:
        """The unit, with a word on the axis where it is not the plain one."""
        return f"{self.unit}, logarithmic axis" if self.logarithmic else self.unit

    @property
    def legend(self) -> list[Series]:
        return [series for series in self.series if series.form != "faint"]


def clean(text: object) -> str:
    """Text that is safe inside HTML and SVG, in content and in quoted attributes."""
    return html.escape(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]", "\ufffd", str(text)), quote=True)


def draw(chart: Chart) -> str:
    """The chart as an ``<svg>`` element for a page that has the style sheet."""
    width, height = chart.size
    x, y = _scales(chart, Scale(0, 1, 56, width - 14), Scale(0, 1, height - 42, 12))
    label = clean(f"{chart.title}: {chart.unit} against {chart.x_label}")
    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" data-x="{clean(chart.x_name)}" role="img" aria-label="{label}">']
    clip = f"clip-{chart.slug}"
    parts.append(
        f'<clipPath id="{clip}"><rect x="{x.start - 4:g}" y="{y.end - 4:g}" width="{x.end - x.start + 8:g}" '
        f'height="{y.start - y.end + 5:g}"/></clipPath>'
    )
    for tick in y.ticks(5):
        parts.append(f'<line class="grid" x1="{x.start:g}" x2="{x.end:g}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{x.start - 8:g}" y="{y(tick) + 4:.1f}" text-anchor="end">{short(tick)}</text>')
    parts.append(f'<line class="axis" x1="{x.start:g}" x2="{x.end:g}" y1="{y.start:g}" y2="{y.start:g}"/>')
    for tick in x.ticks(6 if width > 400 else 4):
        parts.append(f'<line class="axis" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{y.start:g}" y2="{y.start + 4:g}"/>')
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{y.start + 17:g}" text-anchor="middle">{short(tick)}</text>')
    below = f'y="{height - 7:g}"'
    parts.append(f'<text class="label" x="{(x.start + x.end) / 2:g}" {below} text-anchor="middle">{clean(chart.x_label)}</text>')
    for words, place, anchor in zip(chart.x_ends, (x.start, x.end), ("start", "end"), strict=True):
        if words:
            parts.append(f'<text class="label" x="{place:g}" {below} text-anchor="{anchor}">{clean(words)}</text>')
    parts.append(f'<g clip-path="url(#{clip})">')
    parts += [_mark(x(place), words, y) for place, words in chart.marks if x.low <= place <= x.high]
    for series in sorted(chart.series, key=lambda series: ("bars", "rule", "faint", "line", "dots").index(series.form)):
        parts += _series(series, x, y)
    parts.append("</g></svg>")
    return "".join(parts)


def standalone(chart: Chart) -> bytes:
    """The chart as an SVG file of its own, title and legend included, in light colours."""
    width, height = chart.size
    head = 30 + 18 * (1 + (len(chart.legend) > 1))
    words = [f'<text class="title" x="14" y="{24 - head}">{clean(chart.title)}</text>']
    words.append(f'<text class="label" x="14" y="{42 - head}">{clean(chart.unit_line)}</text>')
    if len(chart.legend) > 1:
        place = 14.0
        for series in chart.legend:
            words.append(f'<rect class="{series.colour} key" x="{place:g}" y="-15" width="14" height="4" rx="2"/>')
            words.append(f'<text class="label" x="{place + 19:g}" y="-9">{clean(series.name)}</text>')
            place += 36 + 6.5 * len(series.name)
    svg = draw(chart)
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 {-head} {width} {height + head}" '
    size = f'width="{width * 1.5:g}" height="{(height + head) * 1.5:g}">'
    style = f"<style>{plain_chart_css()}</style>"
    background = f'<rect class="paper" x="0" y="{-head}" width="{width}" height="{height + head}"/>'
    return (opening + size + style + background + "".join(words) + svg[svg.index(">") + 1 :]).encode("utf-8")


def sparkline(line: Line, colour: str = "s1") -> str:
    """A word-sized line without axes."""
    if len(line) < JOINED_FROM:
        return ""
    x = Scale(line[0][0], line[-1][0], 2, 118)
    low, high = padded(*_extent([value for _, value in line]), log=False)
    y = Scale(low, high, 24, 3)
    points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line)
    end = f'<circle class="{colour} end" cx="118" cy="{y(line[-1][1]):.1f}" r="2.5"/>'
    path = f'<polyline class="{colour} line" points="{points}"/>'
    return f'<svg class="spark" viewBox="0 0 122 28" preserveAspectRatio="xMinYMid" aria-hidden="true">{path}{end}</svg>'


def _scales(chart: Chart, x: Scale, y: Scale) -> tuple[Scale, Scale]:
    """Both axes over what is drawn; faint raw lines may stick out of the picture with their highest half per cent."""
    x_low, x_high = chart.x_range or _extent([a for series in chart.series for a, _ in series.points])
    low, high = _value_range(chart)
    log = chart.logarithmic
    low, high = padded(0.0 if chart.from_zero and not log else low, high, log)
    x_high = x_high if x_high > x_low else x_low + 1
    return Scale(x_low, x_high, x.start, x.end), Scale(low, high, y.start, y.end, log)


def _value_range(chart: Chart) -> tuple[float, float]:
    values: list[float] = []
    for series in chart.series:
        ys = [b for _, b in series.points]
        values += [quantile(ys, 0.005), quantile(ys, 0.995)] if series.form == "faint" else ys
    return _extent(values)


def _mark(place: float, words: str, y: Scale) -> str:
    """A vertical line; its words are the tooltip of the picture by itself, and a row of the page's own tooltip."""
    line = f'<line x1="{place:.1f}" x2="{place:.1f}" y1="{y.start:g}" y2="{y.end:g}"/>'
    return f'<g class="mark" data-x="{place:.1f}" data-words="{clean(words)}"><title>{clean(words)}</title>{line}</g>'


def _extent(values: Iterable[float]) -> tuple[float, float]:
    values = list(values)
    return min(values), max(values)


def _series(series: Series, x: Scale, y: Scale) -> list[str]:
    floor = y.low if y.log else min(max(0.0, y.low), y.high)
    points = [(x(a), y(max(b, y.low * 1e-3) if y.log else b)) for a, b in series.points]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    if series.form == "faint":
        return [f'<polyline class="{series.colour} faint" points="{path}"/>']
    values = clean(
        json.dumps([[f"{a:,g}" if a == int(a) else short(a), short(b, 4)] for a, b in series.points], separators=(",", ":"))
    )
    data = f'data-name="{clean(series.name)}" data-values="{values}"'
    if series.form == "bars":
        half = (points[1][0] - points[0][0]) / 2 - 0.75 if len(points) > 1 else 8
        bars = [
            f'<rect class="{series.colour} bar" x="{a - half:.1f}" y="{b:.1f}" width="{2 * half:.1f}" '
            f'height="{y(floor) - b:.1f}"/>'
            for a, b in points
        ]
        return [*bars, f'<polyline class="{series.colour} hit" {data} points="{path}"/>']
    stroke = "line rule" if series.form == "rule" else "line"
    if series.form == "dots" and len(points) < JOINED_FROM:
        stroke = "hit"
    lines = [f'<polyline class="{series.colour} {stroke}" {data} points="{path}"/>']
    if series.form == "dots" or len(points) == 1:
        radius = 3.5 if len(points) <= 20 else 2.5
        if len(points) <= 60:
            lines += [f'<circle class="{series.colour} dot" cx="{a:.1f}" cy="{b:.1f}" r="{radius}"/>' for a, b in points]
    return lines
