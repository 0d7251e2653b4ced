"""The sampling loop: from noise to clean latents along a time grid; and ELF's use of it, which ends in a decoding pass (elf.md C.1).

Shapes: B rows, L tokens, C channels, V vocabulary.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from elf.draws import Draws
from elf.sampling.condition import Condition
from elf.sampling.config import SampleConfig
from elf.sampling.finish import mask_after_eos
from elf.sampling.grids import GRIDS
from elf.sampling.guidance import Chain, guided_by
from elf.sampling.path import LinearPath, Path
from elf.sampling.result import Samples
from elf.sampling.samplers import SAMPLERS, Step


class CountedNetwork:
    """ELF's network as a denoiser and a decoder, counting its evaluations."""

    def __init__(self, network: nn.Module, rows: int, device: torch.device) -> None:
        self.network, self.nfe = network, 0
        self.zeros_B, self.ones_B = torch.zeros(rows, device=device), torch.ones(rows, device=device)

    def denoise(self, z_BLC: Tensor, t: float, self_cond_BLC: Tensor, w: float) -> Tensor:
        """x_hat [B, L, C]."""
        self.nfe += 1
        return self.network(z_BLC, self_cond_BLC, self.ones_B * t, self.ones_B * w, self.zeros_B)[0]

    def decode(self, z_BLC: Tensor, w: float) -> Tensor:
        """Token ids [B, L]."""
        self.nfe += 1
        zeros_BLC = torch.zeros_like(z_BLC)
        out = self.network(z_BLC, zeros_BLC, self.ones_B, self.ones_B * w, self.ones_B, want_x=False, want_tokens=True)
        return out[1].argmax(-1)


@torch.no_grad()
def integrate(
    denoise: Callable[[Tensor, float], Tensor], z_BLC: Tensor, times: Tensor, *, path: Path, config: SampleConfig,
    noise: Callable[[int], Tensor], hold: Callable[[Tensor], Tensor] = lambda z_BLC: z_BLC, record: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, list[tuple[float, Tensor]]]:
    """Clean latents at times[-1] from ``z_BLC`` at times[0], and the estimates x_hat of ``record`` steps, evenly spaced.

    denoise(z, t): x_hat. noise(i): unit normal noise of step i. hold: puts the given states back in their places after each step."""
    grid = [float(t) for t in times]
    previous: tuple[float, Tensor] | None = None
    recorded: list[tuple[float, Tensor]] = []
    steps = len(grid) - 1
    wanted = {round(k * (steps - 1) / max(record - 1, 1)) for k in range(record)}
    z_BLC = hold(z_BLC)
    for i, (t, t_next) in enumerate(pairwise(grid)):
        step = Step(
            t=t, t_next=t_next, path=path, denoise=denoise, noise=partial(noise, i), previous=previous, gamma=config.gamma,
            update_from=config.sde_update,
        )
        z_BLC, x_hat_BLC = SAMPLERS[config.sampler](z_BLC, step)
        z_BLC, previous = hold(z_BLC), (t, x_hat_BLC)
        if i in wanted:
            recorded.append(previous)
        if progress:
            progress(i + 1, steps)
    return z_BLC, recorded


@torch.no_grad()
def sample_flow(
    network: nn.Module, draws: Draws, *, length: int, channels: int, config: SampleConfig, path: LinearPath, time_mean: float,
    time_std: float, condition: Condition | None, eos_id: int | None, pad_id: int, record: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Samples:
    """Rows of tokens; row i's noise comes from (draws.seed, draws.rows[i]), the grid from draws.seed alone."""
    assert condition is None or condition.ids_BL.shape == (len(draws.rows), length), "one condition per row, of the row's length"
    counted = CountedNetwork(network, len(draws.rows), draws.device)
    times = GRIDS[config.grid](config.steps, seed=draws.seed, mean=time_mean, std=time_std, density=config.grid_density)
    hold = _holder(condition)
    z_BLC, estimates = integrate(
        Chain(guided_by(config, counted.denoise, condition), config.guidance, hold),
        path.sigma(0.0) * draws.normal("start", length, channels), times, path=path, config=config, hold=hold,
        noise=lambda i: draws.normal(f"step {i}", length, channels), record=record, progress=progress,
    )

    def tokens(x_BLC: Tensor) -> Tensor:
        ids_BL = counted.decode(x_BLC, config.guidance if config.guidance_to >= 1.0 else 1.0)
        return mask_after_eos(ids_BL if condition is None else condition.generated(ids_BL, pad_id), eos_id, pad_id)

    ids_BL = tokens(z_BLC)
    nfe = counted.nfe  # decoding the recorded estimates is for looking at, not part of sampling
    return Samples(ids_BL=ids_BL, nfe=nfe, trajectory=[(t, tokens(x_BLC)) for t, x_BLC in estimates])


def _holder(condition: Condition | None) -> Callable[[Tensor], Tensor]:
    """A function that puts the clean states of the given tokens in their places."""
    if condition is None:
        return lambda z_BLC: z_BLC
    state_BLC, given_BL1 = condition.state_BLC, condition.given_BL[..., None]
    if state_BLC is None:
        raise ValueError("ELF works on states, but the condition has token ids alone; make it with the codec of the artefact")
    return lambda z_BLC: torch.where(given_BL1, state_BLC, z_BLC)
