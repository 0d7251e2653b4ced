"""Small runs, everything real but Ray, from the command line's words to the report: under names and with values that the checks let
through although hardly anybody means them."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from made_words import WORDS
from pretraining import SMALL

from elf_platform.check import check_run
from elf_platform.cli import parse_run_config
from elf_platform.codec import prepare_codec
from elf_platform.config_io import flatten, write_config
from elf_platform.data.prepare import prepare
from elf_platform.finish import finish
from elf_platform.report import write_report
from elf_platform.summary import print_summary
from elf_platform.tracking import finish as end_tracking
from elf_platform.tracking import load_handle, open_run
from elf_platform.train.context import WorkerContext
from elf_platform.train.worker import Job, run_worker

HUGE = 10**12
LARGEST = 2**63 - 1
ODD = "Ünï 'кот' [bold]x[ ?%41#& $HOME"
NAME = "a.B_9-+=@,z"
OFF = (
    "--train.valid_rows 0 --train.valid_every 0 --sample.count 0 --process.decoder_prob 0 --process.self_cond_prob 0 --optim.ema_decay 0 "
    "--optim.warmup_steps 0 --optim.clip_norm 0 --optim.momentum 0 --optim.betas 0 0 --process.decoder_noise_scale 0 --health.stall_s 0 "
    "--process.decoder_level_std 0 --health.replicas_every 0 --sample.gamma 0 --sample.guidance_to 0"
)
BEYOND = (
    f"--train.log_every {HUGE} --train.valid_every {HUGE} --train.valid_rows {HUGE} --train.checkpoint_every {HUGE} --train.keep {HUGE} "
    f"--train.sample_every {HUGE} --health.window {HUGE} --health.max_bad_steps {HUGE} --health.spike_factor 1e308 "
    f"--optim.clip_norm 1e308 --seed {LARGEST} --sample.seed {LARGEST} --codec.seed {LARGEST} --network.rope_theta 1e12 "
    f"--health.replicas_every {HUGE} --process.decoder_prob 1 --process.time_mean 30 --process.condition_drop_prob 1 "
    "--optim.warmup_steps 1"
)


def here(jobs: Sequence[Any], task: Callable[[Any], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return map(task, jobs)


@pytest.mark.slow
@pytest.mark.parametrize("words", [OFF, BEYOND], ids=["everything off", "everything beyond the end"])
def test_a_run_with_odd_names_and_odd_values(words: str, tmp_path: Path) -> None:
    texts, storage = tmp_path / "корпус %41 #1", tmp_path / ODD
    texts.mkdir()
    draw = random.Random(0)
    documents = [" ".join(draw.choices(WORDS, k=draw.randint(20, 60))) for _ in range(400)]
    (texts / "текст 1.txt").write_text("\n\n".join(documents), encoding="utf-8")
    config = parse_run_config(
        [
            *SMALL.split(), "--train.steps", "4", "--train.valid_every", "2", *words.split(), "--name", NAME, "--tracking.experiment", NAME,
            "--storage", str(storage), "--data.paths", f"{texts}/*.txt",
        ]
    ).config
    check_run(config)
    torch.set_num_threads(1)
    data = prepare(config.data, config.storage, progress=False, each=here)
    codec_folder, codec = prepare_codec(config, data, lambda job, title: None, threads=1)
    assert codec is not None
    run_folder = storage / "runs" / NAME
    run_folder.mkdir(parents=True)
    write_config(run_folder / "config.json", config, recipe="tiny", code_version="test")
    params = {name: str(value) for name, value in flatten(config).items()}
    handle = open_run(config.tracking, storage=storage, run_folder=run_folder, run_name=NAME, params=params)
    job = Job(
        config=config, run_folder=run_folder, data_folder=data.folder, data_fingerprint=data.manifest.content_hash,
        codec_folder=codec_folder, channels=codec.channels, threads=1, tracking=handle, code_version="test",
    )
    assert run_worker(job, WorkerContext(run_folder=run_folder, device=torch.device("cpu"))) == "finished"
    figures = finish(job)
    report = write_report(run_folder)
    assert end_tracking(load_handle(run_folder) or handle, run_folder, "FINISHED", [report])
    print_summary(run_folder)
    torch.use_deterministic_algorithms(False)
    assert figures["steps"] == 4 and json.loads((run_folder / "summary.json").read_text())["run"] == NAME
    assert {path.name for path in tmp_path.iterdir()} == {ODD, texts.name}
    assert {"data", "runs", "codecs", "mlflow.db", "mlartifacts"} <= {path.name for path in storage.iterdir()}
    client = mlflow.MlflowClient(handle.uri)
    (run,) = client.search_runs([handle.experiment_id])
    assert run.info.run_name == NAME and run.info.status == "FINISHED" and run.data.params["train.steps"] == "4"
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["report.html"]
