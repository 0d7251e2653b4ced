"""One worker of a small training run, as a program: rank, world size and the run's settings come from the command line."""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from small_training import build_training, small_config

from elf.processes import PROCESSES
from elf_platform.config import EngineConfig
from elf_platform.train.context import WorkerContext
from elf_platform.train.loop import train


def main() -> None:
    """Train, then leave the gathered weights and their average beside the run folder."""
    settings = json.loads(sys.argv[1])
    rank, world, folder = settings["rank"], settings["world"], Path(settings["folder"])
    torch.set_num_threads(1)
    os.environ["DS_ACCELERATOR"] = "cpu"
    if world > 1 or settings["kind"] == "deepspeed":
        store = f"file://{folder.parent / 'rendezvous'}-{settings['token']}"
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    config = small_config(
        PROCESSES[settings["process"]](), engine=EngineConfig(kind=settings["kind"], zero=settings["zero"]),
        optimiser=settings["optimiser"], workers=world, log_every=1, **settings.get("train", {}),
    )
    job = build_training(config, folder, context=WorkerContext(rank=rank, world_size=world, local_rank=rank, run_folder=folder))
    train(job)
    job.tracker.close()
    for kind in ("weight", "ema"):
        whole = job.engine.gather_weights(kind)
        if whole is not None:
            save_file(whole, folder / f"final-{kind}.safetensors")
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
