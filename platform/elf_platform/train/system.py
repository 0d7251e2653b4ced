"""Figures of the machines that train, under MLflow's own names for them; each is read on its own node."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import torch

_MEGABYTE = 1e6


class NodeMeter:
    """Load of this machine. One worker of each node has one; a figure that cannot be read is left out."""

    def __init__(self, run_folder: Path) -> None:
        self._run_folder = run_folder
        self._cpu = _cpu_seconds()
        self._network = _network_bytes()

    def figures(self) -> dict[str, float]:
        """CPU and network since the last call, or since this meter was made; memory, disk and GPUs as they are now. Never raises."""
        found: dict[str, float] = {}
        for read in (self._cpu_figures, _memory_figures, self._disk_figures, self._network_figures, _gpu_figures):
            with contextlib.suppress(Exception):  # whatever a system does not tell, training goes on
                found |= read()
        return found

    def _cpu_figures(self) -> dict[str, float]:
        (busy, total), self._cpu = self._cpu or (0.0, 0.0), _cpu_seconds()
        now = self._cpu
        if now is None or now[1] <= total:
            return {}
        return {"cpu_utilization_percentage": min(100.0, max(0.0, 100 * (now[0] - busy) / (now[1] - total)))}

    def _disk_figures(self) -> dict[str, float]:
        return {"disk_usage_percentage": float(psutil.disk_usage(str(self._run_folder)).percent)}

    def _network_figures(self) -> dict[str, float]:
        before, self._network = self._network, _network_bytes()
        if before is None or self._network is None:
            return {}
        names = ("network_receive_megabytes", "network_transmit_megabytes")
        pairs = zip(before, self._network, strict=True)
        return {name: max(0, new - old) / _MEGABYTE for name, (old, new) in zip(names, pairs, strict=True)}


def merge(nodes: Sequence[dict[str, float] | None]) -> dict[str, float]:
    """What all ranks read, in rank order, as names to log: ``system/node-0/<figure>``, ``system/node-1/<figure>``, ...

    A rank that is not the first of its node has None. Nodes are numbered by their first rank.
    """
    read = [figures for figures in nodes if figures is not None]
    return {f"system/node-{number}/{name}": value for number, figures in enumerate(read) for name, value in figures.items()}


def _cpu_seconds() -> tuple[float, float] | None:
    """(seconds at work, all seconds), over all processors. Own differences: psutil keeps one state per thread for all callers."""
    try:
        times = psutil.cpu_times()._asdict()
    except Exception:
        return None
    counted = {name: seconds for name, seconds in times.items() if not name.startswith("guest")}  # these are in user and nice already
    total = sum(counted.values())
    return total - counted["idle"] - counted.get("iowait", 0.0), total


def _network_bytes() -> tuple[int, int] | None:
    """(received, sent) since the machine started, over all interfaces."""
    try:
        counters = psutil.net_io_counters()
        return counters.bytes_recv, counters.bytes_sent
    except Exception:
        return None


def _memory_figures() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {
        "system_memory_usage_megabytes": memory.used / _MEGABYTE,
        "system_memory_usage_percentage": 100 * memory.used / memory.total,
    }


def _gpu_figures() -> dict[str, float]:
    """Of every GPU that this process can see. Read from the driver: a CUDA context on other workers' GPUs would cost them memory."""
    found: dict[str, float] = {}
    for gpu in range(torch.cuda.device_count()):
        for name, read in _GPU_FIGURES.items():
            with contextlib.suppress(Exception):
                found[f"gpu_{gpu}_{name}"] = read(gpu)
    return found


_GPU_FIGURES: dict[str, Callable[[int], float]] = {
    "utilization_percentage": lambda gpu: float(torch.cuda.utilization(gpu)),
    "memory_usage_megabytes": lambda gpu: torch.cuda.device_memory_used(gpu) / _MEGABYTE,
}
