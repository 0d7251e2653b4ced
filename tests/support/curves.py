"""How far two runs of one configuration are apart: per-step figures, final weights, and what checkpoints hold."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from elf_platform.tracking import read_metrics
from elf_platform.train.checkpoint import Checkpoint, CheckpointReader, checkpoint_folder

LOSSES = ("train/loss", "valid/loss")


@dataclass(frozen=True, kw_only=True)
class Apart:
    """Largest differences: of losses and gradient norms relative to the expected ones, of weights and their average relative to the
    largest value of the tensor."""

    loss: float
    grad_norm: float
    weight: float
    ema: float

    def beyond(self, bounds: "Apart") -> list[str]:
        """What is further apart than allowed."""
        pairs = ((field.name, getattr(self, field.name), getattr(bounds, field.name)) for field in fields(self))
        return [f"{name} is {found:.1e} apart, {most:.1e} is allowed" for name, found, most in pairs if not found <= most]


def bounds(optimiser: str, precision: str = "fp32") -> Apart:
    """How far a run may be from the undivided one on the plain engine.

    In bf16 each pass rounds its sums over rows to 8 bits, so the way in which the batch is cut into passes changes a gradient by some 1e-3;
    Adam and Newton-Schulz divide by the size of the gradient and so turn the noise of a small value into a step as long as any other.
    Two plain runs that differ in the micro-batch alone end up to 0.07 of the largest value apart in a weight (20 steps at a learning rate
    of 5e-3) and 0.05 in a gradient norm; the widest of all combinations measured are 0.15 and 0.11. Cut alike, runs do not differ by a
    bit, see ``test_one_curve``.
    """
    if precision == "bf16":
        return Apart(loss=2e-2, grad_norm=0.25, weight=0.25, ema=0.25)
    return Apart(loss=1e-5 if optimiser == "adamw" else 1e-4, grad_norm=1e-4, weight=1e-4, ema=1e-4)


def curve(folder: Path, name: str) -> dict[int, float]:
    """Figure by step."""
    return {step: figures[name] for step, figures in read_metrics(folder / "metrics.jsonl") if name in figures}


def curves_apart(found: dict[int, float], expected: dict[int, float]) -> float:
    """Largest relative difference; both must have the same steps."""
    assert found.keys() == expected.keys(), f"logged at {sorted(found)}, expected {sorted(expected)}"
    return max(abs(found[step] - value) / abs(value) for step, value in expected.items())


def tensors_apart(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest difference, relative to the largest value of its tensor; both must have the same names."""
    assert found.keys() == expected.keys()
    least = torch.finfo(torch.float32).tiny
    return max(float((found[name] - value).abs().max() / value.abs().max().clamp(min=least)) for name, value in expected.items())


def runs_apart(found: Path, expected: Path) -> Apart:
    """Of two finished runs of the worker pool, by their folders."""
    weight, ema = (
        tensors_apart(*(load_file(folder / f"final-{kind}.safetensors") for folder in (found, expected))) for kind in ("weight", "ema")
    )
    return Apart(
        loss=max(curves_apart(curve(found, name), curve(expected, name)) for name in LOSSES),
        grad_norm=curves_apart(curve(found, "optim/grad_norm"), curve(expected, "optim/grad_norm")), weight=weight, ema=ema,
    )


def state_at(folder: Path, step: int) -> dict[str, Tensor]:
    """Everything that the run's checkpoint of ``step`` holds, keyed "<kind>/<parameter>", made whole."""
    place = checkpoint_folder(folder / "checkpoints", step)
    reader = CheckpointReader(Checkpoint(folder=place, step=step, state=json.loads((place / "state.json").read_text())))
    held = [key.split("/", 1) for file in sorted(place.glob("rank-*.safetensors")) for key in load_file(file)]
    return {f"{kind}/{name}": reader.read(kind, name, 0, torch.Size(reader.shapes[name]).numel()) for kind, name in held}
