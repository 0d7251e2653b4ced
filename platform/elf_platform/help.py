"""What --help shows: a first page with the settings that people change, and every setting on request."""

import contextlib
import copy
import inspect
import io
import itertools
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tyro

from elf_platform.commands import as_typed
from elf_platform.config import RunConfig
from elf_platform.config_io import flatten, unknown_key
from elf_platform.identity import resolve
from elf_platform.recipes import DEFAULT, RECIPES
from elf_platform.words import BUILTIN, KINDS

TYRO = (tyro.conf.AvoidSubcommands,)  # the kinds of codec and process are fixed before tyro sees them

_WIDEST = 100
# tyro draws boxes, or plain lines where it finds no terminal that shows them.
_TITLE = re.compile(r"[^\w]*((?:[\w.]+ )?options|positional arguments)[^\w]*")


@dataclass(frozen=True, kw_only=True)
class Page:
    """The first page of a job: the settings that people change, each with a few words, and examples."""

    settings: dict[str, str]
    examples: tuple[str, ...] = ()


TRAIN_PAGE = Page(
    settings={
        "data.paths": "your text: files, globs or URIs, quoted",
        "data.length": "tokens per row",
        "train.steps": "optimiser steps",
        "train.global_batch": "rows per step, over all workers",
        "optim.lr": "peak learning rate",
        "network.hidden": "width of the network",
        "network.depth": "its blocks",
        "train.workers": "processes, one GPU each where there are any; 1:4 is elastic",
        "seed": "of weights, data order and every draw",
        "name": "of the run; the same name and settings go on with it",
        "storage": "folder for data, runs and tracking",
    },
    examples=(
        "{default} --train.steps 2000 --seed 1",
        "{default} --data.paths 'corpus/*.txt' --data.length 128 --print",
        "{default} --train.workers 2 --engine.zero 2",
        "ar-tiny",
    ),
)
DATA_PAGE = Page(
    settings={
        "data.paths": "your text: files, globs or URIs, quoted",
        "data.text_column": "column of the text (of pairs: of the target)",
        "data.source_column": "pairs: column of the source",
        "data.source_length": "pairs: most tokens of a source",
        "data.length": "tokens per row",
        "data.packing": "how documents share rows",
        "data.valid_fraction": "share that is held out",
        "data.tokenizer.source": "bpe or unigram: train one; or a path or hub:NAME",
        "data.tokenizer.vocab_size": "ids of a trained tokenizer",
        "data.strict": "refuse unreadable input instead of counting it",
        "storage": "folder for data, runs and tracking",
    },
)


def print_run_help(base: RunConfig, recipe: str, *, prog: str, summary: str, page: Page, about: str) -> None:
    """The first page, or (``about``) every setting or those of one group. Raises ValueError for a group that is none."""
    base = copy.copy(base)
    object.__setattr__(base, "storage", resolve(base, recipe).storage)  # shown as it would be, not as the empty path
    groups = sorted({path.split(".")[0] for path in flatten(base) if "." in path})
    if about not in ("", "all", *groups):
        raise ValueError(f"{unknown_key(about, ['all', *groups], what='group of settings')} --help alone shows the first page.")
    if about:
        _show("\n".join(_boxes(RunConfig, base, "" if about == "all" else about)))
        return
    flat: dict[str, Any] = flatten(base)
    width = max(map(len, RECIPES))
    recipes = "\n".join(f"  {name:{width}}  {(inspect.getdoc(make) or '').splitlines()[0]}" for name, make in RECIPES.items())
    wide, values = max(map(len, page.settings)), {name: _value(name, flat[name]) for name in page.settings}
    most = min(max(map(len, values.values())), 24)
    settings = "\n".join(f"  --{name:{wide}}  {values[name]:{most}}  {words}" for name, words in page.settings.items())
    examples = "".join(f"\n  {prog} {line.format(default=DEFAULT)}" for line in page.examples)
    _show(
        f"{as_typed(summary)}\n\nusage: {prog} [RECIPE | --config RUN | --extend RUN] [--SETTING VALUE ...] "
        f"[--codec KIND] [--process KIND] [--print]\n\n"
        f"RECIPE is a whole configuration ({DEFAULT} when none is named):\n{recipes}\n\n"
        f"settings that people change, with the values of {recipe}:\n{settings}\n\n"
        + (f"examples:{examples}\n\n" if examples else "")
        + f"--config RUN      a run's folder or config.json instead of a recipe: its settings, not its weights\n"
        f"--extend RUN      train a run, by name or folder, on to more --train.steps: same data, model, seed and optimiser\n"
        f"--codec KIND      another codec, with its default settings: {', '.join(KINDS['--codec'])}\n"
        f"--process KIND    another process, with its default settings: {', '.join(KINDS['--process'])}\n"
        f"--print           show the resolved configuration and each tensor's optimiser, and stop\n"
        f"--help all        all {len(flat)} settings; --help GROUP those of {', '.join(groups)}"
    )


def print_settings_help(cls: type, *, prog: str, summary: str) -> None:
    """All settings of a job that has few: its text as it was written, then a box of options."""
    _show(f"{as_typed(summary.strip())}\n")
    _show("\n".join(map(_without_none, _boxes(cls, tyro.MISSING_NONPROP, "", prog=prog))))


def _without_none(line: str) -> str:
    """A line of a box, as wide as before, without what an empty default looks like in Python."""
    said = line.replace("{None}|", "").replace("(default: None)", "").replace("(default: '')", "")
    return f"{said[:-1]}{' ' * (len(line) - len(said))}{said[-1:]}"


def _show(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _value(name: str, value: Any) -> str:
    if name == "data.paths":
        return " ".join(value) or BUILTIN
    return "(automatic)" if name == "name" and not value else "(none)" if value == "" else str(value)


@contextlib.contextmanager
def _one_column() -> Iterator[None]:
    """tyro puts its boxes side by side on a wide terminal, where no line belongs to one of them; long lines are hard to read besides."""
    before, width = os.environ.get("COLUMNS"), shutil.get_terminal_size().columns
    os.environ["COLUMNS"] = str(min(width, _WIDEST))
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _boxes(cls: type, default: Any, group: str, *, prog: str = "") -> list[str]:
    """tyro's help for ``cls``, without its first lines; of one group alone where one is named."""
    # A real encoding, because tyro draws its boxes in ASCII for a stream without one.
    shown = io.TextIOWrapper(io.BytesIO(), encoding=sys.stdout.encoding or "utf-8")
    with _one_column(), contextlib.suppress(SystemExit), contextlib.redirect_stdout(shown):
        tyro.cli(cls, default=default, args=["--help"], prog=prog, description="", config=TYRO, use_underscores=True)
    shown.seek(0)
    lines = shown.read().splitlines()
    heads = [i for i, line in enumerate(lines) if _TITLE.fullmatch(line)] + [len(lines)]
    chosen: list[str] = []
    for start, end in itertools.pairwise(heads):
        title = _TITLE.fullmatch(lines[start])
        if not group or (title and title[1].split(" ")[0].split(".")[0] == group):
            chosen += lines[start:end]
    return chosen
