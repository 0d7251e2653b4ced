"""Settings of a sampler; the same ones for sampling during training, for the artefact and for jobs."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How text is drawn from a trained network (elf.md C.1; defaults are the paper's 32-step headline, C.2)."""

    sampler: Literal["ode", "sde"] = "sde"
    """ode: Euler steps of the flow. sde: re-injects noise before each step (except the last)."""
    steps: int = 32
    """Denoising steps T; the decoding pass comes on top (NFE = T + 1)."""
    gamma: float = 1.5
    """sde only: strength of the noise re-injection; 0 is the ode."""
    grid: Literal["logit-normal", "uniform"] = "logit-normal"
    """Times of the steps: sorted draws from the training distribution, or evenly spaced."""
    guidance: float = 3.0
    """Self-conditioning guidance scale w; higher gives lower perplexity and lower entropy. 0.5 to 5 was trained."""
    sde_update: Literal["renoised", "original"] = "renoised"
    """sde only: where the step starts after the re-injection: the renoised state (official code) or the original (paper's text)."""
    temperature: float = 1.0
    """Autoregressive process only: softmax temperature."""
    count: int = 8
    """Number of samples."""
    seed: int = 0
    """Sample i draws its noise from (seed, i) alone."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"sample.steps is {self.steps}, but sampling needs at least 1 step")
        if self.count < 0:
            raise ValueError(f"sample.count is {self.count}, but must be 0 or more")
        if self.gamma < 0:
            raise ValueError(f"sample.gamma is {self.gamma}, but must be 0 or more")
        if self.guidance <= 0 or self.temperature <= 0:
            raise ValueError("sample.guidance and sample.temperature must be above 0")
