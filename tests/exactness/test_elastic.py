"""Elastic: a real cluster loses a node and gets another one while the real job trains; one curve, and a line for each resize."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from curves import curve, curves_apart, state_at, tensors_apart
from pretraining import Pretraining
from tables import Table

from elf_platform.runtime import ray_temp

pytestmark = pytest.mark.slow

STEPS = 300
WORDS = (
    f"--train.threads 1 --engine.zero 2 --train.steps {STEPS} --train.checkpoint_every 100 --network.hidden 128 --network.depth 2 "
    "--train.global_batch 33"
)


class Nodes:
    """A cluster on this machine whose nodes come and go: each is a raylet of its own."""

    def __init__(self, temp: Path) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "temp_dir": str(temp)})
        self.address = self._cluster.address

    def add(self) -> "object":
        """One more node of one CPU."""
        return self._cluster.add_node(num_cpus=1)

    def drain(self, node: "object", seconds: int) -> None:
        """Announce that the node goes, as a cloud does for a spot machine."""
        command = [
            str(Path(sys.executable).with_name("ray")), "drain-node", "--address", self.address, "--node-id", node.node_id,  # type: ignore[attr-defined]
            "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "test", "--deadline-remaining-seconds", str(seconds),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def remove(self, node: "object") -> None:
        """The node is gone."""
        self._cluster.remove_node(node, allow_graceful=False)

    def end(self) -> None:
        self._cluster.shutdown()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    # Ray would note this cluster as the machine's own, for whoever starts something on it next.
    monkeypatch.setattr("ray._private.utils.write_ray_address", lambda *words: None)
    with ray_temp() as temp:
        cluster = Nodes(temp)
        try:
            yield cluster
        finally:
            cluster.end()


def test_one_curve_while_nodes_come_and_go(nodes: Nodes, tiny_text: Path, tmp_path: Path, tables: dict[str, Table]) -> None:
    whole = Pretraining(tmp_path, tiny_text, "whole", f"{WORDS} --train.workers 1 --engine.kind deepspeed")
    whole.finish()
    node = nodes.add()
    words = f"{WORDS} --train.workers 1:2 --train.resize_every_s 3"
    run = Pretraining(tmp_path, tiny_text, "elastic", words, env={"RAY_ADDRESS": nodes.address})
    run.start()
    try:
        run.until(lambda: run.step() >= 40)
        nodes.drain(node, 8)
        run.until(lambda: any(int(folder.name[5:]) % 100 for folder in (run.folder / "checkpoints").glob("step-*")))
        announced = max(int(folder.name[5:]) for folder in (run.folder / "checkpoints").glob("step-*"))
        nodes.remove(node)
        run.until(lambda: len(run.events("attempt")) == 2)
        run.until(lambda: run.step() >= announced + 20)
        nodes.add()
        with run.held_back():  # Ray's coordinator looks for new nodes every 20 s
            run.until(lambda: len(run.events("attempt")) == 3)
        assert run.wait() == 0, run.said()[-4000:]
    finally:
        run.end()
    attempts, resizes = run.events("attempt"), run.events("resize")
    assert [a["text"].split(",")[0] for a in attempts] == ["2 workers", "1 worker", "2 workers"]
    assert [r["text"].split(";")[0] for r in resizes] == ["2 to 1 workers", "1 to 2 workers"]
    assert attempts[1]["step"] >= announced, "what was saved when the node was drained was lost"
    assert attempts[2]["step"] % 100, "the resize did not save first"
    assert "resize" in run.said()
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        tags = {key for (key,) in store.execute("select key from tags where key like 'resize.%'")}
        steps = store.execute("select count(*), count(distinct step) from metrics where key = 'train/loss' group by run_uuid").fetchall()
    assert len(tags) == 2 and all(count == distinct == STEPS // 10 for count, distinct in steps)
    loss = curves_apart(curve(run.folder, "train/loss"), curve(whole.folder, "train/loss"))
    states = [state_at(r.folder, STEPS) for r in (run, whole)]
    weight, ema = (
        tensors_apart(*({k: v for k, v in state.items() if k.startswith(kind)} for state in states)) for kind in ("weight", "ema")
    )
    tables["elastic"].add(("2 → 1 → 2 workers",), ", ".join(str(a["step"]) for a in attempts[1:]), (loss, weight, ema))
    assert loss <= 1e-5 and weight <= 1e-3 and ema <= 1e-3
