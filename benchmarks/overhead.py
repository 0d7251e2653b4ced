"""What the platform costs: its step time against a bare PyTorch loop of the same steps, one worker, in turns on the same machine.

    python benchmarks/overhead.py                                # CPU, plain engine: about ten minutes at a second a step
    python benchmarks/overhead.py --engine deepspeed --repeats 3
    python benchmarks/overhead.py --steps 8 --log-every 2 --checkpoint-every 4 --hidden 64 --depth 2 --repeats 1   # does it run at all

The platform's side is a training run as `jobs/pretrain.py` starts it: Ray Train, the engine, the feed, MLflow in sqlite, a figure
logged every --log-every steps and a checkpoint every --checkpoint-every; no validation and no samples. The bare side is a process of
its own with the same number of threads, the same network, seed, batches (held in memory), draws and codec: forward, backward,
clipping, optimiser (elf.optim's Muon, or torch's own AdamW) and moving average, and nothing else; no Ray, feed, engine, tracker,
checkpoint, health or meter. Both leave out the first --log-every steps.

The two take turns, bare first and last, and each platform run is compared with the mean of the bare runs before and after it, so that
a machine that grows slower or faster by the minute moves both sides alike. Step times are wall clock between logged points, saves and
tracking included; a median is over the intervals between points, so that it leaves out the few in which a save falls, a mean is over
all of them. Text is made up and prepared by the product itself; the codec is a table, which costs next to nothing.

Exit status 1 when a median over the repeats misses what is demanded: mean overhead under 5 %, waiting for data under 1 % of the time,
training stopped by saves under 1 % of the time. At less than about half a second a step the fixed cost of a step weighs more.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from elf.codecs import TableConfig, load_codec
from elf.data.order import rows_of_step
from elf.draws import Draws
from elf.nn.config import NetworkConfig
from elf.optim import Ema, OptimConfig, Optimizer, ParamSlice, clip_factor, learning_rate
from elf.processes import EmbeddedFlow
from elf_platform.cli import run_main
from elf_platform.codec import prepare_codec
from elf_platform.config import DataConfig, EngineConfig, RunConfig, TokenizerConfig, TrainConfig
from elf_platform.config_io import flatten, read_config, write_config
from elf_platform.data.prepare import prepare
from elf_platform.data.reader import RowReader
from elf_platform.runtime import local_cluster, usable_cpus
from elf_platform.tracking import RunHandle, finish, open_run
from elf_platform.tracking.journal import METRICS_FILE, read_lines
from elf_platform.train.worker import Job, initial_network
from elf_platform.version import code_version

DEMANDED = {"overhead": 0.05, "loader": 0.01, "stall": 0.01}


@dataclass(frozen=True, kw_only=True)
class Side:
    """Seconds per step of one run, the mean over all its intervals and their median."""

    mean: float
    median: float

    @staticmethod
    def of(times: list[tuple[int, float]]) -> "Side":
        """From (finished steps, seconds on any clock), in order."""
        steps = [(late - early) / (after - before) for (before, early), (after, late) in pairwise(times)]
        return Side(mean=(times[-1][1] - times[0][1]) / (times[-1][0] - times[0][0]), median=statistics.median(steps))


@dataclass(frozen=True, kw_only=True)
class Platform:
    """A platform run: step times, shares of the time that training waited for data and for saves, seconds of a background write."""

    side: Side
    loader: float
    stall: float
    write: float


def make_text(path: Path, documents: int = 3000) -> None:
    """Documents of made-up words whose frequencies fall as those of real ones do; the same at each call."""
    rng = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er")]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(6000)]
    weights = [1 / (rank + 2) for rank in range(len(words))]
    path.write_text("\n\n".join(" ".join(rng.choices(words, weights, k=rng.randint(40, 120))) + "." for _ in range(documents)) + "\n")


def configure(own: argparse.Namespace, storage: Path, text: Path) -> RunConfig:
    """The run that is measured; --log-every steps more than --steps, which warm up."""
    lr, betas = (2e-3, (0.9, 0.999)) if own.optimiser == "muon" else (1e-4, (0.9, 0.95))
    return RunConfig(
        name="overhead",
        storage=storage,
        data=DataConfig(paths=(str(text),), tokenizer=TokenizerConfig(vocab_size=4096), length=own.length),
        codec=TableConfig(channels=256),
        process=EmbeddedFlow(),
        network=NetworkConfig(hidden=own.hidden, depth=own.depth, heads=max(1, own.hidden // 64)),
        optim=OptimConfig(name=own.optimiser, lr=lr, betas=betas, warmup_steps=2),
        train=TrainConfig(
            steps=own.log_every + own.steps, global_batch=own.batch, gpu="off", threads=own.threads, precision=own.precision,
            log_every=own.log_every, checkpoint_every=own.checkpoint_every, valid_rows=0,
        ),
        engine=EngineConfig(kind=own.engine),
    )


def prepare_job(config: RunConfig) -> Job:
    """Data and codec, by the product's own preparation; the run folder and the tracked run come with each repeat."""
    with local_cluster(config.train.threads):
        data = prepare(config.data, config.storage, progress=False)
    codec_folder, codec = prepare_codec(config, data, lambda job, title: None, threads=config.train.threads)
    assert codec is not None
    return Job(
        config=config, run_folder=config.storage, data_folder=data.folder, data_fingerprint=data.manifest.content_hash,
        codec_folder=codec_folder, channels=codec.channels, threads=config.train.threads, tracking=RunHandle(kind="null"),
        code_version=code_version(),
    )


