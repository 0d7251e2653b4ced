"""A storage whose name means something in addresses: the whole of a run lies in it, and what is printed works when it is pasted."""

import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from pretraining import Pretraining
from ray_head import free_port

from elf_platform.tracking import load_handle

ODD = "a?b%41%c d#e[f]üñ&x=1;'y"


@pytest.mark.slow
@pytest.mark.full  # test_odd_settings_run.py does so without Ray
def test_a_run_in_an_odd_storage(tmp_path: Path, tiny_text: Path) -> None:
    storage = tmp_path / ODD
    words = "--train.steps 20 --train.checkpoint_every 10 --train.workers 2 --train.threads 1"
    run = Pretraining(storage, tiny_text, "odd", words)
    run.finish()
    assert [path.name for path in tmp_path.iterdir()] == [ODD]
    assert {"data", "runs", "mlflow.db", "mlartifacts"} <= {path.name for path in storage.iterdir()}
    handle = load_handle(run.folder)
    assert handle is not None and handle.end == "FINISHED" and handle.end_sent
    shown = re.search(r"^ *open in MLflow: +(.*)$", run.said(), re.MULTILINE)
    assert shown, run.said()
    port = free_port()
    with (tmp_path / "ui.log").open("wb") as log:
        ui = subprocess.Popen(
            f"exec {shown[1]} --port {port}", shell=True, cwd=storage, env=run.env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/get?run_id={handle.run_id}"
        for _ in range(600):
            assert ui.poll() is None, (tmp_path / "ui.log").read_text()
            try:
                with urllib.request.urlopen(address, timeout=5) as answer:
                    assert b"FINISHED" in answer.read()
                    break
            except OSError:
                time.sleep(0.5)
        else:
            raise AssertionError((tmp_path / "ui.log").read_text())
    finally:
        ui.send_signal(signal.SIGTERM)
        ui.wait(60)
