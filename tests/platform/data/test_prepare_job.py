"""The job on the command line: killed and run again, verified, inspected."""

import hashlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from made_words import WORDS

from elf_platform.cli import parse_run_config
from elf_platform.config import DataConfig, TokenizerConfig
from elf_platform.data.inspect_data import verify
from elf_platform.data.manifest import Manifest
from elf_platform.data.prepare import PreparedData, prepare


def write_corpus(folder: Path, *, files: int, documents: int) -> None:
    rng = random.Random(0)
    folder.mkdir()
    for number in range(files):
        texts = [" ".join(rng.choices(WORDS, k=rng.randint(3, 60))) for _ in range(documents)]
        (folder / f"{number}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def prepare_here(config: DataConfig, storage: Path) -> PreparedData:
    """Without Ray."""
    return prepare(config, storage, progress=False, each=lambda jobs, task: map(task, jobs))


JOB = Path(__file__).parents[3] / "jobs" / "prepare.py"


def job_main() -> Callable[[list[str]], int]:
    spec = importlib.util.spec_from_file_location("job_prepare", JOB)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main  # type: ignore[no-any-return]


def test_job_inspects_and_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_corpus(tmp_path / "corpus", files=1, documents=60)
    config = DataConfig(
        paths=(str(tmp_path / "corpus"),), tokenizer=TokenizerConfig(vocab_size=300), length=32, valid_fraction=0.1
    )
    folder = prepare_here(config, tmp_path).folder
    main = job_main()
    assert main(["--inspect", str(folder)]) == 0 and "tokens in a row" in capsys.readouterr().out
    assert main(["--verify", str(folder)]) == 0 and "every hash is as it was prepared" in capsys.readouterr().out
    shard = folder / "train-00000.arrow"
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    assert main(["--verify", str(folder)]) == 1 and "train-00000.arrow was changed" in capsys.readouterr().out


def start_job(*arguments: str) -> "subprocess.Popen[str]":
    roots = os.pathsep.join(str(JOB.parents[1] / name) for name in ("platform", "model"))
    command = [sys.executable, str(JOB), *arguments]
    environment = os.environ | {"PYTHONPATH": roots}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_job_killed_in_the_middle_gives_the_same_bytes_when_run_again(tmp_path: Path) -> None:
    """SIGKILL of the job while it tokenises on Ray; the reference is made here, without Ray."""
    write_corpus(tmp_path / "corpus", files=8, documents=3000)
    options = ["--data.paths", str(tmp_path / "corpus" / "*.jsonl"), "--data.shard_mb", "0.5", "--workers", "1"]
    options += ["--storage", str(tmp_path / "killed")]
    job = start_job(*options)
    deadline = time.monotonic() + 180
    while not (done := list((tmp_path / "killed").glob("data/*/part-*.json"))):
        assert job.poll() is None and time.monotonic() < deadline, job.communicate()[0]
        time.sleep(0.005)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    folder = done[0].parent
    assert not (folder / "manifest.json").exists() and len(list(folder.glob("part-*.json"))) < 8

    again = start_job(*options)
    said = again.communicate(timeout=600)[0]
    assert again.returncode == 0 and "parts were finished by an earlier attempt and are kept" in said, said
    config = parse_run_config(options[:4]).config.data
    whole = prepare_here(config, tmp_path / "whole")
    assert whole.folder.name == folder.name and Manifest.load(folder) == whole.manifest
    killed, reference = (
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in place.glob("*.arrow")}
        for place in (folder, whole.folder)
    )
    assert killed == reference and len(reference) >= 9 and verify(folder) == []