def run_platform(job: Job, name: str) -> Platform:
    """One training run on Ray with MLflow, and what its journal says."""
    from elf_platform.train.driver import launch

    config = replace(job.config, name=name)
    run_folder = config.storage / "runs" / name
    run_folder.mkdir(parents=True)
    params = {key: str(value) for key, value in flatten(config).items()}
    handle = open_run(config.tracking, storage=config.storage, run_folder=run_folder, run_name=name, params=params)
    with local_cluster(job.threads):
        launch(replace(job, config=config, run_folder=run_folder, tracking=handle), use_gpu=False, title=name)
    finish(handle, run_folder, "FINISHED")
    points = [(line["step"], line["time"], line["metrics"]) for _, line in read_lines(run_folder / METRICS_FILE)]
    points = [point for point in points if "perf/step_seconds" in point[2]]
    seconds = [late[1] - early[1] for early, late in pairwise(points)]

    def share(metric: str) -> float:
        shares = [metrics.get(metric, math.nan) for _, _, metrics in points[1:]]
        return sum(of * within for of, within in zip(shares, seconds, strict=True)) / sum(seconds)

    return Platform(
        side=Side.of([(step, at) for step, at, _ in points]), loader=share("perf/data_wait_share"),
        stall=share("perf/save_stall_share"), write=points[-1][2].get("perf/save_seconds", math.nan),
    )


def run_bare(job: Job) -> Side:
    """The bare loop in a fresh process."""
    path = job.config.storage / "overhead.json"
    write_config(path, job.config, recipe="", code_version=job.code_version)
    order = {"config": str(path), "data": str(job.data_folder), "codec": str(job.codec_folder), "channels": job.channels}
    env = os.environ | {"OMP_NUM_THREADS": str(job.threads)}
    done = subprocess.run([sys.executable, __file__, "--bare", json.dumps(order)], capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"the bare loop failed:\n{done.stderr[-3000:]}")
    return Side.of([(step, at) for step, at in json.loads(done.stdout.splitlines()[-1])])


def bare_loop(order: dict[str, Any]) -> list[tuple[int, float]]:
    """The same steps in plain PyTorch; (finished steps, seconds) at the steps at which the platform logs a point."""
    config, _ = read_config(Path(order["config"]))
    data, train = Path(order["data"]), config.train
    torch.set_num_threads(train.threads)
    job = Job(
        config=config, run_folder=data, data_folder=data, data_fingerprint="", codec_folder=Path(order["codec"]),
        channels=order["channels"], threads=train.threads, tracking=RunHandle(kind="null"), code_version="",
    )
    rows, all_rows = RowReader(data), np.arange(train.global_batch, dtype=np.int64)
    chosen = [rows_of_step(step, all_rows, global_batch=len(all_rows), rows=len(rows), seed=config.seed) for step in range(train.steps)]
    batches = [rows.read(of_step) for of_step in chosen]
    codec, process = load_codec(Path(order["codec"])), config.process
    assert isinstance(process, EmbeddedFlow)
    network = initial_network(job, rows.tokenizer.vocab_size)
    network.train()
    update = BareUpdate(network, config)
    times = []
    for step, batch in enumerate(batches):
        draws = Draws(seed=config.seed, step=step, rows=all_rows, total=len(all_rows), device=torch.device("cpu"))
        drawn = process.draw(draws, batch, codec.channels)
        loss = process.loss(network, batch, codec.encode(batch, drawn.drop_condition_B), drawn).total
        (loss / process.count(batch)).backward()
        update(step)
        if (step + 1) % train.log_every == 0:
            times.append((step + 1, time.perf_counter()))
    return times


class BareUpdate:
    """Clipping, optimiser and moving average, the same arithmetic as the platform's without its figures."""

    def __init__(self, network: nn.Module, config: RunConfig) -> None:
        self.config, self.parameters = config, list(network.parameters())
        slices = [
            ParamSlice(name=name, shape=tuple(p.shape), start=0, stop=p.numel(), value=p.detach().view(-1))
            for name, p in network.named_parameters()
        ]
        optim = config.optim
        self.ema = Ema(slices, optim.ema_decay)
        self.ours = Optimizer(slices, optim) if optim.name == "muon" else None
        self.torchs = torch.optim.AdamW(self.parameters, lr=optim.lr, betas=optim.betas, eps=optim.eps, weight_decay=0.0, foreach=True)

    def __call__(self, step: int) -> None:
        optim = self.config.optim
        lr = learning_rate(step, optim, self.config.train.steps)
        for p in self.parameters:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        if self.ours is not None:
            grads = [p.grad.view(-1) for p in self.parameters if p.grad is not None]
            factor = clip_factor(math.sqrt(sum(self.ours.grad_sq_norms(grads).values()).item()), optim.clip_norm)  # type: ignore[union-attr]
            if factor < 1.0:
                torch._foreach_mul_(grads, factor)
            self.ours.step(grads, lr=lr)
        else:
            nn.utils.clip_grad_norm_(self.parameters, optim.clip_norm)
            self.torchs.param_groups[0]["lr"] = lr
            self.torchs.step()
        self.ema.update()
        for p in self.parameters:
            p.grad = None


