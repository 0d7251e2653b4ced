"""The training loop of one worker. Knows neither Ray nor DeepSpeed nor MLflow: the engine, the tracker and the world are arguments."""

import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from elf.batch import Batch
from elf.codecs import Codec
from elf.draws import Draws
from elf.files import append_lines
from elf.metrics.flops import flops_per_row, peak_flops
from elf.processes import Process
from elf_platform.config import RunConfig
from elf_platform.tracking import Tracker
from elf_platform.train.checkpoint import Checkpoint, CheckpointReader, Retention, goes_on_from
from elf_platform.train.context import WorkerContext
from elf_platform.train.engine import Engine
from elf_platform.train.feed import Feed, Rows, micro_batches, passes, share_of
from elf_platform.train.health import BadStep, Health, RolledBack, read_windows, record_window
from elf_platform.train.meter import Meter
from elf_platform.train.replicas import ReplicasDiffer, describe, differing, fingerprints
from elf_platform.train.requests import ACTIONS, Action, Answer, Inbox, Request
from elf_platform.train.saver import Saver, Saving
from elf_platform.train.snapshots import Snapshots
from elf_platform.train.system import NodeMeter, merge
from elf_platform.train.validation import validate
from elf_platform.train.watchdog import Watchdog
from elf_platform.train.world import gather_objects

Outcome = Literal["finished", "stopped"]

SAVE_PATIENCE_S = 300.0
"""Seconds that the main worker's saving thread waits for the others' files."""
RESIZE_HOLD_S = 10.0
"""Seconds that workers wait, after a save before a resize, for the end of their group: the controller looks every two, and the steps in
between would be lost."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one worker needs to train; the driver's side of it is ``driver``, tests build it by hand."""

    config: RunConfig
    context: WorkerContext
    process: Process
    network: torch.nn.Module
    engine: Engine
    codec: Codec | None
    train_rows: Rows
    valid_rows: Rows | None
    tracker: Tracker
    snapshots: Snapshots | None  # main worker only
    lineage: dict[str, Any]  # goes into every checkpoint: resolved config, data fingerprint, code version, tracking run
    resume: Checkpoint | None = None
    launch: str = ""  # of the driver's requests that this attempt obeys

    @property
    def checkpoints(self) -> Path:
        return self.context.run_folder / "checkpoints"


