"""A group that is about to be resized saves first, and Ray's controller goes on meanwhile.

The controller is one event loop that also watches the workers, and its hooks are plain functions: one that waits for a save stops it. So
the decision itself is put off: asked whether to resize, the scaling policy leaves a request in the run folder and says no, until the answer
lies there. Workers that have saved for a resize wait a few seconds for the end of their group (``loop.RESIZE_HOLD_S``), so no step is lost
between the save and the controller's next look.

Scaling policies are Ray's own affair: with a version that makes them otherwise, a resize costs the steps since the last checkpoint.
"""

import time
from pathlib import Path
from typing import Any

from ray.train.torch import TorchTrainer

from elf_platform.tracking import book_event
from elf_platform.train.callbacks import last_step
from elf_platform.train.requests import Request, answer_to, ask, withdraw

try:
    from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, NoopDecision
except ImportError:
    ElasticScalingPolicy, NoopDecision = object, None


class SaveFirst(ElasticScalingPolicy):
    """Ray's elastic policy, which resizes a running group once it has saved.

    A save that fails calls the resize off until the next look (``train.resize_every_s``): the group goes on as it is. One that is not
    answered within ``patience_s`` does not hold the resize up."""

    def __init__(self, scaling_config: Any, run_folder: Path, launch: str, patience_s: float) -> None:
        super().__init__(scaling_config)
        self.run_folder, self.launch, self.patience_s = run_folder, launch, patience_s
        self._asked: Request | None = None
        self._asked_at, self._group = 0.0, 0.0

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> Any:
        """Called at each look at the workers, every two seconds."""
        if self._asked is not None and self._group != worker_group_state.start_time:
            self._forget()  # the group that was asked is gone
        if self._asked is None:
            decision = super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)
            return decision if isinstance(decision, NoopDecision) else self._put_off(decision, worker_group_state.start_time)
        answer = answer_to(self.run_folder, self._asked)
        if answer is None and time.monotonic() - self._asked_at < self.patience_s:
            return NoopDecision()
        if answer is not None and answer.step is None:
            self._forget()
            text = f"the number of workers stays as it is, since the save before the change failed: {answer.problem}"
            book_event(self.run_folder, last_step(self.run_folder), "warning", text)
            return NoopDecision()
        self._latest_monitor_time = float("-inf")  # what there is to be had may have changed since: decide anew, and now
        decision = super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)
        if isinstance(decision, NoopDecision):
            self._forget()
        else:
            self._asked = None  # it stands: the workers wait for their end
        return decision

    def _put_off(self, decision: Any, group: float) -> Any:
        words = f"the group is about to be restarted with {decision.num_workers} workers"
        try:
            self._asked = ask(self.run_folder, self.launch, "resize", words)
        except OSError:  # a full disk: nothing can be saved now
            return NoopDecision()
        self._asked_at, self._group = time.monotonic(), group
        return NoopDecision()

    def _forget(self) -> None:
        if self._asked is not None:
            withdraw(self.run_folder, self._asked)
        self._asked = None


class SaveFirstTrainer(TorchTrainer):
    """A TorchTrainer whose elastic policy is ``SaveFirst``."""

    def __init__(self, *args: Any, run_folder: Path, launch: str, patience_s: float, **words: Any) -> None:
        super().__init__(*args, **words)
        self._place = (run_folder, launch, patience_s)

    def _initialize_and_run_controller(self, **words: Any) -> Any:  # named by Ray
        if NoopDecision is not None and type(words.get("scaling_policy")) is ElasticScalingPolicy:
            words["scaling_policy"] = SaveFirst(words["scaling_policy"].scaling_config, *self._place)
        return super()._initialize_and_run_controller(**words)
