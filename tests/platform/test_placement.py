"""Placement on real clusters: workers are packed onto the nodes that are there, and limits of autoscaling are read where Ray keeps them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_head import free_port, head_node

from elf_platform.runtime import ray_temp

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

ASK = """
import dataclasses, json
from elf_platform.runtime import connect
from elf_platform.sampling.pool import plan_pool, sampling_device
from elf_platform.recipes import tiny
from elf_platform.train.preflight import place
with connect() as cluster:
    def threads(workers, asked=0):
        train = dataclasses.replace(tiny().train, workers=workers, threads=asked, gpu="off", global_batch=24)
        engine = dataclasses.replace(tiny().engine, kind="deepspeed")
        try:
            return place(dataclasses.replace(tiny(), train=train, engine=engine), cluster).threads
        except ValueError as error:
            return str(error)
    found = [threads(1), threads(2), threads(3), threads(1, 4)]
    device, note = sampling_device("auto", cluster)
    pool = plan_pool(cluster, actors=0, threads=1, device=device, parts=99)
    print(json.dumps({"words": cluster.words(), "threads": found, "device": device, "note": note, "actors": pool.actors}))
"""


def ask(address: str, env: dict[str, str]) -> dict[str, object]:
    path = os.pathsep.join(str(ROOT / part) for part in ("platform", "model"))
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=env | {"RAY_ADDRESS": address, "PYTHONPATH": path}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    # Ray would note this cluster as the machine's own, for whoever starts something on it next.
    monkeypatch.setattr("ray._private.utils.write_ray_address", lambda *words: None)
    from ray.cluster_utils import Cluster

    with ray_temp() as temp:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, "temp_dir": str(temp)})
        try:
            cluster.add_node(num_cpus=2)
            yield cluster.address
        finally:
            cluster.shutdown()


def test_two_small_nodes_are_no_large_one(two_nodes: str) -> None:
    found = ask(two_nodes, dict(os.environ))
    assert found["words"] == "2 nodes of 2 CPUs"
    assert found["threads"][:3] == [2, 2, 1]  # type: ignore[index]
    assert "has to fit one node" in found["threads"][3]  # type: ignore[index]
    assert found["device"] == "cpu" and "no GPU" in str(found["note"]) and found["actors"] == 4


def test_the_limits_of_a_cluster_that_is_scaled_to_zero(tmp_path: Path) -> None:
    """With the autoscaler's own configuration and process, as `ray up` starts it; the machines are fake ones."""
    kinds = {
        "head": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        "gpu": {"resources": {"CPU": 8, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 3},
    }
    from ray.autoscaler._private.monitor import BASE_READONLY_CONFIG

    config = BASE_READONLY_CONFIG | {
        "cluster_name": "fake", "max_workers": 2, "provider": {"type": "fake_multinode"}, "available_node_types": kinds,
        "head_node_type": "head", "upscaling_speed": 1.0, "idle_timeout_minutes": 5,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"HOME": str(tmp_path), "RAY_FAKE_CLUSTER": "1", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    port, words = free_port(), f"--autoscaling-config={tmp_path / 'config.json'}"
    with ray_temp() as temp, head_node(env, temp, words, port=port, cpus=1):
        found = ask(f"127.0.0.1:{port}", env)
    assert found["words"] == "1 CPU, and may grow to 3 nodes, at most 1 node of 1 CPU + 3 nodes of 8 CPUs and 1 GPU"
    assert found["threads"][0] == 8  # type: ignore[index]
    assert found["device"] == "cuda" and "scales up" in str(found["note"]) and found["actors"] == 2
