"""The sampler's settings of a request: those of the artefact, and single ones that the user gives instead."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from elf.processes import Autoregressive
from elf.sampling.config import SampleConfig

SETTINGS = tuple(field.name for field in fields(SampleConfig) if field.name != "count")
"""What an artefact keeps and a request may change."""
TOKEN_FREE = ("steps", "gamma", "guidance")
"""What recipes of an autoregressive process carry along without effect."""

_DEFAULT: dict[str, Any] = {field.name: field.default for field in fields(SampleConfig)}


def sampler_settings(kept: SampleConfig | None, given: Mapping[str, Any], *, process: str, count: int) -> SampleConfig:
    """``given`` settings over those that the artefact kept (None: over the defaults). What the artefact kept and a given setting leaves
    without effect goes back to its default: the density of another grid, for example.

    Raises ValueError for an unknown setting, and for settings that contradict each other."""
    if unknown := set(given) - set(SETTINGS):
        raise ValueError(f"unknown sampling setting {', '.join(sorted(unknown))}; there are {', '.join(SETTINGS)}")
    values = asdict(kept) if kept is not None else dict(_DEFAULT)
    if process == Autoregressive.kind:
        values |= {name: _DEFAULT[name] for name in TOKEN_FREE}
    values |= given
    stale = {
        "grid_density": values["grid"] != "warped",
        "sde_update": values["sampler"] != "sde",
        "cfg_rule": values["cfg"] == 1.0,
        "guidance_from": values["guidance_from"] > values["guidance_to"],
        "guidance_to": values["guidance_from"] > values["guidance_to"],
    }
    values |= {name: _DEFAULT[name] for name, gone in stale.items() if gone and name not in given}
    return SampleConfig(**(values | {"count": count}))


def settings_words(config: SampleConfig, process: str) -> str:
    """The settings that have an effect, as one says them: sde with 32 steps, gamma 1, logit-normal grid, guidance 1.5, seed 0."""
    if process == Autoregressive.kind:
        return f"left to right, temperature {config.temperature:g}, top_p {config.top_p:g}, seed {config.seed}"
    said = [f"{config.sampler} with {config.steps} steps"]
    if config.sampler.startswith("sde"):
        said.append(f"gamma {config.gamma:g}")
    said.append(f"{config.grid} grid" + (f" over {len(config.grid_density)} parts" if config.grid_density else ""))
    said.append(f"guidance {config.guidance:g}")
    said += [f"cfg {config.cfg:g} by the rule {config.cfg_rule}"] if config.cfg != 1 else []
    if (config.guidance_from, config.guidance_to) != (0, 1):
        said.append(f"both from t = {config.guidance_from:g} to {config.guidance_to:g}")
    said += [f"{config.sde_update} update"] if config.sde_update != "renoised" else []
    return ", ".join([*said, f"seed {config.seed}"])


def origin_words(kept: SampleConfig | None, given: Mapping[str, Any]) -> str:
    """Where the settings of a request come from."""
    names = [name for name in SETTINGS if name in given]
    source = "the artefact's own settings" if kept is not None else "the general defaults, since the artefact keeps no settings of its own"
    return source + (f", with {', '.join(names)} as given" if names else "")
