"""Adds up what is logged between two points and turns it into named figures. Sums stay on the device until a point is due."""

import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elf.processes import LEVELS, Process
from elf_platform.train.engine import Engine
from elf_platform.train.update import UpdateResult

TIME_BINS = 40


def loss_figures(process: Process, prefix: str, sums: Tensor, count: float) -> dict[str, float]:
    """Means from [P + K, 2] sums and counts over all workers; ``count`` positions in the whole loss."""
    figures: dict[str, float] = {}
    rows = sums.tolist()
    parts, levels = rows[: len(process.part_names)], rows[len(process.part_names) :]
    for name, (total, number) in zip(process.part_names, parts, strict=True):
        if number:
            figures[f"{prefix}/{name}"] = total / number
    figures[f"{prefix}/loss"] = sum(rows[i][0] for i in process.total_parts) / count
    for k, (total, number) in enumerate(levels):
        if number:
            figures[f"{prefix}/level/{k}"] = total / number
    return figures


class Meter:
    """Sums since the last point, over all workers when it is taken."""

    def __init__(self, process: Process, engine: Engine, device: torch.device, *, flops_per_step: float, peak_flops: float) -> None:
        self.process, self.engine, self.device = process, engine, device
        self.flops_per_step, self.peak_flops = flops_per_step, peak_flops
        self.histogram: NDArray[np.float64] = np.zeros(TIME_BINS)
        self._step_sums = torch.zeros(len(process.part_names) + LEVELS, 2, dtype=torch.float64, device=device)
        self._step_times = torch.zeros(TIME_BINS, dtype=torch.float64)
        self._reset()

    def _reset(self) -> None:
        self._earlier = (0.0, 0)  # tokens and steps that a checkpoint brought: they count in means, not in speed
        self._paused, self._stalled = 0.0, 0.0
        self._sums = torch.zeros_like(self._step_sums)
        self._times = torch.zeros(TIME_BINS, dtype=torch.float64)
        self._count, self._tokens, self._steps, self.skipped = 0.0, 0.0, 0, 0
        self._last: UpdateResult | None = None
        self._waited = 0.0
        self._started = time.perf_counter()

    def add(self, parts_P2: Tensor, levels_K2: Tensor, times: Tensor | None) -> None:
        """One micro-batch; counts once ``step_done`` says that the step was taken."""
        self._step_sums += torch.cat([parts_P2, levels_K2])
        if times is not None:
            self._step_times += torch.histc(times.detach().float().cpu(), TIME_BINS, 0.0, 1.0).double()

    def step_loss(self, count: float) -> float:
        """Loss of the micro-batches added since the last step, over all workers. All of them call it."""
        total = self._step_sums[list(self.process.total_parts), 0].sum()
        return float(self.engine.all_reduce(total)) / count

    def step_skipped(self) -> None:
        """A step whose rows are not trained on."""
        self.skipped += 1

    def step_done(self, count: float, tokens: float, result: UpdateResult) -> None:
        """One optimiser step over ``count`` loss positions and ``tokens`` tokens of the global batch."""
        self._tokens += tokens
        self._steps += 1
        self.skipped += result.skipped
        self._last = result
        if not result.skipped:
            self._count += count
            self._sums += self._step_sums
            self._times += self._step_times
        self._step_sums.zero_()
        self._step_times.zero_()

    def pause(self, seconds: float) -> None:
        """Seconds of this interval that were no training: validation, sampling."""
        self._paused += seconds

    def stall(self, seconds: float) -> None:
        """Seconds of this interval that training waited for a save."""
        self._stalled += seconds

    def state(self) -> dict[str, Any]:
        """For a checkpoint: the histogram of all training times so far, and the sums since the last point. All workers call it."""
        sums = self.engine.all_reduce(torch.cat([self._sums.flatten(), self._times.to(self.device)])).cpu()
        counts = (self.histogram + sums[self._sums.numel() :].numpy()).tolist()
        interval = {"sums": sums[: self._sums.numel()].tolist(), "count": self._count, "tokens": self._tokens, "steps": self._steps}
        return {"time_counts": counts, "interval": interval | {"skipped": self.skipped}}

    def restore(self, state: Mapping[str, Any], *, is_main: bool) -> None:
        """Go on from ``state``; the sums over all workers become the main one's."""
        if is_main:
            self.histogram += state["time_counts"]
        interval = state.get("interval")
        if interval:
            if is_main:
                self._sums += torch.tensor(interval["sums"], dtype=torch.float64).view_as(self._sums).to(self.device)
            self._count, self._tokens, self._steps = interval["count"], interval["tokens"], interval["steps"]
            self.skipped, self._earlier = interval["skipped"], (interval["tokens"], interval["steps"])

    def point(self, waited: float) -> dict[str, float]:
        """Figures since the last point. All workers call it; ``waited``: this worker's seconds without data so far."""
        seconds = time.perf_counter() - self._started - self._paused
        tokens, steps = self._tokens - self._earlier[0], self._steps - self._earlier[1]
        reduced = self.engine.all_reduce(torch.cat([self._sums.flatten(), self._times.to(self.device)]))
        self.histogram += reduced[self._sums.numel() :].cpu().numpy()
        figures: dict[str, float] = {}
        if self._count:  # none when every step of the interval was skipped
            figures = loss_figures(self.process, "train", reduced[: self._sums.numel()].view_as(self._sums), self._count)
        if self._last is not None:
            result = self._last
            figures["optim/lr"], figures["optim/grad_norm"] = result.lr, result.grad_norm
            figures |= {f"optim/grad_norm/{group}": norm for group, norm in result.grad_norms.items()}
            figures |= {f"optim/update_norm/{group}": norm for group, norm in result.update_norms.items()}
        if steps:
            figures["perf/tokens_per_second"] = tokens / seconds
            figures["perf/step_seconds"] = seconds / steps
            figures["perf/mfu"] = self.flops_per_step * steps / seconds / self.peak_flops
        figures["perf/save_stall_share"] = self._stalled / seconds
        figures["perf/data_wait_share"] = max(waited - self._waited, 0.0) / seconds
        figures["perf/memory_gb"] = memory_gb(self.device)
        if self.skipped:
            figures["health/skipped_steps"] = float(self.skipped)
        self._reset()
        self._waited = waited
        return figures


def memory_gb(device: torch.device) -> float:
    """Peak memory of this worker in GB: allocated on its GPU, resident in its process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