def report(bare: list[Side], platform: list[Platform]) -> bool:
    """Prints the tables; True when the medians are as demanded."""
    sides = [f"{side}, {figure}" for side in ("bare s/step", "platform s/step", "overhead") for figure in ("mean", "median")]
    columns = (*sides, "loader", "save stall", "write s")
    print(f"| repeat | {' | '.join(columns)} |\n|---|{'---:|' * 9}")
    overheads: list[tuple[float, float]] = []
    for number, run in enumerate(platform):
        around = bare[number : number + 2]
        mean, median = (statistics.mean(getattr(side, name) for side in around) for name in ("mean", "median"))
        overheads.append((run.side.mean / mean - 1, run.side.median / median - 1))
        print(
            f"| {number + 1} | {mean:.4f} | {median:.4f} | {run.side.mean:.4f} | {run.side.median:.4f} | {overheads[-1][0]:.2%} | "
            f"{overheads[-1][1]:.2%} | {run.loader:.3%} | {run.stall:.3%} | {run.write:.2f} |"
        )
    means, medians = zip(*overheads, strict=True)
    spread = max(side.mean for side in bare) / min(side.mean for side in bare) - 1
    print(
        f"\noverhead: mean step {statistics.median(means):.2%} ({min(means):.2%} to {max(means):.2%}), median step "
        f"{statistics.median(medians):.2%} ({min(medians):.2%} to {max(medians):.2%}); the bare runs among themselves differ by up to "
        f"{spread:.2%}"
    )
    reached = {
        "overhead": statistics.median(means),
        "loader": statistics.median(run.loader for run in platform),
        "stall": statistics.median(run.stall for run in platform),
    }
    for name, value in reached.items():
        met = "reached" if value < DEMANDED[name] else "missed"
        print(f"{name}: under {DEMANDED[name]:.0%} demanded, {value:.3%}: {met}")
    return all(value < DEMANDED[name] for name, value in reached.items())


def main(argv: list[str]) -> int:
    """Bare, platform, bare, platform, ..., bare."""
    options = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=100, help="timed steps of a run, a multiple of --log-every")
    options.add_argument("--repeats", type=int, default=2, help="platform runs; there is one bare run more")
    options.add_argument("--hidden", type=int, default=384, help="width, a multiple of 64")
    options.add_argument("--depth", type=int, default=6, help="transformer blocks")
    options.add_argument("--batch", type=int, default=16, help="rows per step")
    options.add_argument("--length", type=int, default=64, help="tokens per row")
    options.add_argument("--engine", default="plain", choices=["plain", "deepspeed"])
    options.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    options.add_argument("--optimiser", default="muon", choices=["muon", "adamw"])
    options.add_argument("--log-every", type=int, default=10, help="steps between figures, and of the warm-up")
    options.add_argument("--checkpoint-every", type=int, default=50)
    spare = "CPU threads of either side; all CPUs but one by default, because Ray's own processes take a fixed part of one"
    options.add_argument("--threads", type=int, default=max(1, usable_cpus() - 1), help=spare)
    options.add_argument("--bare", help=argparse.SUPPRESS)
    own = options.parse_args(argv)
    if own.bare:
        print(json.dumps(bare_loop(json.loads(own.bare))))
        return 0
    if own.steps % own.log_every or own.steps < 2 * own.log_every:
        raise ValueError(f"--steps {own.steps} must be a multiple of --log-every {own.log_every}, and at least twice as much")
    with tempfile.TemporaryDirectory(prefix="elf-bench-") as place:
        text = Path(place) / "made-up.txt"
        make_text(text)
        job = prepare_job(configure(own, Path(place), text))
        print(
            f"hidden {own.hidden}, depth {own.depth}, {own.batch} rows of {own.length}, {own.precision}, {own.optimiser}, {own.engine} "
            f"engine, {own.threads} threads; {own.steps} steps, a point every {own.log_every}, a checkpoint every {own.checkpoint_every}",
            flush=True,
        )
        bare, platform = [run_bare(job)], []
        for repeat in range(own.repeats):
            platform.append(run_platform(job, f"overhead-{repeat}"))
            bare.append(run_bare(job))
    print()
    return 0 if report(bare, platform) else 1


if __name__ == "__main__":
    run_main(main)
