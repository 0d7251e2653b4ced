"""Guidance as wrappers around a denoiser (elf.md A.5, A.6): each takes denoisers and gives one back.

A denoiser is a function (z_BLC, t, self_cond_BLC, w) -> x_hat_BLC, w the self-conditioning guidance scale that the network is told.
The velocity is linear in x_hat at a given z, so guiding x_hat guides it alike. Shapes: B rows, L tokens, C channels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from elf.sampling.condition import Condition
from elf.sampling.config import SampleConfig

Denoiser = Callable[[Tensor, float, Tensor, float], Tensor]


def classifier_free(denoise: Denoiser, given_BL: Tensor, *, scale: float, rule: str) -> Denoiser:
    """x_u + scale (x_c - x_u), x_u estimated without the given tokens: zeros in their place, as in training.

    rule: what else the pass without them loses. "code": nothing. "paper": its self-conditioning. "joint": also its guidance."""
    given_BL1 = given_BL[..., None]

    def guided(z_BLC: Tensor, t: float, self_cond_BLC: Tensor, w: float) -> Tensor:
        with_BLC = denoise(z_BLC, t, self_cond_BLC, w)
        half_BLC = self_cond_BLC.masked_fill(given_BL1, 0.0) if rule == "code" else torch.zeros_like(self_cond_BLC)
        without_BLC = denoise(z_BLC.masked_fill(given_BL1, 0.0), t, half_BLC, 1.0 if rule == "joint" else w)
        return without_BLC + scale * (with_BLC - without_BLC)

    return guided


def within(guided: Denoiser, plain: Denoiser, low: float, high: float) -> Denoiser:
    """``guided`` at times from low to high, ``plain`` with w = 1 elsewhere (Kynkaanniemi et al. 2024)."""

    def chosen(z_BLC: Tensor, t: float, self_cond_BLC: Tensor, w: float) -> Tensor:
        if low <= t <= high:
            return guided(z_BLC, t, self_cond_BLC, w)
        return plain(z_BLC, t, self_cond_BLC, 1.0)

    return chosen


def guided_by(config: SampleConfig, denoise: Denoiser, condition: Condition | None) -> Denoiser:
    """``denoise`` under all the guidance that the settings ask for."""
    guided = denoise
    if condition is not None and config.cfg != 1.0:
        guided = classifier_free(denoise, condition.given_BL, scale=config.cfg, rule=config.cfg_rule)
    if (config.guidance_from, config.guidance_to) != (0.0, 1.0):
        guided = within(guided, denoise, config.guidance_from, config.guidance_to)
    return guided


class Chain:
    """A denoiser (z, t) -> x_hat in which each estimate is the self-conditioning of the next evaluation (zeros at first), and the
    given positions of z, of the estimates and of the self-conditioning hold their clean states."""

    def __init__(self, denoise: Denoiser, w: float, hold: Callable[[Tensor], Tensor]) -> None:
        self._denoise, self._w, self._hold = denoise, w, hold
        self._latest_BLC: Tensor | None = None

    def __call__(self, z_BLC: Tensor, t: float) -> Tensor:
        if self._latest_BLC is None:
            self._latest_BLC = self._hold(torch.zeros_like(z_BLC))
        self._latest_BLC = self._hold(self._denoise(self._hold(z_BLC), t, self._latest_BLC, self._w))
        return self._latest_BLC
