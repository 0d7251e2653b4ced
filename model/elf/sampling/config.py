"""Settings of a sampler; the same ones for sampling during training, for the artefact and for jobs."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How text is drawn from a trained network (elf.md C.1; defaults are the paper's 32-step headline, C.2)."""

    sampler: Literal["ode", "sde", "sde-matched", "heun", "dpmpp-2m", "ancestral"] = "sde"
    """ode: Euler steps of the flow. sde: re-injects noise before each step (except the last), as the official code does.
    sde-matched: the same with the variance that the path has. heun: second order, two evaluations a step.
    dpmpp-2m: DPM-Solver++(2M), second order, one evaluation. ancestral: full DDPM steps."""
    steps: int = 32
    """Denoising steps T; the decoding pass comes on top (NFE = T + 1; more with heun or cfg)."""
    gamma: float = 1.5
    """sde and sde-matched only: strength of the noise re-injection; 0 is the ode."""
    grid: Literal["logit-normal", "logit-normal-quantile", "uniform", "warped"] = "logit-normal"
    """Times of the steps: sorted draws from the training distribution (official code), its evenly spaced quantiles,
    evenly spaced times, or evenly spaced quantiles of grid_density."""
    grid_density: tuple[float, ...] = ()
    """warped only: how densely the steps lie, as a table over equal parts of t from noise to data (such as the loss by level)."""
    guidance: float = 3.0
    """Self-conditioning guidance scale w; higher gives lower perplexity and lower entropy. 0.5 to 5 was trained."""
    cfg: float = 1.0
    """Conditional models only: classifier-free guidance scale c (best near 2); 1 is off, any other doubles the evaluations."""
    cfg_rule: Literal["code", "paper", "joint"] = "code"
    """What the pass without condition loses: code: the condition; paper: the self-conditioning too; joint: and its guidance."""
    guidance_from: float = 0.0
    """guidance and cfg apply at times from here ..."""
    guidance_to: float = 1.0
    """... to here, and are 1 elsewhere."""
    sde_update: Literal["renoised", "original"] = "renoised"
    """sde only: where the step starts after the re-injection: the renoised state (official code) or the original (paper's text)."""
    temperature: float = 1.0
    """Autoregressive process only: softmax temperature."""
    top_p: float = 1.0
    """Autoregressive process only: tokens are drawn from the smallest set that has this probability (nucleus); 1 is off."""
    count: int = 8
    """Number of samples."""
    seed: int = 0
    """Sample i draws its noise from (seed, i) alone."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"sample.steps is {self.steps}, but sampling needs at least 1 step")
        if self.count < 0:
            raise ValueError(f"sample.count is {self.count}, but must be 0 or more")
        for name in ("gamma", "guidance", "cfg", "temperature", "top_p"):
            if not math.isfinite(value := getattr(self, name)):
                raise ValueError(f"sample.{name} is {value}, but must be a finite number")
        if self.gamma < 0 or self.cfg < 0:
            raise ValueError(f"sample.gamma is {self.gamma} and sample.cfg {self.cfg}, but both must be 0 or more")
        if self.guidance <= 0 or self.temperature <= 0:
            raise ValueError("sample.guidance and sample.temperature must be above 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"sample.top_p is {self.top_p}, but is a probability above 0 and at most 1 (1 is off)")
        if not 0 <= self.guidance_from <= self.guidance_to <= 1:
            raise ValueError(
                f"sample.guidance_from {self.guidance_from} and guidance_to {self.guidance_to} are times between 0 (noise) and 1 (data), "
                "in this order"
            )
        if self.cfg_rule != "code" and self.cfg == 1.0:
            raise ValueError(f"sample.cfg_rule {self.cfg_rule} has no effect with sample.cfg 1, which is off; drop it, or set sample.cfg")
        if self.sde_update != "renoised" and self.sampler != "sde":
            raise ValueError(
                f"sample.sde_update {self.sde_update} has no effect with sample.sampler {self.sampler}; drop it, or set sample.sampler "
                "to sde"
            )
        if self.grid == "warped" and not self.grid_density:
            raise ValueError("sample.grid warped needs sample.grid_density, for instance the loss by noise level of the run")
        if self.grid != "warped" and self.grid_density:
            raise ValueError(f"sample.grid_density has no effect with sample.grid {self.grid}; drop it, or set sample.grid to warped")
        if self.grid_density and not (all(math.isfinite(d) and d >= 0 for d in self.grid_density) and sum(self.grid_density) > 0):
            raise ValueError(f"sample.grid_density is {self.grid_density}, but must be finite, 0 or more, and not 0 everywhere")
