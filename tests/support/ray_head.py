"""The head of a Ray cluster, started as `ray up` and KubeRay start it, and ended again."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

RAY = Path(sys.executable).with_name("ray")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def head_node(env: dict[str, str], temp: Path, *words: str, port: int = 0, cpus: int = 2) -> Iterator[str]:
    """A head started as on a real cluster, with ``words`` to `ray start`; the address of its dashboard. Ends its own processes alone."""
    port, dashboard, client = port or free_port(), free_port(), free_port()
    command = [
        str(RAY), "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
        "--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0", f"--num-cpus={cpus}", f"--temp-dir={temp}", *words,
    ]  # fmt: skip
    log = temp / "head.log"
    with log.open("wb") as out:
        head = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", dashboard), timeout=1):
                break
            assert head.poll() is None, log.read_text()
            time.sleep(0.25)
        else:
            raise AssertionError(f"no dashboard after five minutes\n{log.read_text()}")
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        head.send_signal(signal.SIGTERM)
        try:
            head.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(head.pid, signal.SIGKILL)
