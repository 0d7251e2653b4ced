"""Whether the hub answers, against a server of our own."""

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from elf.data.hub import hub_offline, hub_reachable


@pytest.fixture
def answering() -> Iterator[str]:
    """The address of a server that answers 404 to all HEAD requests: an answer, so the hub counts as reachable."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_a_server_that_answers_is_reachable(answering: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", answering)
    assert hub_reachable()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub_offline() and not hub_reachable()


def test_a_server_that_is_silent_costs_no_more_than_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert not hub_reachable(0.3)
        assert time.monotonic() - began < 3
    assert not hub_reachable(0.3)
    monkeypatch.setenv("HF_ENDPOINT", "no address")
    assert not hub_reachable(0.3)
