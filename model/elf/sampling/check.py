"""Refusals of sampling settings that a process does not have; every job makes them before any work."""

from dataclasses import fields
from typing import Any

from elf.sampling.config import SampleConfig
from elf.sampling.grids import GRIDS
from elf.sampling.samplers import SAMPLERS

_DEFAULT: dict[str, Any] = {f.name: f.default for f in fields(SampleConfig)}
_TOKEN_SETTINGS = ("temperature", "top_p")
# Steps, gamma and the guidance scale are left out: recipes carry them along when only their process is exchanged.
_CONTINUOUS_SETTINGS = ("sampler", "grid", "cfg", "cfg_rule", "guidance_from", "guidance_to", "sde_update")


def check_continuous(kind: str, config: SampleConfig, *, conditional: bool) -> None:
    """Raises ValueError unless ``config`` is one of the continuous process ``kind``, which has every sampler and every grid."""
    for name, known in (("sampler", SAMPLERS), ("grid", GRIDS)):
        if (value := getattr(config, name)) not in known:
            raise ValueError(f"sample.{name} is {value!r}, but the {kind} process has {', '.join(sorted(known))}")
    if config.cfg != 1.0 and not conditional:
        raise ValueError(
            f"sample.cfg is {config.cfg:g}, but classifier-free guidance needs a conditional model and this one has no source; "
            "set sample.cfg to 1 (sample.guidance is the self-conditioning guidance of any model)"
        )
    _refuse(_TOKEN_SETTINGS, kind, config, "it draws no token before its last step")


def check_autoregressive(kind: str, config: SampleConfig) -> None:
    """Raises ValueError unless ``config`` is one of the autoregressive process."""
    _refuse(_CONTINUOUS_SETTINGS, kind, config, f"it draws token by token and has {', '.join(_TOKEN_SETTINGS)}")


def _refuse(names: tuple[str, ...], kind: str, config: SampleConfig, reason: str) -> None:
    for name in names:
        if (value := getattr(config, name)) != _DEFAULT[name]:
            raise ValueError(
                f"sample.{name} {value!r} has no effect with the {kind} process: {reason}; leave sample.{name} at {_DEFAULT[name]!r}"
            )
