"""Time grids against the distributions they stand for."""

import pytest
import torch

from elf.sampling.config import SampleConfig
from elf.sampling.grids import GRIDS
from elf.schedules import logit_normal_density

MEAN, STD = -1.5, 0.8


def grid(name: str, steps: int, *, seed: int = 0, density: tuple[float, ...] = ()) -> torch.Tensor:
    return GRIDS[name](steps, seed=seed, mean=MEAN, std=STD, density=density)


@pytest.mark.parametrize("name", sorted(GRIDS))
@pytest.mark.parametrize("steps", [1, 2, 33])
def test_grids_rise_from_noise_to_data(name: str, steps: int) -> None:
    times = grid(name, steps, density=(1.0, 3.0, 0.5) if name == "warped" else ())
    assert times.dtype == torch.float64 and len(times) == steps + 1
    assert float(times[0]) == 0.0 and float(times[-1]) == 1.0 and bool((times.diff() > 0).all())


def test_the_quantile_grid_is_the_mean_quantile_of_the_random_one() -> None:
    """Over seeds, the k-th sorted draw lies on average at the quantile k / T of the logit-normal, where its twin has it exactly."""

    def quantile(times: torch.Tensor) -> torch.Tensor:
        return torch.special.ndtr((torch.logit(times[1:-1]) - MEAN) / STD)

    steps = 8
    expected = torch.arange(1, steps, dtype=torch.float64) / steps
    torch.testing.assert_close(quantile(grid("logit-normal-quantile", steps)), expected, rtol=0, atol=1e-6)
    drawn = torch.stack([quantile(grid("logit-normal", steps, seed=seed)) for seed in range(500)])
    spread = (expected * (1 - expected) / (steps + 1) / len(drawn)).sqrt()  # of the mean of an order statistic of T - 1 uniform draws
    assert bool(((drawn.mean(0) - expected).abs() < 5 * spread).all())
    assert not torch.equal(grid("logit-normal", 8, seed=0), grid("logit-normal", 8, seed=1))
    assert torch.equal(grid("logit-normal-quantile", 8, seed=0), grid("logit-normal-quantile", 8, seed=1))


def test_the_warped_grid_follows_its_density() -> None:
    torch.testing.assert_close(grid("warped", 7, density=(2.0, 2.0)), grid("uniform", 7), rtol=0, atol=1e-12)
    assert grid("warped", 4, density=(3.0, 1.0)).tolist() == pytest.approx([0, 1 / 6, 1 / 3, 1 / 2, 1])
    assert grid("warped", 4, density=(0.0, 1.0)).tolist() == pytest.approx([0, 0.625, 0.75, 0.875, 1])
    # A fine table of the training density gives the quantile grid.
    middle = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    table = tuple(logit_normal_density(middle, MEAN, STD).tolist())
    torch.testing.assert_close(grid("warped", 32, density=table), grid("logit-normal-quantile", 32), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"grid": "warped"}, "needs sample.grid_density"),
        ({"grid": "uniform", "grid_density": (1.0,)}, "no effect with sample.grid uniform"),
        ({"grid": "warped", "grid_density": (1.0, -1.0)}, "at least 0"),
        ({"grid": "warped", "grid_density": (0.0, 0.0)}, "not be 0 everywhere"),
        ({"grid": "warped", "grid_density": (float("nan"),)}, "finite"),
        ({"steps": 0}, "sample.steps is 0, but must be between 1 and 1000000"),
        ({"cfg": -1.0}, "sample.cfg is -1, but must be between 0"),
        ({"top_p": 0.0}, "top_p"),
        ({"guidance_from": 0.6, "guidance_to": 0.4}, "in this order"),
        *(({name: float(bad)}, f"sample.{name} is {bad}, but must be a finite number")
          for name, bad in (("gamma", "nan"), ("guidance", "inf"), ("cfg", "nan"), ("temperature", "inf"), ("top_p", "nan"))),
        ({"cfg_rule": "paper"}, "no effect with sample.cfg 1"),
        ({"sampler": "ode", "sde_update": "original"}, "no effect with sample.sampler ode"),
    ],
)
def test_impossible_sampling_settings_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SampleConfig(**settings)
