"""The report as one file: no request leaves it, and no text of the run can become markup or script."""

import base64
import hashlib
from pathlib import Path

from elf.files import write_text
from elf_platform.report.charts import Chart, clean, draw, standalone
from elf_platform.report.figures import section_charts
from elf_platform.report.headline import header
from elf_platform.report.record import RunRecord, read_record
from elf_platform.report.script import SCRIPT
from elf_platform.report.style import CHART_CSS, DARK, LIGHT, PAGE_CSS
from elf_platform.report.texts import events_section, samples_section, settings_section, trajectory_section

REPORT_FILE = "report.html"


def write_report(run_folder: Path) -> Path:
    """Writes ``report.html`` into the run folder, whole or not at all, and returns its path.

    Reads config.json, summary.json, metrics.jsonl, events.jsonl, samples.jsonl, trajectory.json and times.json; what is missing or broken
    is left out. Raises FileNotFoundError when the folder itself does not exist.
    """
    path = run_folder / REPORT_FILE
    write_text(path, page(read_record(run_folder)))
    return path


def render_figures(run_folder: Path) -> dict[str, bytes]:
    """Every chart of the report as an SVG file of its own: file name to content."""
    sections = section_charts(read_record(run_folder))
    return {f"{chart.slug}.svg": standalone(chart) for _, _, charts in sections for chart in charts}


def page(record: RunRecord) -> str:
    """The whole HTML document."""
    sections = {title: _charts(title, lead, charts) for title, lead, charts in section_charts(record)}
    body = [
        header(record),
        sections.get("Learning", ""),
        sections.get("Noise levels", ""),
        samples_section(record),
        trajectory_section(record),
        sections.get("Machine", ""),
        events_section(record),
        settings_section(record),
    ]
    # The policy lets this one script run and nothing else, should a text ever slip through the escaping.
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    style = f":root{{color-scheme:light dark;{LIGHT}}}@media(prefers-color-scheme:dark){{:root{{{DARK}}}}}{PAGE_CSS}{CHART_CSS}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{clean(record.name)}</title><style>{style}</style></head>\n<body><main>{''.join(body)}"
        f"<footer>{clean(record.config.get('code_version', ''))}</footer></main><script>{SCRIPT}</script></body></html>\n"
    )


def _charts(title: str, lead: str, charts: list[Chart]) -> str:
    small = " small" if all(chart.size[0] < 400 for chart in charts) else ""
    intro = f'<p class="lead">{clean(lead)}</p>' if lead else '<p class="lead"></p>'
    return f'<section><h2>{clean(title)}</h2>{intro}<div class="charts{small}">{"".join(map(_figure, charts))}</div></section>'


def _figure(chart: Chart) -> str:
    legend = note = ""
    if len(chart.legend) > 1:
        keys = "".join(f'<span class="{series.colour}">{clean(series.name)}</span>' for series in chart.legend)
        legend = f'<div class="legend">{keys}</div>'
    if chart.note:
        note = f'<p class="note">{clean(chart.note)}</p>'
    caption = f'<figcaption><h3>{clean(chart.title)}</h3><p class="unit">{clean(chart.unit_line)}</p>{legend}</figcaption>'
    return f"<figure>{caption}{draw(chart)}{note}</figure>"
