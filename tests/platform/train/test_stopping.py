"""How a stop ends: saved, not saved, or not in time; the words and the exit status say which."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train import ControllerError
from small_training import small_config

from elf_platform.cli import root_cause
from elf_platform.tracking import RunHandle, read_events
from elf_platform.train.callbacks import controller_callbacks
from elf_platform.train.checkpoint import MARKER, checkpoint_folder
from elf_platform.train.driver import _stopped
from elf_platform.train.requests import Answer, Inbox, ask
from elf_platform.train.worker import Job


def stopped(folder: Path, *, errors: list[BaseException], answer: Answer | None, ends: bool = True) -> tuple[BaseException, str, bool]:
    """What a stop ends with, what was said, and whether the error is the interruption: workers that answer so and end so."""
    job = Job(
        config=small_config(stop_within_s=0.5), run_folder=folder, data_folder=folder, data_fingerprint="", codec_folder=None,
        channels=6, threads=1, tracking=RunHandle(kind="null"), code_version="", launch="one",
    )
    ended, said, interrupt = threading.Event(), [], KeyboardInterrupt()

    def workers() -> None:
        inbox = Inbox(folder, "one")
        while not inbox.poll():
            pass
        if answer is not None:
            inbox.answer(answer)
        if ends:
            ended.set()

    thread = threading.Thread(target=workers)
    thread.start()
    outcome = _stopped(job, interrupt, ended, errors, SimpleNamespace(say=said.append))  # type: ignore[arg-type]
    thread.join()
    return outcome, " ".join(said), outcome is interrupt


def leave_checkpoint(folder: Path, step: int) -> None:
    place = checkpoint_folder(folder / "checkpoints", step)
    place.mkdir(parents=True)
    (place / MARKER).touch()


def test_a_stop_that_was_saved_ends_as_an_interruption(tmp_path: Path) -> None:
    _, said, interrupted = stopped(tmp_path, errors=[], answer=Answer(step=7))
    assert interrupted and "save" in said


def test_a_stop_that_was_not_saved_ends_as_the_error(tmp_path: Path) -> None:
    leave_checkpoint(tmp_path, 4)
    full = OSError("The checkpoint of step 7 could not be written")
    outcome, said, interrupted = stopped(tmp_path, errors=[ControllerError(full)], answer=Answer(problem="the disk is full"))
    assert not interrupted and isinstance(outcome, ControllerError)
    assert "not saved" in said and "newest checkpoint is of step 4" in said


def test_a_worker_that_fails_after_the_request_is_not_taken_for_saved(tmp_path: Path) -> None:
    outcome, said, interrupted = stopped(tmp_path, errors=[ControllerError(RuntimeError("gloo lost a peer"))], answer=None)
    assert not interrupted and "gloo lost a peer" in str(root_cause(outcome)) and "no checkpoint was committed" in said


def test_an_error_after_the_save_is_shown_and_the_save_counts(tmp_path: Path) -> None:
    _, said, interrupted = stopped(tmp_path, errors=[ControllerError(RuntimeError("at exit"))], answer=Answer(step=7))
    assert interrupted and "step 7 is saved" in said and "at exit" in said


def test_workers_that_do_not_end_in_time(tmp_path: Path) -> None:
    leave_checkpoint(tmp_path, 4)
    _, said, interrupted = stopped(tmp_path, errors=[], answer=None, ends=False)
    assert interrupted and "did not end within 0.5 s" in said and "newest checkpoint is of step 4" in said


@pytest.mark.parametrize("asked", [True, False])
def test_a_launch_that_is_to_end_is_not_started_again(tmp_path: Path, asked: bool) -> None:
    """The controller would restart the group for any other error, as often as train.max_failures says."""
    (callback,) = controller_callbacks(tmp_path, "one")
    if asked:
        ask(tmp_path, "one", "stop", "Ctrl-C")
    status: Any = SimpleNamespace(errors={1: OSError("the disk is full")})
    callback.after_worker_group_poll_status(status)
    if asked:
        with pytest.raises(OSError, match="the disk is full"):
            callback.before_controller_execute_failure_decision(None)
    else:
        callback.before_controller_execute_failure_decision(None)
    assert "the disk is full" in read_events(tmp_path)[0].text
