"""Which run a configuration is: the settings that decide it, the name that they give it, and what may change in a run that goes on."""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from elf_platform.config import RunConfig
from elf_platform.config_io import default_storage, flatten

RESULT_FREE = frozenset(
    {
        "name",
        "storage",
        "tracking",
        "engine",
        "data.strict",
        "train.workers",
        "train.min_workers",
        "train.resize_every_s",
        "train.gpu",
        "train.threads",
        "train.micro_batch",
        "train.activation_checkpointing",
        "train.log_every",
        "train.valid_every",
        "train.sample_every",
        "train.checkpoint_every",
        "train.keep",
        "train.keep_best",
        "train.keep_every",
        "train.max_failures",
        "train.stop_within_s",
        "train.record_rows",
        "health.replicas_every",
        "health.stall_s",
        "health.timeout_s",
    }
)
"""Dotted paths that cannot change what is trained, nor what is made of it: names, places, bookkeeping, and how the same sums are divided
among processes, passes and ZeRO stages."""

AFTERWARDS = frozenset({"sample", "train.judge"})
"""What is made of the trained weights: samples and their score. A trained run is given others without training."""

Role = Literal["free", "afterwards", "steps", "corpus", "training"]
"""What a setting decides: nothing; what is made of the weights; how far training goes; where the text lies (the hash of what was read
decides whether it is the same); what is trained. Settings that are not named above, new ones included, decide what is trained."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One setting in which two configurations differ; a side that does not have it is None and not ``there``."""

    path: str
    old: Any
    new: Any
    there: tuple[bool, bool] = (True, True)

    @property
    def role(self) -> Role:
        return role_of(self.path)

    def __str__(self) -> str:
        old, new = (json.dumps(v, default=str) if there else "absent" for v, there in zip((self.old, self.new), self.there, strict=True))
        return f"{self.path}: {old} -> {new}"


def role_of(path: str) -> Role:
    """What the setting at a dotted path decides."""
    parts = path.split(".")
    above = {".".join(parts[: n + 1]) for n in range(len(parts))}
    if above & RESULT_FREE:
        return "free"
    if above & AFTERWARDS:
        return "afterwards"
    return "steps" if path == "train.steps" else "corpus" if path == "data.paths" else "training"


def compare(old: RunConfig, new: RunConfig) -> list[Difference]:
    """All settings that differ. Those of another codec or process are left out: its kind says it."""
    a, b = flatten(old), flatten(new)
    found = []
    for path in dict.fromkeys([*a, *b]):
        kind = f"{path.split('.')[0]}.kind"
        if ((path in a) == (path in b) and a.get(path) == b.get(path)) or (path != kind and a.get(kind) != b.get(kind)):
            continue
        found.append(Difference(path=path, old=a.get(path), new=b.get(path), there=(path in a, path in b)))
    return found


def diff_configs(old: RunConfig, new: RunConfig, *, everything: bool = False) -> list[str]:
    """Settings that differ, as "optim.lr: 0.002 -> 0.001" lines; only those that decide results unless ``everything``."""
    return [str(found) for found in compare(old, new) if everything or found.role != "free"]


def training_differences(old: RunConfig, new: RunConfig) -> list[str]:
    """What keeps ``new`` from going on with weights of ``old``, as lines; empty when only continuation settings differ (steps, samples,
    rhythm, places, how the work is divided). Where the text lies is one of them: the fingerprint of the data is compared besides."""
    return [str(found) for found in compare(old, new) if found.role == "training"]


def config_hash(config: RunConfig) -> str:
    """Eight hexadecimal digits over the settings that decide what is trained and differ from the defaults of their kind.

    A setting that comes later, with a default that keeps things as they were, therefore changes no hash."""
    return _digest(config, ("training", "steps", "corpus"))


def afterwards_hash(config: RunConfig) -> str:
    """Eight hexadecimal digits over what decides the artefact's samples and their score; a summary says which it was made with."""
    return _digest(config, ("afterwards",))


def _digest(config: RunConfig, roles: tuple[Role, ...]) -> str:
    defaults = flatten(type(config)(codec=type(config.codec)(), process=type(config.process)()))
    deciding = {
        path: value for path, value in flatten(config).items()
        if role_of(path) in roles and (path in ("codec.kind", "process.kind") or value != defaults[path])
    }
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:8]


def default_name(config: RunConfig, recipe: str) -> str:
    """The name of a run that was not given one: the recipe and a hash, so that the same command finds the same run again."""
    return f"{recipe}-{config_hash(config)}"


def is_automatic(name: str, recipe: str) -> bool:
    """Whether a run got its name by ``default_name``, of this version or one before, whose hash was another."""
    return re.fullmatch(re.escape(recipe) + "-[0-9a-f]{8}", name) is not None


def resolve(config: RunConfig, recipe: str) -> RunConfig:
    """The configuration with its name filled in and its storage absolute."""
    storage = default_storage() if config.storage == Path("") else config.storage.expanduser().absolute()
    return dataclasses.replace(config, name=config.name or default_name(config, recipe), storage=storage)
