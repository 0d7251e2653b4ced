"""Requests are files of their own: none is lost to another, and none of an earlier launch counts."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train import ScalingConfig

from elf_platform.tracking import read_events
from elf_platform.train.requests import Answer, Inbox, Request, answer_to, ask, clear_requests, stop_asked, withdraw
from elf_platform.train.resizing import NoopDecision, SaveFirst


def actions(requests: list[Request]) -> list[str]:
    return [request.action for request in requests]


def test_a_stop_is_never_lost_to_a_save(tmp_path: Path) -> None:
    """Driver and controller ask at once, many times over: all of it arrives, once."""
    asks = [("stop", "driver"), *[("save", f"controller {i}") for i in range(20)]]
    threads = [threading.Thread(target=ask, args=(tmp_path, "one", action, reason)) for action, reason in asks]
    inbox, found = Inbox(tmp_path, "one"), []
    for thread in threads:
        thread.start()
        found += inbox.poll()
    for thread in threads:
        thread.join()
    found += inbox.poll()
    assert sorted((r.action, r.reason) for r in found) == sorted(asks) and inbox.poll() == []
    inbox.answer(Answer(step=5))
    assert {answer_to(tmp_path, request) for request in found} == {Answer(step=5)}


def test_a_stop_holds_for_the_next_group_and_an_answered_save_does_not(tmp_path: Path) -> None:
    ask(tmp_path, "one", "save", "a node goes")
    stop = ask(tmp_path, "one", "stop", "Ctrl-C")
    first = Inbox(tmp_path, "one")
    assert actions(first.poll()) == ["save", "stop"]
    assert actions(Inbox(tmp_path, "one").poll()) == ["save", "stop"], "a group that died before it answered"
    first.answer(Answer(step=7))
    assert Inbox(tmp_path, "one").poll() == [stop], "a group that was started meanwhile would train on"
    assert stop_asked(tmp_path, "one") and not stop_asked(tmp_path, "two")


def test_other_launches_and_other_files_are_none_of_ours(tmp_path: Path) -> None:
    ask(tmp_path, "one", "stop", "of an earlier launch")
    dance = '{"launch": "two", "action": "dance", "reason": ""}'
    for name, text in (("1-a.json", "{"), ("2-b.json", "[1]"), (".writing-x", ""), ("3-c.json", dance)):
        (tmp_path / "control" / name).write_text(text)
    assert Inbox(tmp_path, "two").poll() == []
    (tmp_path / "control.json").write_text("{}")
    clear_requests(tmp_path)
    assert list(tmp_path.iterdir()) == [] and Inbox(tmp_path, "one").poll() == []


class Policy(SaveFirst):
    """Ray's policy with made resources: what its coordinator would have reserved on one node."""

    cpus = 2.0

    def _maybe_send_resource_request(self) -> None:
        pass

    def _get_reserved_resources(self) -> Any:
        return {"node": {"CPU": self.cpus}}


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    config = ScalingConfig(num_workers=(1, 4), resources_per_worker={"CPU": 1.0}, elastic_resize_monitor_interval_s=0.0)
    return Policy(config, tmp_path, "one", 60.0)


def decide(policy: Policy, *, workers: int = 2, start: float = -1e9) -> int | None:
    """What the policy says of a running group; None for no change."""
    decision = policy.make_decision_for_running_worker_group(SimpleNamespace(num_workers=workers, start_time=start), None)
    return None if isinstance(decision, NoopDecision) else decision.num_workers


def test_a_resize_waits_for_the_save_without_holding_anyone_up(policy: Policy, tmp_path: Path) -> None:
    assert decide(policy) is None and not (tmp_path / "control").exists()
    policy.cpus = 3.0
    assert decide(policy) is None, "the group was not asked to save first"
    inbox = Inbox(tmp_path, "one")
    assert actions(inbox.poll()) == ["resize"]
    assert decide(policy) is None and inbox.poll() == [], "it asks once"
    inbox.answer(Answer(step=7))
    assert decide(policy) == 3


def test_what_is_there_is_asked_again_once_it_is_saved(policy: Policy, tmp_path: Path) -> None:
    policy.cpus = 3.0
    decide(policy)
    inbox = Inbox(tmp_path, "one")
    (request,) = inbox.poll()
    inbox.answer(Answer(step=7))
    policy.cpus = 2.0  # the new node is gone again
    assert decide(policy) is None and not inbox.stands(request), "the workers would wait for an end that does not come"


def test_a_save_that_fails_calls_the_resize_off_and_says_so(policy: Policy, tmp_path: Path) -> None:
    policy.cpus = 3.0
    decide(policy)
    inbox = Inbox(tmp_path, "one")
    inbox.poll()
    inbox.answer(Answer(problem="the disk is full"))
    assert decide(policy) is None
    assert "the disk is full" in read_events(tmp_path)[0].text
    assert decide(policy) is None and actions(inbox.poll()) == ["resize"], "the next look asks again"


def test_patience_and_a_group_that_died_meanwhile(policy: Policy, tmp_path: Path) -> None:
    policy.cpus = 3.0
    decide(policy)
    assert decide(policy, workers=2, start=-5e8) is None, "another group has not saved"
    assert len(Inbox(tmp_path, "one").poll()) == 1
    policy.patience_s = 0.0
    assert decide(policy, start=-5e8) == 3
    withdraw(tmp_path, Request(launch="one", name="nothing", action="save", reason=""))


def test_a_stop_that_could_not_be_read_is_read_at_the_next_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox, read = Inbox(tmp_path, "one"), Path.read_text
    ask(tmp_path, "one", "stop", "Ctrl-C")

    def fails(*_: Any, **__: Any) -> str:
        raise OSError("the storage does not answer")

    monkeypatch.setattr(Path, "read_text", fails)
    assert inbox.poll() == []
    monkeypatch.setattr(Path, "read_text", read)
    assert actions(inbox.poll()) == ["stop"] and inbox.poll() == []
