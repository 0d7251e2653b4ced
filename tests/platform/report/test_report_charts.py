"""Charts are read back from their SVG: pixels to values by the tick labels, as a reader does it."""

import math
import random
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from elf.schedules import logit_normal_density as torch_density
from elf_platform.report.charts import Chart, Series, clean, draw, standalone
from elf_platform.report.figures import level_chart, loss_charts, times_chart
from elf_platform.report.record import Line, RunRecord
from elf_platform.report.scale import Scale, linear_ticks, log_ticks, short
from elf_platform.report.series import logit_normal_density, quantile, smooth, spread, thin


def read_back(svg: str, log: bool) -> dict[str, Line]:
    """Named lines of a chart in values of its axes."""
    tree = ElementTree.fromstring(svg)
    ticks = [element for element in tree.iter("text") if element.get("class") == "tick"]
    across = [(float(t.attrib["x"]), number(t.text)) for t in ticks if t.get("text-anchor") == "middle"]
    up = [(float(t.attrib["y"]) - 4, number(t.text)) for t in ticks if t.get("text-anchor") == "end"]
    lines = {}
    for line in tree.iter("polyline"):
        if "data-name" in line.attrib:
            pixels = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
            lines[line.attrib["data-name"]] = [(value(across, x, False), value(up, y, log)) for x, y in pixels]
    return lines


def number(text: str | None) -> float:
    assert text is not None
    factors = {"k": 1e3, "M": 1e6, "B": 1e9}
    return float(text[:-1]) * factors[text[-1]] if text[-1] in factors else float(text)


def value(ticks: list[tuple[float, float]], pixel: float, log: bool) -> float:
    (a, low), (b, high) = ticks[0], ticks[-1]
    low, high = (math.log(low), math.log(high)) if log else (low, high)
    result = low + (pixel - a) / (b - a) * (high - low)
    return math.exp(result) if log else result


@pytest.mark.parametrize("log", [False, True])
def test_a_line_read_by_its_axes_has_the_values_that_were_drawn(log: bool) -> None:
    points = [(100.0 * i, 8 * math.exp(-i / 20) + 0.01) for i in range(120)]
    chart = Chart(slug="a", title="A", unit="u", series=[Series(name="one", points=points)], log=log)
    read = read_back(draw(chart), log)["one"]
    assert [x for x, _ in read] == pytest.approx([x for x, _ in points], abs=12000 / 490)  # a pixel
    assert [y for _, y in read] == pytest.approx([y for _, y in points], rel=0.02 if log else 0, abs=0 if log else 0.03)


def test_the_axis_is_logarithmic_where_values_span_much_and_says_so() -> None:
    def chart_of(high: float, **settings: bool) -> Chart:
        series = [Series(name="a", points=[(0.0, high), (1.0, 1.0)])]
        return Chart(slug="a", title="A", unit="nats", series=series, **settings)  # type: ignore[arg-type]

    assert chart_of(50.0).unit_line == "nats, logarithmic axis"
    assert chart_of(2.0).unit_line == "nats"
    assert not chart_of(50.0, from_zero=True).logarithmic
    assert not Chart(slug="a", title="A", unit="u", series=[Series(name="a", points=[(0.0, 0.0), (1.0, 9.0)])]).logarithmic


def test_the_histogram_has_area_one_and_lies_on_the_density() -> None:
    rng = random.Random(0)
    counts = [0.0] * 40
    for _ in range(200_000):
        counts[min(39, int(40 / (1 + math.exp(-rng.gauss(-1.5, 0.8)))))] += 1
    record = RunRecord(
        name="r", config={"process": {"time_mean": -1.5, "time_std": 0.8}}, time_edges=[i / 40 for i in range(41)], time_counts=counts
    )
    read = read_back(draw(times_chart(record)[0]), log=False)
    assert sum(height / 40 for _, height in read["drawn"]) == pytest.approx(1, abs=0.02)
    curve = {round(t, 3): density for t, density in times_chart(record)[0].series[1].points}
    for t, height in times_chart(record)[0].series[0].points:
        low, high = curve[round(t - 0.0125, 3)], curve[round(t + 0.0125, 3)]
        middle = logit_normal_density(t, -1.5, 0.8)
        assert height == pytest.approx((low + 4 * middle + high) / 6, abs=0.06)  # Simpson's mean over the bin


def test_the_density_is_that_of_the_training_times() -> None:
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    expected = torch_density(t, -1.5, 0.8).tolist()
    assert [logit_normal_density(float(x), -1.5, 0.8) for x in t] == pytest.approx(expected, rel=1e-9)
    assert logit_normal_density(0.0, -1.5, 0.8) == logit_normal_density(1.0, -1.5, 0.8) == 0.0


def test_the_levels_of_validations_are_shown_at_five_steps_from_first_to_last() -> None:
    metrics = {f"valid/level/{k}": [(100.0 * i, 1.0 + k + i) for i in range(11)] for k in (0, 1, 5, 9)}
    metrics |= {f"train/level/{k}": [(float(i), 99.0) for i in range(1000)] for k in range(10)}
    chart = level_chart(RunRecord(name="r", metrics=metrics))[0]
    assert [series.name for series in chart.series] == ["step 0", "step 200", "step 500", "step 800", "step 1k"]
    assert chart.series[-1].points == [(0.05, 11.0), (0.15, 12.0), (0.55, 16.0), (0.95, 20.0)]
    assert [series.colour for series in chart.series] == ["q0", "q1", "q2", "q3", "q4"]


