"""Places training workers with Ray Train, waits for them, and stops them politely."""

import functools
import logging
import threading
import uuid
from dataclasses import replace
from typing import Any

import ray
import ray.train
import torch
from pyarrow.fs import LocalFileSystem
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from elf_platform.cli import root_cause
from elf_platform.extend import newest_step
from elf_platform.stops import Terminated, raise_on_sigterm
from elf_platform.train.callbacks import controller_callbacks
from elf_platform.train.checkpoint import goes_on_from
from elf_platform.train.context import WorkerContext
from elf_platform.train.progress import Progress
from elf_platform.train.requests import answer_to, ask, clear_requests
from elf_platform.train.resizing import SaveFirstTrainer
from elf_platform.train.worker import Job, run_worker

CONTROLLER_FAILURES = 5
"""Times that Ray may fail to start the group at all before the run ends; Ray itself would try for ever."""


def launch(job: Job, *, use_gpu: bool, title: str) -> None:
    """Run ``job`` on ``train.workers`` workers until it is trained; Ray restarts a dead group from the last checkpoint.

    Ctrl-C and SIGTERM let the workers save and end within ``train.stop_within_s`` before KeyboardInterrupt goes on; a second one goes on at
    once. Raises what Ray Train raises when the workers cannot go on; the worker's own error is inside (``cli.root_cause``)."""
    job = replace(job, launch=uuid.uuid4().hex[:8])
    config = job.config
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    clear_requests(job.run_folder)
    trainer = SaveFirstTrainer(
        functools.partial(_worker, job=job),
        scaling_config=_scaling(job, use_gpu),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=int(config.health.timeout_s)),
        # A name of its own each time: resuming is ours (checkpoints with a commit marker), Ray's own state would only get in the way.
        run_config=RunConfig(
            name=f"{config.name}-{job.launch}",
            storage_path=str(job.run_folder / "ray"),
            storage_filesystem=LocalFileSystem(),  # otherwise the path is read as an address, in which ? and % mean something
            failure_config=FailureConfig(max_failures=config.train.max_failures, controller_failure_limit=CONTROLLER_FAILURES),
            callbacks=controller_callbacks(job.run_folder, job.launch),
        ),
        run_folder=job.run_folder, launch=job.launch, patience_s=config.train.stop_within_s,
    )
    first = newest_step(job.run_folder)
    with Progress(job.run_folder, total=config.train.steps, title=title, first=first) as progress:
        _wait(job, trainer, progress)


def _scaling(job: Job, use_gpu: bool) -> ScalingConfig:
    train = job.config.train
    resources = {"CPU": float(job.threads)} | ({"GPU": 1.0} if use_gpu else {})
    workers = (train.min_workers, train.workers) if train.min_workers else train.workers
    return ScalingConfig(
        num_workers=workers, use_gpu=use_gpu, resources_per_worker=resources, elastic_resize_monitor_interval_s=train.resize_every_s
    )


def _wait(job: Job, trainer: TorchTrainer, progress: Progress) -> None:
    """``trainer.fit()`` in a thread, so that signals are ours: Ray would tear the group down without a save."""
    errors: list[BaseException] = []
    # An event: a signal that arrives in Thread.join makes Python 3.11 take the thread for finished.
    ended = threading.Event()

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    threading.Thread(target=fit, name="ray-train", daemon=True).start()
    raise_on_sigterm()
    try:
        while not ended.wait(0.2):
            pass
    except KeyboardInterrupt as interrupt:
        raise _stopped(job, interrupt, ended, errors, progress) from None
    if errors:
        raise errors[0]


def _stopped(
    job: Job, interrupt: KeyboardInterrupt, ended: threading.Event, errors: list[BaseException], progress: Progress
) -> BaseException:
    """Has the workers save and end. What the run then ends with: the interruption, or the error that kept the stop from being saved."""
    seconds, where = job.config.train.stop_within_s, job.run_folder / "checkpoints"
    progress.say(f"stopping: the workers finish their step and save, for {seconds:g} s at most; once more to stop at once")
    try:
        request = ask(job.run_folder, job.launch, "stop", f"stopped by {'SIGTERM' if isinstance(interrupt, Terminated) else 'Ctrl-C'}")
    except OSError as error:
        progress.say(f"the workers could not be asked to save ({error}); {goes_on_from(where)}")
        return interrupt
    if not ended.wait(seconds):
        progress.say(f"the workers did not end within {seconds:g} s; {goes_on_from(where)}")
        return interrupt
    if not errors:
        return interrupt
    answer, cause = answer_to(job.run_folder, request), root_cause(errors[0])
    if answer is not None and answer.step is not None:
        words = f"{type(cause).__name__}: {cause}"
        progress.say(f"the checkpoint of step {answer.step} is saved, but the workers then ended with an error ({words})")
        return interrupt
    progress.say(f"the stop was not saved; {goes_on_from(where)}")
    return errors[0]


def _worker(config: dict[str, Any] | None = None, *, job: Job) -> str:
    """Runs in a Ray Train worker."""
    here = ray.train.get_context()
    device = ray.train.torch.get_device()
    context = WorkerContext(
        rank=here.get_world_rank(), world_size=here.get_world_size(), local_rank=here.get_local_rank(),
        device=device if isinstance(device, torch.device) else device[0], run_folder=job.run_folder,
    )
    return run_worker(job, context)
