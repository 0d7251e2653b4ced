"""Settings of a sampler; the same ones for sampling during training, for the artefact and for jobs."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from elf.settings import Bounds, NotNegative, Scale, Seed, Settings, Share


@dataclass(frozen=True, kw_only=True)
class SampleConfig(Settings):
    """How text is drawn from a trained network (elf.md C.1; defaults are the paper's 32-step headline, C.2)."""

    prefix: ClassVar[str] = "sample."

    sampler: Literal["ode", "sde", "sde-matched", "heun", "dpmpp-2m", "ancestral"] = "sde"
    """ode: Euler steps of the flow. sde: re-injects noise before each step (except the last), as the official code does.
    sde-matched: the same with the variance that the path has. heun: second order, two evaluations a step.
    dpmpp-2m: DPM-Solver++(2M), second order, one evaluation. ancestral: full DDPM steps."""
    steps: Annotated[int, Bounds(least=1, most=1_000_000)] = 32
    """Denoising steps T; the decoding pass comes on top (NFE = T + 1; more with heun or cfg)."""
    gamma: Annotated[float, Bounds(least=0, most=1e6)] = 1.5
    """sde and sde-matched only: strength of the noise re-injection; 0 is the ode."""
    grid: Literal["logit-normal", "logit-normal-quantile", "uniform", "warped"] = "logit-normal"
    """Times of the steps: sorted draws from the training distribution (official code), its evenly spaced quantiles,
    evenly spaced times, or evenly spaced quantiles of grid_density."""
    grid_density: tuple[NotNegative, ...] = ()
    """warped only: how densely the steps lie, as a table over equal parts of t from noise to data (such as the loss by level)."""
    guidance: Scale = 3.0
    """Self-conditioning guidance scale w; higher gives lower perplexity and lower entropy. 0.5 to 5 was trained."""
    cfg: Annotated[float, Bounds(least=0, most=1e6)] = 1.0
    """Conditional models only: classifier-free guidance scale c (best near 2); 1 is off, any other doubles the evaluations."""
    cfg_rule: Literal["code", "paper", "joint"] = "code"
    """What the pass without condition loses: code: the condition; paper: the self-conditioning too; joint: and its guidance."""
    guidance_from: Share = 0.0
    """guidance and cfg apply at times from here ..."""
    guidance_to: Share = 1.0
    """... to here, and are 1 elsewhere."""
    sde_update: Literal["renoised", "original"] = "renoised"
    """sde only: where the step starts after the re-injection: the renoised state (official code) or the original (paper's text)."""
    temperature: Scale = 1.0
    """Autoregressive process only: softmax temperature."""
    top_p: Annotated[float, Bounds(above=0, most=1)] = 1.0
    """Autoregressive process only: tokens are drawn from the smallest set that has this probability (nucleus); 1 is off."""
    count: Annotated[int, Bounds(least=0, most=100_000_000)] = 8
    """Number of samples."""
    seed: Seed = 0
    """Sample i draws its noise from (seed, i) alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guidance_from > self.guidance_to:
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
        if self.grid_density and not sum(self.grid_density) > 0:
            raise ValueError(f"sample.grid_density is {self.grid_density}, but must not be 0 everywhere")
