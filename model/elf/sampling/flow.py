"""The sampling loop of ELF: from noise to clean latents along a time grid, then one decoding pass (elf.md C.1).

Shapes: B rows, L tokens, C channels, V vocabulary.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from elf.draws import Draws
from elf.sampling.config import SampleConfig
from elf.sampling.finish import mask_after_eos
from elf.sampling.grids import GRIDS
from elf.sampling.result import Samples
from elf.sampling.samplers import SAMPLERS, Step


class CountedNetwork:
    """The network with the guidance scale bound, counting its evaluations."""

    def __init__(self, network: nn.Module, rows: int, guidance: float, device: torch.device) -> None:
        self.network, self.nfe = network, 0
        self.scale_B = torch.full((rows,), guidance, device=device)
        self.zeros_B = torch.zeros(rows, device=device)
        self.ones_B = torch.ones(rows, device=device)

    def denoise(self, self_cond_BLC: Tensor, z_BLC: Tensor, t: float) -> Tensor:
        self.nfe += 1
        return self.network(z_BLC, self_cond_BLC, self.ones_B * t, self.scale_B, self.zeros_B)[0]

    def decode(self, z_BLC: Tensor) -> Tensor:
        self.nfe += 1
        zeros_BLC = torch.zeros_like(z_BLC)
        out = self.network(z_BLC, zeros_BLC, self.ones_B, self.scale_B, self.ones_B, want_x=False, want_tokens=True)
        return out[1].argmax(-1)


@torch.no_grad()
def integrate(
    network: "CountedNetwork", z_BLC: Tensor, times: Tensor, *, config: SampleConfig, noise: Callable[[int], Tensor], noise_scale: float,
    t_eps: float, record: int = 0, progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, list[tuple[float, Tensor]]]:
    """Clean latents at t = 1 from ``z_BLC`` at times[0], and the estimates x_hat of ``record`` steps, evenly spaced.

    noise(i): unit normal noise of step i. The estimate of each step is the self-conditioning of the next (zeros at first)."""
    grid = [float(t) for t in times]
    previous_BLC = torch.zeros_like(z_BLC)
    recorded: list[tuple[float, Tensor]] = []
    steps = len(grid) - 1
    wanted = {round(k * (steps - 1) / max(record - 1, 1)) for k in range(record)}
    for i, (t, t_next) in enumerate(pairwise(grid)):
        step = Step(
            t=t, t_next=t_next, noise=partial(noise, i), noise_scale=noise_scale, t_eps=t_eps, gamma=config.gamma,
            denoise=partial(network.denoise, previous_BLC), update_from=config.sde_update,
        )
        z_BLC, previous_BLC = SAMPLERS[config.sampler](z_BLC, step)
        if i in wanted:
            recorded.append((t, previous_BLC))
        if progress:
            progress(i + 1, steps)
    return z_BLC, recorded


@torch.no_grad()
def sample_flow(
    network: nn.Module, draws: Draws, *, length: int, channels: int, config: SampleConfig, noise_scale: float, t_eps: float,
    time_mean: float, time_std: float, eos_id: int | None, pad_id: int, record: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Samples:
    """Rows of tokens; row i's noise comes from (draws.seed, draws.rows[i]), the grid from draws.seed alone."""
    counted = CountedNetwork(network, len(draws.rows), config.guidance, draws.device)
    times = GRIDS[config.grid](config.steps, seed=draws.seed, mean=time_mean, std=time_std)
    z_BLC, estimates = integrate(
        counted, noise_scale * draws.normal("start", length, channels), times, config=config, noise_scale=noise_scale, t_eps=t_eps,
        noise=lambda i: draws.normal(f"step {i}", length, channels), record=record, progress=progress,
    )
    ids_BL = mask_after_eos(counted.decode(z_BLC), eos_id, pad_id)
    nfe = counted.nfe  # decoding the recorded estimates is for looking at, not part of sampling
    trajectory = [(t, mask_after_eos(counted.decode(x_BLC), eos_id, pad_id)) for t, x_BLC in estimates]
    return Samples(ids_BL=ids_BL, nfe=nfe, trajectory=trajectory)
