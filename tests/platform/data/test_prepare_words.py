"""jobs/prepare.py's own options, and what it refuses beside them."""

import subprocess
import sys
from pathlib import Path

import pytest

from elf_platform.data.command import PrepareWords, sort_prepare_words

ROOT = Path(__file__).resolve().parents[3]


def test_own_options_are_taken_out() -> None:
    assert sort_prepare_words(["tiny", "--workers", "2", "--data.length=8"]) == (PrepareWords(workers=2), ["tiny", "--data.length=8"])
    words, rest = sort_prepare_words(["--inspect", "a b/[x]"])
    assert words == PrepareWords(inspect=Path("a b/[x]")) and words.looks and rest == []
    assert sort_prepare_words(["--held-out=x"])[0].held_out == Path("x")
    assert not sort_prepare_words([])[0].looks


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--inspect", "x", "--data.length", "8"], "--inspect shows a folder that was prepared, so that --data.length 8 would have no"),
        (["tiny", "--verify", "x"], "--verify checks a folder that was prepared, so that tiny would have no effect"),
        (["--inspect", "x", "--workers", "3"], "--workers would have no effect"),
        (["--inspect", "x", "--verify", "x"], "--verify would have no effect"),
        (["--held-out", ""], "--held-out is empty"),
        (["--inspect="], "--inspect is empty"),
        (["--inspect"], "expected one argument"),
        (["--workers", "-1"], "--workers is '-1', but must be a whole number"),
        (["--workers", "many"], "--workers is 'many', but must be a whole number"),
        (["--workers", "1.5"], "--workers is '1.5', but must be a whole number"),
        (["--workers", str(10**30)], "--workers is 1000000000000000000000000000000, but must be"),
        (["--inspect", "a\nb"], "must be one line of text without control characters"),
    ],
)
def test_what_would_have_no_effect_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(ValueError) as refused:
        sort_prepare_words(words)
    assert says in str(refused.value)


def test_the_job_says_so_in_one_paragraph() -> None:
    job = [sys.executable, str(ROOT / "jobs/prepare.py"), "--inspect", "nowhere", "--data.strict"]
    done = subprocess.run(job, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: --inspect shows a folder") and "Traceback" not in done.stderr and "\n\n" not in done.stderr