def rows_per_pass(config: RunConfig, world_size: int) -> int:
    """Rows of one forward pass on one worker, at most."""
    return config.train.micro_batch or -(-config.train.global_batch // world_size)


def train(job: Training) -> Outcome:
    """Train from the resumed checkpoint, or from the start, to ``train.steps``, or until a stop is asked for; log, validate, sample and
    save on the way.

    Raises OSError when the last save fails, BadStep when ``health`` ends the run, ReplicasDiffer, and RolledBack when all workers have to
    begin again from the last checkpoint."""
    with _Loop(job).running() as loop:
        return loop.run()


class _Loop:
    """The state of one attempt on one worker."""

    def __init__(self, job: Training) -> None:
        self.job, self.train, self.engine = job, job.config.train, job.engine
        context, kept = job.context, job.config.train
        self.share = share_of(kept.global_batch, context.rank, context.world_size)
        self.passes = passes(kept.global_batch, context.world_size, kept.micro_batch)
        flops = flops_per_row(job.process, job.network) * kept.global_batch
        peak = peak_flops(context.device, kept.precision) * context.world_size
        self.meter = Meter(job.process, job.engine, context.device, flops_per_step=flops, peak_flops=peak)
        windows, token = gather_objects((read_windows(context.run_folder), f"{time.time_ns():x}"))[0]
        state = job.resume.state if job.resume else {}
        self.health = Health(job.config.health, global_batch=kept.global_batch, windows=windows, state=state.get("health"))
        self.saver = Saver(
            Saving(
                root=job.checkpoints, token=token, rank=context.rank, writers=1 if job.engine.replicated else context.world_size,
                keep=Retention(last=kept.keep, best=kept.keep_best, every=kept.keep_every), patience_s=SAVE_PATIENCE_S,
            ),
            on_problem=lambda step, problem: job.tracker.event(step, "checkpoint", self._save_problem(step, problem)),
        )
        self.inbox = Inbox(context.run_folder, job.launch)
        self.watchdog = Watchdog(
            job.config.health.stall_s, context.run_folder, context.rank, lambda line: job.tracker.event(self.done, "stall", line)
        )
        self.node = NodeMeter(context.run_folder) if context.local_rank == 0 else None
        self.request: Action | None = None
        self._asked: list[Request] = []  # main worker only
        self.done = self._restore()

    @contextmanager
    def running(self) -> Iterator["_Loop"]:
        """With the watchdog on; a save in the making is finished however the attempt ends."""
        with self.watchdog:
            try:
                yield self
            finally:
                self.saver.wait()

    def run(self) -> Outcome:
        """All steps that are left."""
        train, job = self.train, self.job
        feed = Feed(
            job.train_rows, seed=job.config.seed, global_batch=train.global_batch, share=self.share, first_step=self.done,
            last_step=train.steps,
        )
        if self.done == 0:
            self._observe()
        for step, batch in feed:
            self._step(step, batch, feed)
            self.done = step + 1
            self.watchdog.beat(self.done)
            if _due(self.done, train.log_every, train.steps):
                self._log(feed.waited)
            valid_loss = self._observe() if _due(self.done, train.valid_every, train.steps) else None
            if train.sample_every and self.done % train.sample_every == 0 and self.done < train.steps:
                self._snapshot()
            if job.config.health.replicas_every and self.done % job.config.health.replicas_every == 0:
                self._compare_replicas()
            if _due(self.done, train.checkpoint_every, train.steps) or self.request:
                self._save(valid_loss)
            if self.request and self._answer(self.request) == "stop":
                return "stopped"
        self._finish_save()
        return "finished"

    def _restore(self) -> int:
        """Load state and average from the checkpoint (weights were loaded before the engine was built); the first step to do."""
        resume = self.job.resume
        if resume is None:
            return 0
        updater = self.engine.updater
        CheckpointReader(resume).restore(updater.slices, updater.state())
        updater.optimizer.counters.update(resume.state["counters"])
        self.meter.restore(resume.state, is_main=self.job.context.is_main)
        return resume.step

    def _step(self, step: int, batch: Batch, feed: Feed) -> None:
        """Forward and backward over this worker's micro-batches, then the update, unless something is wrong with the step."""
        if self.health.window_of(step) is not None:
            self.meter.step_skipped()
            return
        if self.train.record_rows:
            self._record_rows(step, feed)
        count, tokens = self._global_counts(batch)
        for i, (part, rows) in enumerate(micro_batches(batch, self.share, self.passes)):
            loss = self._forward(step, part, rows)
            self.engine.backward(loss / max(count, 1.0), last=i == self.passes - 1)
        mean = self.meter.step_loss(max(count, 1.0))
        # The same figures on every worker, so all decide alike: the loss is summed over them, the norm over the slices they hold, or taken
        # from gradients that are equal on all.
        result = self.engine.step(step, lambda norm: self.health.problem(mean, norm) is None)
        self.meter.step_done(count, tokens, result)
        if result.skipped:
            self._reject(step, self.health.problem(mean, result.grad_norm) or "its gradient is not finite")
        else:
            self.health.accept(mean, result.grad_norm)

    def _global_counts(self, batch: Batch) -> tuple[float, float]:
        """Loss positions and tokens of the whole global batch, known before the first backward pass; and whether anyone asked the main
        worker for something, which all workers have to know at the same step."""
        self._asked = self.inbox.poll() if self.job.context.is_main else []
        code = max((1 + ACTIONS.index(request.action) for request in self._asked), default=0)
        here = torch.tensor([float(self.job.process.count(batch)), float(batch.length_B.sum()), float(code)], dtype=torch.float64)
        count, tokens, strongest = self.engine.all_reduce(here.to(self.job.context.device)).tolist()
        if strongest:
            self.request = ACTIONS[int(strongest) - 1]
        return count, tokens

    def _forward(self, step: int, part: Batch, rows: Any) -> torch.Tensor:
        """Loss sum of one micro-batch."""
        job, device = self.job, self.job.context.device
        part = part.to(device)
        draws = Draws(seed=job.config.seed, step=step, rows=rows, total=self.train.global_batch, device=device)
        drawn = job.process.draw(draws, part, job.codec.channels if job.codec else 0)
        state_BLC = job.codec.encode(part, getattr(drawn, "drop_condition_B", None)) if job.codec else None
        total, parts_P2, levels_K2 = self.engine.forward(part, state_BLC, drawn)
        self.meter.add(parts_P2, levels_K2, job.process.times(drawn))
        return total

    def _reject(self, step: int, reason: str) -> None:
        """A step that left the weights as they were: note its rows for all later attempts, and do as ``health.on_bad_step`` says."""
        job = self.job
        try:
            window = self.health.reject(step, reason)
        except BadStep as error:
            job.tracker.event(step, "stop", str(error))
            raise
        problem = None
        if job.context.is_main:
            try:
                record_window(job.context.run_folder, window)
            except OSError as error:
                problem = str(error)
        problem = gather_objects(problem)[0]  # and from here on every worker finds the window in the run folder
        if problem:
            raise OSError(f"the rows skipped at step {step} could not be noted in {job.context.run_folder}: {problem}; free some disk")
        back = job.config.health.on_bad_step == "rollback"
        job.tracker.event(step, "rollback" if back else "skip", f"{reason}; rows {window.first_row} to {window.end_row - 1}")
        if back:
            self.saver.wait()
            gather_objects(None)  # no one looks for the newest checkpoint before it is committed
            raise RolledBack(f"step {step}: {reason}")

    def _log(self, waited: float) -> None:
        point = self.meter.point(waited)
        nodes = gather_objects(self.node.figures() if self.node else None)
        point["perf/save_seconds"] = self.saver.write_seconds
        self.job.tracker.log(self.done, point | merge(nodes))

    def _observe(self) -> float | None:
        """Validation figures; the loss."""
        job = self.job
        if job.valid_rows is None or not self.train.valid_rows:
            return None
        started = time.perf_counter()
        figures = validate(
            job.process, self.engine, job.codec, job.valid_rows, job.context, count=self.train.valid_rows,
            micro_batch=rows_per_pass(job.config, job.context.world_size), seed=job.config.seed,
        )
        job.tracker.log(self.done, figures)
        self.meter.pause(time.perf_counter() - started)
        self.watchdog.beat(self.done)
        return figures["valid/loss"]

    def _snapshot(self) -> None:
        """Samples of the moving average as it is now, made by the main worker."""
        started = time.perf_counter()
        weights = self.engine.gather_weights("ema")
        if weights is not None and self.job.snapshots is not None:
            try:
                updates = self.engine.updater.optimizer.counters["step"]
                self.job.snapshots.write(self.done, weights, decay=self.job.config.optim.ema_decay, updates=updates)
            except OSError as error:  # a full disk: samples are no reason to stop
                self.job.tracker.event(self.done, "warning", f"the samples of step {self.done} could not be written: {error}")
        self.meter.pause(time.perf_counter() - started)
        self.watchdog.beat(self.done)

    def _compare_replicas(self) -> None:
        """Raises ReplicasDiffer on all workers when two of them do not hold the same of what they share."""
        common = self.engine.common()
        if not common:
            return
        found = differing(gather_objects(fingerprints(common)))
        if found:
            message = describe(found, self.done)
            self.job.tracker.event(self.done, "warning", message)
            raise ReplicasDiffer(message)

    def _record_rows(self, step: int, feed: Feed) -> None:
        path = self.job.context.run_folder / "rows" / f"rank-{self.job.context.rank:05d}.jsonl"
        append_lines(path, [json.dumps({"step": step, "rows": feed.rows_of(step).tolist()})])

    def _save(self, valid_loss: float | None) -> None:
        """Begin to save the state after ``done`` steps; how long training waited for it goes into the figures."""
        job, started = self.job, time.perf_counter()
        state = {
            **job.lineage, **self.meter.state(), "counters": self.engine.updater.optimizer.counters, "health": self.health.state(),
            "valid_loss": valid_loss, "workers": job.context.world_size,
        }
        self.saver.save(self.done, self.engine.updater.slices, self.engine.updater.state(), state)
        self.meter.stall(time.perf_counter() - started)

    def _answer(self, action: Action) -> Action:
        """Finish the save that was asked for, tell whoever asked, and give back what to do next. A save that fails ends only a stop."""
        self.request = None
        started = time.perf_counter()
        problem = self._await_save()
        if self.job.context.is_main:
            with contextlib.suppress(OSError):  # a full disk: whoever asked then waits in vain
                self.inbox.answer(Answer(problem=problem) if problem else Answer(step=self.done))
            if action == "stop":
                reason = next(request.reason for request in self._asked if request.action == "stop")
                what = f"was not saved: {problem}" if problem else "was saved first"
                self.job.tracker.event(self.done, "stop", f"{reason}; the checkpoint of step {self.done} {what}")
            if action == "resize" and not problem:
                self._hold([request for request in self._asked if request.action == "resize"])
        if action == "stop" and problem:
            raise OSError(self._unsaved(problem))
        self.meter.stall(time.perf_counter() - started)
        self.watchdog.beat(self.done)
        return action

    def _hold(self, asked: list[Request]) -> None:
        """The main worker waits for the end of the group, and the others for it, at the next step's first sum."""
        until = time.monotonic() + RESIZE_HOLD_S
        while time.monotonic() < until and any(self.inbox.stands(request) for request in asked):
            time.sleep(0.1)

    def _await_save(self) -> str | None:
        """The end of the save in the making; why it failed, the same on all workers, and None when it did not."""
        return next((p for p in gather_objects(self.saver.wait()) if p), None)

    def _finish_save(self) -> None:
        """Raises OSError on all workers when the save in the making fails."""
        problem = self._await_save()
        if problem:
            raise OSError(self._unsaved(problem))

    def _unsaved(self, problem: str) -> str:
        return f"{self._save_problem(self.done, problem)} Free some disk space; {goes_on_from(self.job.checkpoints)}."

    def _save_problem(self, step: int, problem: str) -> str:
        return f"The checkpoint of step {step} could not be written to {self.job.checkpoints}: {problem}. The last good one is kept."


def _due(done: int, every: int, last: int) -> bool:
    return done == last or (every > 0 and done % every == 0)
