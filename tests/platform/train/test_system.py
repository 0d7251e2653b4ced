"""Figures of a machine, against what the system itself says."""

import math
import os
import socket
import time
from pathlib import Path

import pytest
import torch

from elf_platform.train.system import NodeMeter, merge

NAMES = {
    "cpu_utilization_percentage", "system_memory_usage_megabytes", "system_memory_usage_percentage", "disk_usage_percentage",
    "network_receive_megabytes", "network_transmit_megabytes",
}  # fmt: skip


def test_figures_of_this_machine_are_those_of_the_system(tmp_path: Path) -> None:
    meter = NodeMeter(tmp_path)
    time.sleep(0.2)  # the kernel counts processor time in hundredths of a second
    found = meter.figures()
    gpus = {name for name in found if name.startswith("gpu_")}
    assert set(found) - gpus == NAMES and (torch.cuda.is_available() or not gpus)
    assert all(math.isfinite(value) and value >= 0 for value in found.values())
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total = float(memory["MemTotal"].split()[0]) * 1024 / 1e6
    assert found["system_memory_usage_percentage"] == pytest.approx(100 * found["system_memory_usage_megabytes"] / total, rel=1e-3)
    disk = os.statvfs(tmp_path)
    used = disk.f_blocks - disk.f_bfree
    assert found["disk_usage_percentage"] == pytest.approx(100 * used / (used + disk.f_bavail), abs=1.0)


def test_processor_time_is_that_since_the_last_call(tmp_path: Path) -> None:
    meter = NodeMeter(tmp_path)
    end = time.monotonic() + 0.6
    while time.monotonic() < end:  # one processor is busy with this
        pass
    share = 100 / (os.cpu_count() or 1)
    assert 0.6 * share <= meter.figures()["cpu_utilization_percentage"] <= 100


def test_network_traffic_is_that_since_the_last_call(tmp_path: Path) -> None:
    meter = NodeMeter(tmp_path)
    payload = b"x" * 60_000
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inbox, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outbox:
        inbox.bind(("127.0.0.1", 0))
        for _ in range(100):  # 6 MB through the loopback interface
            outbox.sendto(payload, inbox.getsockname())
            inbox.recv(65_000)
    first = meter.figures()
    assert first["network_transmit_megabytes"] >= 6 and first["network_receive_megabytes"] >= 6
    assert meter.figures()["network_transmit_megabytes"] < first["network_transmit_megabytes"]


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    assert set(NodeMeter(tmp_path / "gone").figures()) >= NAMES - {"disk_usage_percentage", "cpu_utilization_percentage"}
    assert "disk_usage_percentage" not in NodeMeter(tmp_path / "gone").figures()


def test_nodes_are_numbered_by_their_first_rank() -> None:
    ranks = [{"cpu_utilization_percentage": 10.0}, None, {"cpu_utilization_percentage": 30.0, "gpu_0_utilization_percentage": 1.0}, None]
    assert merge(ranks) == {
        "system/node-0/cpu_utilization_percentage": 10.0,
        "system/node-1/cpu_utilization_percentage": 30.0,
        "system/node-1/gpu_0_utilization_percentage": 1.0,
    }
    assert merge([None, None]) == {}
