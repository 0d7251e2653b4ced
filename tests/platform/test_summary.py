"""What a run prints at its end, from the files that it left; and the figures about time and held-out rows that stand in them."""

import json
import shlex
from pathlib import Path

import pytest

from elf_platform.headline import total_seconds, training_figures
from elf_platform.report.closing import duration, sample_words
from elf_platform.report.record import Sample
from elf_platform.summary import print_summary


def leave(folder: Path, *, source_column: str = "") -> None:
    """The files of a finished run whose name and texts look like markup."""
    folder.mkdir(parents=True)
    config = {"name": folder.name, "seed": 3, "data": {"source_column": source_column}, "process": {"kind": "elf"}}
    (folder / "config.json").write_text(json.dumps(config))
    summary = {
        "valid/loss": 2.5, "valid/loss_at_start": 3.0, "score/gen_ppl": 4225.0, "score/gen_ppl_low": 4142.0, "score/gen_ppl_high": 4298.0,
        "sample/known_word_share": float("nan"), "score/bleu": 12.5, "artefact": str(folder / "artefact"), "data": str(folder / "data"),
        "score/judge": str(folder / "judge"), "time/total_seconds": 75.0, "sample/count": 2.0, "sample/empty": 1.0,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    lines = [{"step": 4, "index": 0, "text": " "}, {"step": 4, "index": 1, "text": "[bold]one[/] [/two"}]
    if source_column:
        lines = [line | {"source": "a [red]", "reference": "[b]"} for line in lines]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("source_column", ["", "de"])
def test_the_summary_answers_what_people_ask(source_column: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "runs of 'mine'" / "[red]x[b] $HOME"
    leave(folder, source_column=source_column)
    print_summary(folder)
    said = capsys.readouterr().out
    assert folder.name in said.splitlines()[0]
    if source_column:
        assert "a [red] -> [bold]one[/] [/two   (target: [b])" in said and "a [red] -> (no text)" in said
    else:
        assert said.index("[bold]one[/] [/two") < said.index("(no text)"), "samples with text come first"
    rows = [" ".join(line.split()) for line in said.splitlines()]
    assert "validation loss 2.5 at initialisation 3" in rows and "BLEU of the answers 12.5" in rows
    assert "generative perplexity of samples 4,225 4,142 to 4,298" in rows
    assert "share of sampled words known from the text not defined" in rows
    assert "time 1 min 15 s" in rows and "samples 1 of 2 are empty: end of text at their first place" in rows
    assert "Lower is better" in said and f"artefact     {folder / 'artefact'}" in said
    commands = {name: shlex.split(line) for name, line in (row.split(": ", 1) for row in said.partition("next:")[2].splitlines() if row)}
    named = {Path(words[1]).stem: words for words in commands.values()}
    assert str(folder / "artefact") in named["sample"] and "--config" in named["pretrain"]
    assert named["pretrain"][3:] == [str(folder), "--seed", "4", "--name", f"{folder.name}-seed-4"]
    assert {"sample", "evaluate", "pretrain"} <= named.keys() and ("prepare" in named) == bool(source_column)


def test_durations_are_said_as_people_say_them() -> None:
    assert [duration(seconds) for seconds in (0.2, 59.7, 61, 3599, 18_120)] == ["0 s", "1 min 0 s", "1 min 1 s", "59 min 59 s", "5 h 2 min"]


def test_long_samples_are_one_line() -> None:
    said = sample_words(Sample(step=1, index=0, text="word\n" * 500, source="s", reference=""), width=40)
    assert "\n" not in said and said.startswith("s -> word word") and said.endswith("...") and len(said) < 60


def test_time_is_that_of_the_starts_and_not_of_the_waits_between(tmp_path: Path) -> None:
    def line(**values: object) -> str:
        return json.dumps(values) + "\n"

    (tmp_path / "events.jsonl").write_text(
        line(step=0, time=100.0, kind="preflight", text="") + line(step=4, time=130.0, kind="stop", text="")
        + line(step=0, time=1000.0, kind="preflight", text="")
    )
    (tmp_path / "metrics.jsonl").write_text(
        line(step=0, time=110.0, metrics={"valid/loss": 3.0}) + line(step=2, time=115.0, metrics={"perf/step_seconds": 2.0})
        + line(step=4, time=120.0, metrics={"perf/step_seconds": 1.0, "perf/memory_gb": 0.5})
        + line(step=6, time=1010.0, metrics={"perf/step_seconds": 3.0, "perf/memory_gb": 0.25})
    )
    assert total_seconds(tmp_path, 1020.0) == 30.0 + 20.0
    figures = training_figures(tmp_path)
    assert figures["time/training_seconds"] == 2 * 2.0 + 2 * 1.0 + 2 * 3.0 and figures["perf/peak_memory_gb"] == 0.5
