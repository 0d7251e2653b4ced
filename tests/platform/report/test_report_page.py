"""The report is parsed, not looked at: what a browser would run, fetch and show must be what the run folder says."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from elf_platform.commands import job_command
from elf_platform.report import render_figures, write_report
from elf_platform.report.closing import empty_words
from elf_platform.report.record import read_record
from elf_platform.tracking import RunHandle, book_event, start_tracker

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \"quotes\" 'too' \x00\ud800 end"
SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "br", "img", "link", "input"}


class Page(HTMLParser):
    """Elements, their attributes and texts as a browser would see them; checks that tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[int, str] = {}
        self._open: list[int] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for place in self._open:
            self.texts[place] = self.texts.get(place, "") + data

    def all(self, tag: str, name: str = "") -> list[str]:
        """Texts of the elements with this tag and class."""
        found = [i for i, (t, attrs) in enumerate(self.elements) if t == tag and (not name or name in attrs.get("class", "").split())]
        return [self.texts.get(i, "") for i in found]


def write_run(folder: Path, *, kind: str = "elf", name: str = "a-run") -> None:
    """A small run with everything that a run leaves."""
    tracker = start_tracker(RunHandle(kind="jsonl"), folder)
    parts = {"elf": ("flow", "decoder_ce"), "autoregressive": ("ce",)}[kind]
    for step in range(0, 101, 2):
        figures = {f"{split}/{part}": 5 / (1 + step) + i for split in ("train", "valid") for i, part in enumerate(parts)}
        for split in ("train", "valid"):
            figures[f"{split}/loss"] = sum(figures[f"{split}/{part}"] for part in parts)
            if kind == "elf":
                figures |= {f"{split}/level/{k}": 1 + k + 100 / (step + 10) for k in range(10)}
        tracker.log(step, figures | {"optim/lr": 1e-3 * step, "optim/grad_norm": 1.0, "perf/tokens_per_second": 2000.0 + step})
    tracker.close()
    process = {"kind": kind} | ({"time_mean": -1.5, "time_std": 0.8} if kind == "elf" else {})
    write(folder / "config.json", {"name": name, "recipe": "tiny", "process": process, "train": {"steps": 100}, "data": {"paths": []}})
    summary = {"steps": 100.0, "valid/loss": 0.4321, "valid/unigram_ce": 3.0, "sample/nfe": 33.0, "artefact": str(folder / "artefact")}
    write(folder / "summary.json", summary)
    lines = [{"step": s, "index": i, "seed": 7, "text": f"text {s} {i} {EVIL}", "nfe": 33} for s in (0, 50, 100) for i in range(2)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if kind == "elf":
        points = [{"t": i / 8, "text": " ".join(f"w{j}" if j <= i else f"x{i}{j}" for j in range(8))} for i in range(8)]
        write(folder / "trajectory.json", {"seed": 7, "settings": {}, "points": points})
        write(folder / "times.json", {"edges": [i / 40 for i in range(41)], "counts": list(range(40))})


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def read_page(folder: Path) -> tuple[str, Page]:
    text = write_report(folder).read_text("utf-8")
    return text, Page(text)


def test_a_conditional_run_shows_source_answer_and_target_and_how_to_ask_and_score(tmp_path: Path) -> None:
    write_run(tmp_path)
    config, summary = (json.loads((tmp_path / name).read_text()) for name in ("config.json", "summary.json"))
    write(tmp_path / "config.json", config | {"data": {"paths": [], "source_column": "de"}})
    write(tmp_path / "summary.json", summary | {"data": str(tmp_path / "data [x]")})
    line = {"step": 100, "index": 0, "text": "an answer", "source": "it's [a] source", "reference": "the target"}
    (tmp_path / "samples.jsonl").write_text(json.dumps(line) + "\n")
    _, page = read_page(tmp_path)
    shown = page.all("code")
    assert job_command("sample", tmp_path / "artefact", "--prompt=it's [a] source", anywhere=True) in shown
    assert f"{job_command('prepare', '--held-out', tmp_path / 'data [x]', anywhere=True)} > {tmp_path}/held-out.jsonl" in shown
    assert [text.strip() for text in page.all("p", "meta")] == ["it's [a] source →", "target: the target"]
    assert page.all("p", "prose")[0] == "an answer"


def test_texts_that_are_empty_say_so_and_come_last(tmp_path: Path) -> None:
    write_run(tmp_path)
    lines = [
        {"step": step, "index": i, "text": text}
        for step, texts in ((50, ("early", "", "")), (100, (" ", "late", ""))) for i, text in enumerate(texts)
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write(tmp_path / "trajectory.json", {"seed": 7, "points": [{"t": 0.5, "text": ""}, {"t": 1.0, "text": "words"}]})
    _, page = read_page(tmp_path)
    none = "(no text)"
    assert page.all("p", "prose") == [none, "early", none, "late", none, none, none, "words"]


def test_facts_of_the_run_are_told_with_a_legend(tmp_path: Path) -> None:
    write_run(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    told = {
        "time/total_seconds": 3725.0, "time/training_seconds": 130.0, "perf/peak_memory_gb": 1.25, "corpus": "mine: 9 documents",
        "held_out": "9 rows", "score/protocol": "judge tiny, protocol elf", "sample/settings": "sde with 4 steps", "sample/count": 32.0,
        "sample/empty": 32.0, "data": "/data", "checkpoint": "/checkpoint",
    }
    write(tmp_path / "summary.json", summary | told)
    _, page = read_page(tmp_path)
    facts = dict(zip(page.all("th"), page.all("td"), strict=False))
    assert facts["time"] == "1 h 2 min, of which training 2 min 10 s" and facts["peak memory"] == "1.25 GB, main worker"
    assert facts["corpus"] == "mine: 9 documents" and facts["judge"] == "tiny, protocol elf" and facts["sampler"] == "sde with 4 steps"
    assert facts["samples"].startswith("all 32 are empty: the model puts end of text first")
    assert facts["data"] == "/data" and facts["checkpoint"] == "/checkpoint" and facts["held out"] == "9 rows"
    assert any("Lower is better" in lead and "95 % interval" in lead for lead in page.all("p", "lead"))
    record = read_record(tmp_path)
    some = replace(record, summary=record.summary | {"sample/empty": 3.0})
    assert empty_words(some) == "3 of 32 are empty: end of text at their first place"
    assert empty_words(replace(record, summary=record.summary | {"sample/empty": 0.0})) == ""


def test_every_section_is_there_and_says_what_the_files_say(tmp_path: Path) -> None:
    write_run(tmp_path)
    _, page = read_page(tmp_path)
    assert page.all("h1") == ["a-run"]
    assert page.all("h2") == ["Learning", "Noise levels", "Samples", "Denoising", "Machine", "Record"]
    titles = ["Total loss", "Flow matching", "Decoder cross-entropy", "Learning rate", "Loss against noise level", "Sampled times"]
    assert [title for title in page.all("h3") if not title.startswith("step")] == [*titles, "Throughput", "Gradient norm"]
    cards = dict(zip(page.all("span", "name"), page.all("span", "value"), strict=False))
    assert cards["Validation loss"] == "0.4321" and cards["Steps"] == "100" and cards["NFE"] == "33" and cards["Tokens / s"] == "2.05k"
    command = job_command("sample", tmp_path / "artefact", "--count", "16", anywhere=True)
    assert {str(tmp_path / "artefact"), command} <= set(page.all("code"))
    assert len(page.all("div", "stop")) == 8
    assert [text.split()[1] for text in page.all("p", "prose")[:6]] == ["0", "0", "50", "50", "100", "100"]
    units = page.all("p", "unit")
    assert any(unit.startswith("nats per token") for unit in units)
    assert any(unit.startswith("mean squared velocity error per channel") for unit in units)


def test_nothing_in_a_run_becomes_markup_or_script(tmp_path: Path) -> None:
    write_run(tmp_path, name=EVIL.replace("\ud800", ""))
    points = [{"t": 0.5, "text": EVIL}, {"t": 1.0, "text": EVIL + " more"}]
    write(tmp_path / "trajectory.json", {"seed": 1, "points": points})
    tracker = start_tracker(RunHandle(kind="jsonl"), tmp_path)
    tracker.log(100, {f"optim/grad_norm/{EVIL}": 1.0, "train/\"><script>": 1.0})
    tracker.close()
    text, page = read_page(tmp_path)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 1 and "img" not in tags
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    shown = page.all("p", "prose")[0]
    assert shown == f"text 0 0 {EVIL}".replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    policy = next(attrs["content"] for tag, attrs in page.elements if attrs.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.all("script")[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
    for name, svg in render_figures(tmp_path).items():
        assert "/" not in name
        tree = ElementTree.fromstring(svg)
        assert {element.tag.rpartition("}")[2] for element in tree.iter()}.isdisjoint({"script", "img"})
    assert "\x00" not in text


def test_the_page_asks_nothing_of_any_other_place(tmp_path: Path) -> None:
    write_run(tmp_path)
    text, page = read_page(tmp_path)
    fetching = {"src", "href", "xlink:href", "action", "srcset", "poster", "data"}
    assert not [attributes for _, attributes in page.elements if fetching & set(attributes)]
    styles = "".join(page.all("style")) + "".join(attributes.get("style", "") for _, attributes in page.elements)
    assert "@import" not in styles and "url(" not in styles
    assert set(re.findall(r"https?://[^\s\"'<)]+", text)) == {"http://www.w3.org/2000/svg"}  # a name that script needs, not an address


def test_an_autoregressive_run_has_no_noise_levels_and_shows_its_loss_once(tmp_path: Path) -> None:
    write_run(tmp_path, kind="autoregressive")
    _, page = read_page(tmp_path)
    assert page.all("h2") == ["Learning", "Samples", "Machine", "Record"]
    assert "Cross-entropy" in page.all("h3") and "Total loss" not in page.all("h3")
    assert set(render_figures(tmp_path)) == {"loss_ce.svg", "learning_rate.svg", "tokens_per_second.svg", "grad_norm.svg"}


FILES = ("config.json", "summary.json", "metrics.jsonl", "samples.jsonl", "trajectory.json", "times.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "torn", "of another form"])
def test_a_missing_or_broken_file_costs_its_own_section_only(tmp_path: Path, name: str, damage: str) -> None:
    write_run(tmp_path)
    path = tmp_path / name
    if damage == "missing":
        path.unlink()
    else:
        content = {"empty": "", "torn": path.read_text()[: len(path.read_text()) // 2], "of another form": '[1, {"step": "x"}]\n'}
        path.write_text(content[damage])
    _, page = read_page(tmp_path)
    sections = set(page.all("h2"))
    own = {"metrics.jsonl": {"Learning", "Machine"}, "samples.jsonl": {"Samples"}, "trajectory.json": {"Denoising"}}.get(name, set())
    assert not own & sections or (damage == "torn" and name.endswith(".jsonl"))
    assert sections >= {"Learning", "Noise levels", "Samples", "Denoising", "Machine", "Record"} - own


def test_a_run_that_logged_one_point_and_an_empty_folder_have_a_report(tmp_path: Path) -> None:
    tracker = start_tracker(RunHandle(kind="jsonl"), tmp_path / "one")
    tracker.log(0, {"train/loss": 2.0, "valid/loss": 0.0, "optim/lr": 0.0})
    tracker.close()
    (tmp_path / "none").mkdir()
    for name in ("one", "none"):
        _, page = read_page(tmp_path / name)
        assert page.all("h1") == [name]
    with pytest.raises(FileNotFoundError, match="run folder"):
        write_report(tmp_path / "nothing")


def test_words_of_the_trajectory_that_will_stay_are_told_from_those_that_will_not(tmp_path: Path) -> None:
    write_run(tmp_path)
    points = [{"t": 0.5, "text": "a cat lay on the mat"}, {"t": 1.0, "text": "the cat sat on the mat"}]
    write(tmp_path / "trajectory.json", {"seed": 7, "points": points})
    _, page = read_page(tmp_path)
    assert page.all("span", "open") == ["a ", "lay "]
    assert page.all("span", "meta") == ["67% final", "100% final"]


def test_only_the_last_drawing_of_a_sample_is_shown(tmp_path: Path) -> None:
    write_run(tmp_path)
    with open(tmp_path / "samples.jsonl", "a") as file:
        file.write(json.dumps({"step": 50, "index": 0, "text": "drawn again"}) + "\n" + '{"step": 50, "ind')
    _, page = read_page(tmp_path)
    assert [text for text in page.all("p", "prose") if text.startswith(("text 50 0", "drawn"))] == ["drawn again"]


def marks(folder: Path) -> list[tuple[str, str]]:
    """(x in pixels, words) of the vertical lines of the total loss."""
    tree = ElementTree.fromstring(render_figures(folder)["loss.svg"])
    return [(group.attrib["data-x"], group.attrib["data-words"]) for group in tree.iter(f"{SVG}g") if group.get("class") == "mark"]


def test_a_run_that_went_straight_through_shows_no_events(tmp_path: Path) -> None:
    write_run(tmp_path)
    book_event(tmp_path, 0, "attempt", "1 worker")
    text, page = read_page(tmp_path)
    assert "Events" not in page.all("h2") and 'class="mark"' not in text and marks(tmp_path) == []


def test_restarts_and_resizes_are_listed_and_marked_in_the_loss(tmp_path: Path) -> None:
    write_run(tmp_path)
    for step, kind, words in (
        (0, "attempt", "1 worker"), (24, "passed_over", "step-00000040 is torn"), (24, "attempt", f"again {EVIL}"),
        (50, "resize", "1 to 2 workers"), (50, "attempt", "2 workers"), (60, "skip", "loss not finite"),
    ):  # fmt: skip
        book_event(tmp_path, step, kind, words)
    _, page = read_page(tmp_path)
    assert page.all("h2") == ["Learning", "Noise levels", "Samples", "Denoising", "Machine", "Events", "Record"]
    assert page.all("table", "events")[0].count("step ") == 6
    assert "3 attempts." in page.all("p", "lead")
    found = marks(tmp_path)
    assert [words for _, words in found] == [
        f"attempt 2: again {EVIL}".replace("\x00", "\ufffd").replace("\ud800", "?"), "resize: 1 to 2 workers; attempt 3: 2 workers"
    ]  # fmt: skip
    left, right = 56, 560 - 14
    assert [float(x) for x, _ in found] == pytest.approx([left + 0.24 * (right - left), (left + right) / 2], abs=0.1)
    charts = [tag for tag, attrs in page.elements if tag == "g" and attrs.get("class") == "mark"]
    assert len(charts) == 2 * 3  # total loss and its two parts


def test_a_broken_line_of_events_costs_itself_only(tmp_path: Path) -> None:
    write_run(tmp_path)
    book_event(tmp_path, 0, "attempt", "1 worker")
    with open(tmp_path / "events.jsonl", "a") as file:
        file.write('{"step": "x", "time": 1, "kind": "skip", "text": "of another form"}\n[1]\n{"torn')
    book_event(tmp_path, 3, "stop", "Ctrl-C")
    _, page = read_page(tmp_path)
    assert page.all("table", "events")[0].count("step ") == 2


def test_generative_perplexity_is_shown_with_its_protocol_and_beside_real_text(tmp_path: Path) -> None:
    write_run(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    figures = {"score/gen_ppl": 234.5, "score/gen_ppl_low": 210.0, "score/gen_ppl_high": 260.0, "score/gen_ppl_reference": 87.0}
    figures |= {"score/gen_ppl_unigram": 900.0, "score/entropy": 3.25, "score/entropy_reference": 3.5}
    write(tmp_path / "summary.json", summary | figures | {"score/protocol": f"judge tiny, protocol elf {EVIL}"})
    page = Page(write_report(tmp_path).read_text("utf-8"))
    cards = " | ".join(page.all("div", "card"))
    assert "Gen. PPL234.5210 to 260, real text 87, unigram 900" in cards and "Entropy3.25real text 3.5" in cards
    assert "BLEU" not in cards
    assert any(text.startswith("tiny, protocol elf </script>") for text in page.all("td")) and not page.all("img")
