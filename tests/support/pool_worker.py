"""A worker that outlives its runs, as a program: run descriptions come as JSON lines on stdin, answers go as JSON lines to stdout.

One of several gloo processes; its rank, their number and the rendezvous file are on the command line. ``worker_pool`` is the other side.
"""

import gc
import importlib
import json
import os
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from small_training import build_training, small_config

from elf.processes import PROCESSES
from elf_platform.config import EngineConfig
from elf_platform.train.context import WorkerContext
from elf_platform.train.loop import Training, train
from elf_platform.train.requests import ask


def stop_after(job: Training, last: int) -> None:
    """Ask for a planned stop while step ``last`` is under way, as the driver would."""
    log = job.tracker.log

    def log_and_ask(step: int, metrics: Any) -> None:
        log(step, metrics)
        if step == last - 1:  # may come twice, with validation figures
            ask(job.context.run_folder, job.launch, "stop", f"this leg ends at step {last}")

    job.tracker.log = log_and_ask  # type: ignore[method-assign]


def run(described: dict[str, Any], rank: int, world: int) -> dict[str, Any]:
    """Train as described; the main worker leaves the whole final weights and their average in the run folder."""
    folder = Path(described["folder"])
    config = small_config(
        PROCESSES[described["process"]](), engine=EngineConfig(kind=described["kind"], zero=described["zero"]),
        optimiser=described["optimiser"], dropout=described["dropout"], workers=world, **described["train"],
    )
    job = build_training(config, folder, context=WorkerContext(rank=rank, world_size=world, local_rank=rank, run_folder=folder))
    # Each run is a launch of its own, as it is for the driver: the request that ended the one before is not for it.
    job = replace(job, launch=f"until {described['stop_after']}")
    if described["stop_after"] and rank == 0:
        stop_after(job, described["stop_after"])
    try:
        outcome = train(job)
        for kind in ("weight", "ema"):
            whole = job.engine.gather_weights(kind)
            if whole is not None:
                save_file(whole, folder / f"final-{kind}.safetensors")
    finally:
        job.tracker.close()
        job.engine.close()
    return {"outcome": outcome, "first": job.resume.step if job.resume else 0}


def main() -> None:
    """Answer run descriptions until stdin ends."""
    rank, world, rendezvous = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not get between the answers
    torch.set_num_threads(1)
    os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    importlib.import_module("elf_platform.train.zero")
    gc.freeze()  # a collection that looks through all that DeepSpeed imports takes 0.3 s, this one 0.01 s
    for line in sys.stdin:
        try:
            answer = run(json.loads(line), rank, world)
        except Exception:  # of any kind: the one who asked gets it to read
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        gc.collect()  # engines hold cycles
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