def test_without_validations_the_levels_of_training_are_averaged_by_stretch() -> None:
    metrics = {"train/level/3": [(float(i), float(i)) for i in range(101)], "train/level/4": [(50.0, 7.0)]}
    chart = level_chart(RunRecord(name="r", metrics=metrics))[0]
    assert [series.points for series in chart.series] == [
        [(0.35, 10.0)], [(0.35, 30.0)], [(0.35, 50.0), (0.45, 7.0)], [(0.35, 70.0)], [(0.35, 90.0)]
    ]
    assert level_chart(RunRecord(name="r")) == []


def test_the_total_is_shown_beside_several_parts_and_not_beside_one_that_is_the_same() -> None:
    line: Line = [(float(i), 1.0 / (1 + i)) for i in range(10)]
    almost = [(x, y * (1 + 1e-12)) for x, y in line]
    one = loss_charts(RunRecord(name="r", metrics={"train/loss": line, "train/ce": almost}))
    assert [chart.title for chart in one] == ["Cross-entropy"]
    two = loss_charts(RunRecord(name="r", metrics={"train/flow": line, "train/decoder_ce": almost, "train/loss": [(0.0, 9.0)]}))
    assert [chart.title for chart in two] == ["Total loss", "Flow matching", "Decoder cross-entropy"]


def test_smoothing_keeps_straight_lines_and_calms_noise() -> None:
    straight = [(float(i), 3.0 - 0.01 * i) for i in range(1000)]
    body = slice(0, 980)  # the last window is one-sided
    assert smooth(straight)[body] == [(x, pytest.approx(y, abs=1e-9)) for x, y in straight[body]]
    rng = random.Random(0)
    noise = [(float(i), rng.gauss(0, 1)) for i in range(5000)]
    spread_of = quantile([abs(y) for _, y in smooth(noise)[100:]], 0.68)
    assert spread_of == pytest.approx(1 / math.sqrt(101), rel=0.2)  # the standard error of a mean of 101
    assert smooth([]) == [] and smooth([(0.0, 1.0)]) == [(0.0, 1.0)]


def test_thinning_keeps_ends_and_every_peak() -> None:
    line = [(float(i), math.sin(i / 50)) for i in range(20_000)]
    line[7_777] = (7777.0, 100.0)
    line[12_345] = (12345.0, -100.0)
    thinned = thin(line, 400)
    assert len(thinned) <= 400 and thinned[0] == line[0] and thinned[-1] == line[-1]
    assert {(7777.0, 100.0), (12345.0, -100.0)} <= set(thinned) <= set(line)
    assert thinned == sorted(thinned)
    assert thin(line[:300], 400) == line[:300]
    assert spread(3, 5) == [0, 1, 2] and spread(101, 5) == [0, 25, 50, 75, 100]


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (0.31, 0.34), (-2.0, 7.0), (1e-6, 3e-4), (0.0, 123456.0)])
def test_ticks_are_round_inside_the_range_and_few(low: float, high: float) -> None:
    ticks = linear_ticks(low, high, 5)
    assert 2 <= len(ticks) <= 6 and all(low - 1e-12 <= tick <= high * (1 + 1e-9) for tick in ticks)
    step = ticks[1] - ticks[0]
    assert f"{step:.6e}"[0] in "125" and float(f"{step:.0e}") == pytest.approx(step)


@pytest.mark.parametrize("low, high", [(0.5, 9.0), (1e-4, 10.0), (3.0, 4.0), (1e-12, 1e12)])
def test_logarithmic_ticks_are_inside_the_range_and_few(low: float, high: float) -> None:
    ticks = log_ticks(low, high, 5)
    assert 2 <= len(ticks) <= 7 and all(low * 0.999 <= tick <= high * 1.001 for tick in ticks)
    scale = Scale(low, high, 0, 100, log=True)
    assert scale(low) == 0 and scale(high) == pytest.approx(100) and scale(math.sqrt(low * high)) == pytest.approx(50)


@pytest.mark.parametrize(
    "number_, text", [(0, "0"), (1234, "1.23k"), (20000, "20k"), (1.05e8, "105M"), (10.5e9, "10.5B"), (0.00213, "0.00213"), (2e-5, "2e-5"),
                      (-0.5, "-0.5"), (999.96, "1k"), (1 / 3, "0.333")]
)  # fmt: skip
def test_numbers_are_short(number_: float, text: str) -> None:
    assert short(number_) == text


def test_a_figure_of_its_own_is_a_whole_svg_with_title_and_legend(tmp_path: Path) -> None:
    series = [Series(name="a < b", points=[(0.0, 1.0), (1.0, 2.0)]), Series(name="c", points=[(0.0, 2.0), (1.0, 1.0)], colour="s2")]
    tree = ElementTree.fromstring(standalone(Chart(slug="x", title="T & U", unit="u", series=series)))
    assert tree.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert {"T & U", "a < b", "c", "optimiser step"} <= set(texts)
    # Programs without CSS variables would draw it black on black.
    style = tree.find("{http://www.w3.org/2000/svg}style")
    assert style is not None and style.text is not None and "var(" not in style.text
    assert ".s2.line{stroke:#eb6834;stroke-width:2}" in style.text and ".paper{fill:#fdfdfc}" in style.text


def test_flat_and_single_point_lines_can_be_drawn() -> None:
    for points in ([(0.0, 0.0)], [(5.0, 3.0), (9.0, 3.0)], [(0.0, -1.0), (1.0, -1.0)]):
        for form in ("line", "dots", "faint"):
            svg = draw(Chart(slug="x", title="T", unit="u", series=[Series(name="a", points=points, form=form)]))  # type: ignore[arg-type]
            assert "nan" not in svg and ElementTree.fromstring(svg).tag == "svg"


def test_text_is_made_safe() -> None:
    assert clean("<a href=\"x\" id='y'>&\x00\x1f\ud800\t\n") == "&lt;a href=&quot;x&quot; id=&#x27;y&#x27;&gt;&amp;\ufffd\ufffd\ufffd\t\n"
