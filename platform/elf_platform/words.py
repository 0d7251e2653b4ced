"""The words of a command line, put in order before tyro reads the settings: recipe, kinds, ranges of workers, switches, empty values."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from elf.codecs import CODECS
from elf.processes import PROCESSES

KINDS: Mapping[str, Mapping[str, type]] = {"--codec": CODECS, "--process": PROCESSES}
BUILTIN = "builtin"
"""What ``--data.paths`` calls the corpus that is there without one."""
_SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_UNSET = "as a shell variable that is not set leaves it"


@dataclass(frozen=True, kw_only=True)
class Words:
    """The command line, sorted: our own options, and what is left for the settings."""

    recipe: str
    config: str
    extend: str
    storage: str
    """As it was given; empty for the default."""
    kinds: dict[str, str]
    print_only: bool
    help: str | None
    """What help was asked about, empty for the first page; None when none was."""
    settings: list[str]


def sort_words(argv: Sequence[str]) -> Words:
    """Raises ValueError for an option without its value, and for an empty one where that would mean another run."""
    rest = list(argv)
    if rest[:1] == [""]:
        raise ValueError(f"the recipe is empty, {_UNSET}; name one, or leave the word away")
    recipe = rest.pop(0) if rest and not rest[0].startswith("-") else ""
    own: dict[str, str] = {}
    print_only, asked = False, None
    settings: list[str] = []
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        option = option.removesuffix(".kind") if option.removesuffix(".kind") in KINDS else option
        if option in ("--config", "--extend", *KINDS, "--storage", "--name"):
            own[option] = _value(option, equals, value, rest)
        elif option == "--train.workers" and (equals or rest):
            settings += _workers(value if equals else rest.pop(0))
        elif option in ("--data.paths", "--data-paths"):
            settings += _paths([value] if equals else [rest.pop(0) for _ in range(_run_of_values(rest))])
        elif option in ("--help", "-h"):
            asked = value if equals else rest.pop(0) if rest and not rest[0].startswith("-") else ""
        elif word == "--print":
            print_only = True
        else:
            settings.append(word)
    if "--storage" in own and "--extend" not in own:  # absolute here, since a path that is empty, the default, and "." are the same Path
        settings += ["--storage", os.path.abspath(os.path.expanduser(own["--storage"]))]
    if "--name" in own:
        settings += [f"--name={own['--name']}"]
    kinds = {option: own[option] for option in KINDS if option in own}
    return Words(
        recipe=recipe, config=own.get("--config", ""), extend=own.get("--extend", ""), storage=own.get("--storage", ""), kinds=kinds,
        print_only=print_only, help=asked, settings=settings,
    )


def plain_switches(words: Sequence[str], switches: Collection[str]) -> list[str]:
    """``--data.strict True`` and ``--data.strict=false`` as tyro takes them: ``--data.strict``, ``--data.no_strict``."""
    result: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if not option.startswith("--") or name not in switches:
            result.append(word)
            continue
        if not equals and rest and rest[0].lower() in _SWITCH:
            value = rest.pop(0)
        if (equals or value) and value.lower() not in _SWITCH:
            raise ValueError(f"{option} is {value!r}, but it is a switch: write {option} or {option} False")
        table, _, leaf = name.rpartition(".")
        on = not value or _SWITCH[value.lower()]
        result.append(f"--{table}{'.' if table else ''}{'' if on else 'no_'}{leaf}")
    return result


def refuse_empty(words: Sequence[str], texts: Collection[str]) -> None:
    """Raises ValueError for an empty value, unless it is of one of ``texts``: settings that may be empty text. An empty path would be the
    working directory."""
    before = ""
    for word in words:
        option, equals, value = word.partition("=")
        empty = option if equals and not value and option.startswith("--") else before if word == "" else None
        if empty is not None and "." not in empty and empty.lstrip("-").replace("-", "_") not in texts:
            raise ValueError(f"{empty or 'the first word'} is empty, {_UNSET}; give a value, or leave it away")
        before = word if word.startswith("--") and not equals else ""


def _value(option: str, equals: str, value: str, rest: list[str]) -> str:
    if not equals and (not rest or rest[0].startswith("--")):
        raise ValueError(f"{option} needs a value")
    value = value if equals else rest.pop(0)
    if not value:
        raise ValueError(f"{option} is empty, {_UNSET}; give a value, or leave {option} away")
    return value


def _run_of_values(rest: Sequence[str]) -> int:
    return next((i for i, word in enumerate(rest) if word.startswith("--")), len(rest))


def _paths(given: Sequence[str]) -> list[str]:
    if not given or not all(path.strip() for path in given):
        raise ValueError(
            f"--data.paths is empty, {_UNSET}; give files, globs or URIs, or --data.paths {BUILTIN} for the documentation of Python and of "
            "the installed packages"
        )
    return ["--data.paths", *([] if list(given) == [BUILTIN] else given)]


def _workers(given: str) -> list[str]:
    """``--train.workers`` as settings: a range is elastic, a single number a fixed group, whatever --config says."""
    fewest, colon, most = given.partition(":")
    if not colon:
        return ["--train.min_workers", "0", "--train.workers", given]
    if not (fewest.isdecimal() and most.isdecimal() and 1 <= int(fewest) < int(most)):
        raise ValueError(f"--train.workers {given} is no range of workers; write 1:2 for one to two, or one number for a fixed group")
    return ["--train.min_workers", fewest, "--train.workers", most]
