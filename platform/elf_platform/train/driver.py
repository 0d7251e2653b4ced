"""Places training workers with Ray Train and waits for them."""

import functools
import logging
import uuid
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from elf_platform.train.context import WorkerContext
from elf_platform.train.progress import Progress
from elf_platform.train.worker import Job, run_worker

COLLECTIVE_TIMEOUT_S = 1800
"""A worker that waits longer for the others gives up; the main one may sample or write meanwhile."""


def launch(job: Job, *, use_gpu: bool, title: str) -> None:
    """Run ``job`` on ``train.workers`` workers until it is trained; Ray restarts a dead group from the last checkpoint.

    Raises what Ray Train raises when they cannot go on; the worker's own error is inside (``cli.root_cause``)."""
    config = job.config
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    resources = {"GPU": 1.0, "CPU": 1.0} if use_gpu else {"CPU": float(job.threads)}
    trainer = TorchTrainer(
        functools.partial(_worker, job=job),
        scaling_config=ScalingConfig(num_workers=config.train.workers, use_gpu=use_gpu, resources_per_worker=resources),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=COLLECTIVE_TIMEOUT_S),
        # A name of its own each time: resuming is ours (checkpoints with a commit marker), Ray's own state would only get in the way.
        run_config=RunConfig(
            name=f"{config.name}-{uuid.uuid4().hex[:8]}",
            storage_path=str(job.run_folder / "ray"),
            failure_config=FailureConfig(max_failures=config.train.max_failures),
        ),
    )
    with Progress(job.run_folder, total=config.train.steps, title=title):
        trainer.fit()


def _worker(config: dict[str, Any] | None = None, *, job: Job) -> None:
    """Runs in a Ray Train worker."""
    here = ray.train.get_context()
    device = ray.train.torch.get_device()
    context = WorkerContext(
        rank=here.get_world_rank(), world_size=here.get_world_size(), local_rank=here.get_local_rank(),
        device=device if isinstance(device, torch.device) else device[0], run_folder=job.run_folder,
    )
    run_worker(job, context)
