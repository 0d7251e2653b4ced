"""The words of jobs/prepare.py that are no settings of a run."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

from elf.settings import Bounds, Settings

_LOOKS = {"--inspect": "shows", "--verify": "checks", "--held-out": "writes the held-out pairs of"}


@dataclass(frozen=True, kw_only=True)
class PrepareWords(Settings):
    """What was asked for: to prepare, or to look at one folder that was prepared."""

    inspect: Path | None = None
    verify: Path | None = None
    held_out: Path | None = None
    storage: Path | None = None
    """Where the run is that was named to be looked at."""
    workers: Annotated[int, Bounds(least=0, most=100_000)] = 0
    """Tasks at once; 0 for as many as there are CPUs."""

    @property
    def looks(self) -> bool:
        """A folder is looked at, and nothing prepared."""
        return (self.inspect or self.verify or self.held_out) is not None


def sort_prepare_words(argv: Sequence[str]) -> tuple[PrepareWords, list[str]]:
    """Our own options, and the rest, which are settings of a run. Raises ValueError for words that would have no effect."""
    options = _Parser(add_help=False, allow_abbrev=False)
    options.add_argument("--workers")
    for look in _LOOKS:
        options.add_argument(look)
    found, rest = options.parse_known_args(argv)
    given = {name: value for name, value in vars(found).items() if value is not None}
    if given.keys() - {"workers"}:
        # Of a preparation it is a setting like others; here it says where a run's name is looked up.
        places = _Parser(add_help=False, allow_abbrev=False)
        places.add_argument("--storage")
        found, rest = places.parse_known_args(rest)
        given |= {"storage": found.storage} if found.storage is not None else {}
    for name, value in given.items():
        if not value.strip():
            raise ValueError(f"--{name.replace('_', '-')} is empty, as a shell variable that is not set leaves it; give a value")
    if "workers" in given and not given["workers"].isdecimal():
        raise ValueError(f"--workers is {given['workers']!r}, but must be a whole number of tasks at once, or 0 for all CPUs")
    words = PrepareWords(
        workers=int(given.get("workers", 0)), **{name: Path(value).expanduser() for name, value in given.items() if name != "workers"}
    )
    looks = [f"--{name.replace('_', '-')}" for name in given if name not in ("workers", "storage")]
    beside = [*looks[1:], *(["--workers"] if "workers" in given else []), *rest]
    if looks and beside and not {"-h", "--help"} & set(rest):
        raise ValueError(
            f"{looks[0]} {_LOOKS[looks[0]]} a folder that was prepared, so that {' '.join(beside)} would have no effect; leave it away, or "
            "give it in a command of its own"
        )
    return words, rest


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)
