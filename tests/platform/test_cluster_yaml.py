"""The cluster file is one that `ray up` accepts, with token authentication, spot workers and this project installed on each node."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import fillout_defaults, validate_config
from ray.runtime_env import RuntimeEnv

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return loaded


def test_ray_accepts_it(cluster: dict[str, Any]) -> None:
    """Ray's own validation: the JSON schema, and the checks beyond it, after its defaults are filled in."""
    validate_config(fillout_defaults(cluster))


def test_ray_would_refuse_a_misspelling(cluster: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(fillout_defaults(cluster | {"idle_timeout": 5}))


def test_the_head_stays_and_the_workers_come_and_go(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    head = types[cluster["head_node_type"]]
    workers = [kind for name, kind in types.items() if name != cluster["head_node_type"]]
    assert "InstanceMarketOptions" not in head["node_config"]
    assert workers
    for kind in workers:
        assert kind["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert kind["min_workers"] == 0 < kind["max_workers"]
    assert sum(kind["max_workers"] for kind in workers) <= cluster["max_workers"]
    assert any(kind["resources"].get("GPU") for kind in workers)
    assert 0 < cluster["idle_timeout_minutes"] <= 30


@pytest.mark.parametrize(("role", "needs"), [("head", "--head"), ("worker", "--address=$RAY_HEAD_IP:6379")])
def test_both_start_commands_demand_the_token(cluster: dict[str, Any], role: str, needs: str) -> None:
    (start,) = [command for command in cluster[f"{role}_start_ray_commands"] if "ray start" in command]
    assert "RAY_AUTH_MODE=token ray start" in start
    assert needs in start
    assert "ELF_HOME=/mnt/elf" in start
    assert "#" not in start  # Ray wraps commands in parentheses, which a comment would swallow


def test_the_head_scales(cluster: dict[str, Any]) -> None:
    assert any("--autoscaling-config=~/ray_bootstrap_config.yaml" in command for command in cluster["head_start_ray_commands"])
    assert any("boto3" in command for command in cluster["head_setup_commands"])


def test_nodes_get_the_token_and_the_project(cluster: dict[str, Any]) -> None:
    assert cluster["file_mounts"] == {"/home/ubuntu/elf": ".", "/home/ubuntu/.ray/auth_token": "~/.ray/auth_token"}
    (install,) = [command for command in cluster["setup_commands"] if command.startswith("make ")]
    assert install == "make -C ~/elf VENV=$HOME/venv $HOME/venv/.installed"
    assert "$(VENV)/.installed:" in (ROOT / "Makefile").read_text()
    assert all("#" not in command for command in cluster["setup_commands"])


def test_the_runtime_environment_of_jobs() -> None:
    plain = yaml.safe_load((ROOT / "runtime-env.yaml").read_text())
    environment = RuntimeEnv(**plain)  # Ray's own validation: types and known fields
    assert environment.env_vars()["PYTHONPATH"] == "platform:model"
    assert "working_dir" not in plain  # given on the command line
    assert all(isinstance(value, str) for value in plain["env_vars"].values())
