"""The command line of the jobs: recipes, settings by dotted path, help, and errors as one readable paragraph.

    python jobs/pretrain.py [RECIPE | --config RUN | --extend RUN] [--codec KIND] [--process KIND] [--print] [--optim.lr 1e-3 ...]
"""

import contextlib
import copy
import dataclasses
import io
import itertools
import logging
import os
import re
import shlex
import shutil
import sys
import textwrap
import traceback
import typing
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tyro

from elf.optim import describe_groups
from elf_platform.commands import as_typed, job_command
from elf_platform.config import RunConfig
from elf_platform.config_io import flatten, read_config, unknown_key
from elf_platform.extend import check_extension, newest_step, run_to_extend
from elf_platform.help import TRAIN_PAGE, TYRO, Page, print_run_help, print_settings_help
from elf_platform.identity import compare, is_automatic, resolve
from elf_platform.recipes import DEFAULT, RECIPES
from elf_platform.redact import redact
from elf_platform.sizes import expected_sizes, shape_network
from elf_platform.stops import raise_on_sigterm, stopped
from elf_platform.terminal import flush_streams, open_streams, reader_gone
from elf_platform.words import KINDS, Words, plain_switches, refuse_empty, sort_words

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ParsedRun:
    """What a command line asked for."""

    config: RunConfig
    """Resolved: it has a name, and its storage is absolute."""
    recipe: str
    print_only: bool
    """The user only wants to see the configuration."""
    extend: bool = False
    """The run of this name is to go on, to more steps where the configuration has them."""
    based_on: str = ""
    """The run whose settings these are; its weights are not taken."""
    store: str = ""
    """Where the file of --config or --extend sends figures, when the user has not named it."""

    def check_store(self) -> None:
        """Raises ValueError for such a store: a run folder may come from anywhere, and name any server."""
        if self.store:
            raise ValueError(
                f"the run whose settings these are sent its figures to {redact(self.store)}, which you have not named; a folder that came "
                f"from elsewhere may name any server. If you want them there, add: --tracking.uri {shlex.quote(self.store)} (or set "
                "MLFLOW_TRACKING_URI); for the storage's own store add: --tracking.uri ''"
            )


def parse_run_config(argv: Sequence[str], *, prog: str = "", summary: str = "Train a model.", page: Page = TRAIN_PAGE) -> ParsedRun:
    """The run that ``argv`` (without the program's name) describes; ``prog``, ``summary`` and ``page`` stand in the help.

    Prints the help and raises SystemExit(0) when asked for it. Raises ValueError for an unknown recipe or setting (naming the nearest
    known one), a value of the wrong type, or settings that contradict one another; FileNotFoundError without the file of --config.
    """
    words = sort_words(argv)
    words = dataclasses.replace(words, config=_configuration(words))
    recipe, base = _base(words)
    if words.help is not None:
        print_run_help(base, recipe, prog=prog or job_command("pretrain"), summary=summary, page=page, about=words.help)
        raise SystemExit(0)
    leaves = {path: value for path, value in flatten(base).items() if path not in ("codec.kind", "process.kind")}
    switches = {path for path, value in leaves.items() if isinstance(value, bool)}
    given = _tyro(RunConfig, base, plain_switches(words.settings, switches), list(leaves))
    config = resolve(_keeps_name(given, words.config), recipe)
    if words.extend:
        check_extension(base, config)
    return ParsedRun(
        config=config, recipe=recipe, print_only=words.print_only, extend=bool(words.extend), based_on=_trained(words.config),
        store=_unnamed_store(words, config),
    )


def parse_settings(cls: type[T], argv: Sequence[str], *, prog: str, summary: str = "") -> T:
    """A job's own settings, a dataclass that is no RunConfig, with the same refusals: ValueError in one sentence.

    Prints the help and raises SystemExit(0) when asked for it.
    """
    if {"-h", "--help"} & set(argv):
        print_settings_help(cls, prog=prog, summary=summary)
        raise SystemExit(0)
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(typing.cast(Any, cls))]
    refuse_empty(argv, [name for name in names if str in (hints[name], *typing.get_args(hints[name]))])
    return _tyro(cls, None, plain_switches(argv, [name for name in names if hints[name] is bool]), names)


def run_main(main: Callable[[list[str]], int | None]) -> None:
    """Runs a job on the command line and exits: 0 or what it returns, 2 with one paragraph for a user's error, 130 on Ctrl-C,
    143 on SIGTERM.

    User errors are ValueError and OSError (FileNotFoundError, ConnectionError, ...), wherever they were raised: those of Ray tasks and
    training workers are taken out of Ray's wrappers, and Ray's own errors (a worker killed for memory, ...) count too. Anything else is a
    bug and keeps its traceback; ELF_DEBUG=1 shows all of them.
    """
    _quiet_logs()
    open_streams()
    raise_on_sigterm()
    try:
        try:
            code = main(_decodable(sys.argv[1:]))
        finally:
            flush_streams()
    except KeyboardInterrupt as stop:
        word, status = stopped(stop)
        print(f"\n{word}", file=sys.stderr)
        raise SystemExit(status) from None
    except Exception as error:
        cause = root_cause(error)
        if isinstance(error, BrokenPipeError) and reader_gone():
            flush_streams()
            raise SystemExit(0) from None
        if not (isinstance(cause, ValueError | OSError) or _is_rays(cause)):
            raise
        if os.environ.get("ELF_DEBUG", "") not in ("", "0"):
            print(redact("".join(traceback.format_exception(error))), file=sys.stderr)
        print(error_paragraph(cause), file=sys.stderr)
        raise SystemExit(2) from None
    raise SystemExit(code or 0)


def root_cause(error: BaseException) -> BaseException:
    """The exception inside the wrappers of Ray tasks, Ray Train workers and controllers; ``error`` itself when there are none.

    Wrappers are told by their attributes, so that Ray need not be imported to read an error of the command line.
    """
    for _ in range(10):
        failures = getattr(error, "worker_failures", None)  # Ray Train's WorkerGroupError: by rank
        inner: Any = failures[min(failures)] if failures else None
        for name in ("controller_failure", "health_check_failure", "_base_exc", "cause"):
            inner = inner or getattr(error, name, None)
        if not isinstance(inner, BaseException):
            return error
        error = inner
    return error


def error_paragraph(error: BaseException) -> str:
    """``error: `` and the message as one paragraph, wrapped for the terminal; a line that begins with four spaces is a command to paste,
    and stays as it is."""
    message = str(error)
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename else ""
        message = f"{named}{error.strerror}"
    if not _is_ours(error):
        message = f"{(message or type(error).__name__).rstrip('.')}. ({type(error).__name__}; ELF_DEBUG=1 shows where.)"
    message = "".join(c if c.isprintable() or c.isspace() else c.encode("unicode_escape").decode() for c in message)
    width = max(40, min(100, shutil.get_terminal_size().columns))
    parts = itertools.groupby(as_typed(redact(f"error: {message}")).splitlines(), key=lambda line: line.startswith("    "))
    return "\n".join(
        "\n".join(lines) if command
        else textwrap.fill(" ".join(" ".join(lines).split()), width, break_long_words=False, break_on_hyphens=False)
        for command, lines in parts
    )


def describe_run(config: RunConfig, *, vocab_size: int | None = None, channels: int | None = None) -> str:
    """For --print: the resolved settings, then each tensor with the optimiser that moves it, and the number of parameters.

    Without ``vocab_size`` and ``channels`` they are the expected ones, and the text says so.
    """
    expected = expected_sizes(config)
    network = shape_network(config, vocab_size=vocab_size or expected[0], channels=channels or expected[1])
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    settings = "\n".join(f"{path} = {value}" for path, value in flatten(config).items())
    sizes = f"vocabulary {vocab_size or expected[0]:,}"
    if config.process.needs_codec:
        sizes += f", {channels or expected[1]} channels"
    if vocab_size is None or channels is None:
        sizes += " (before the data is prepared)"
    total = sum(parameter.numel() for parameter in network.parameters())
    return f"{settings}\n\n{describe_groups(shapes, config.optim)}\nparameters: {total:,}; {sizes}"


def _decodable(words: list[str]) -> list[str]:
    """The words of the command line. Raises ValueError for bytes that are no text, which Python hands on as halves of characters."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(word).decode("utf-8", "backslashreplace")
            raise ValueError(
                f"the word '{shown}' of the command line is not text in UTF-8, which names, paths and prompts must be; write it in UTF-8, "
                "and rename a file with such a name (mv understands it with the Tab key; convmv renames many)"
            ) from None
    return words


def _base(words: Words) -> tuple[str, RunConfig]:
    """The recipe's name and the configuration that the settings are applied to."""
    if words.extend:
        others = {"a recipe": words.recipe, "--config": words.config, **words.kinds}
        if given := [name for name, value in others.items() if value]:
            raise ValueError(f"--extend trains a run on with its own settings; leave {' and '.join(given)} away")
        from elf_platform.lookup import resolve as look_up

        place = words.extend.removesuffix("/config.json")
        config, recipe = run_to_extend(look_up(place, "run", storage=Path(words.storage) if words.storage else None))
        return recipe, config
    if words.config and words.recipe:
        raise ValueError(f"give a recipe ({words.recipe}) or --config ({words.config}), but not both: each is a whole configuration")
    if words.config:
        recipe, config = _from_file(Path(words.config).expanduser())
    else:
        recipe = words.recipe or DEFAULT
        if recipe not in RECIPES:
            raise ValueError(f"{unknown_key(recipe, RECIPES, what='recipe')} The recipes are {', '.join(RECIPES)}.")
        config = RECIPES[recipe]()
    for option, kind in words.kinds.items():
        registry: dict[str, type] = dict(KINDS[option])
        if kind not in registry:
            raise ValueError(unknown_key(kind, registry, what=option[2:]))
        if type(getattr(config, option[2:])) is registry[kind]:
            continue  # the recipe's own kind keeps the recipe's settings
        config = copy.copy(config)
        # Unchecked: the command line's other settings may be what makes the new kind fit. The result is checked when it is built.
        object.__setattr__(config, option[2:], registry[kind]())
    return recipe, config


def _configuration(words: Words) -> str:
    """Where the configuration of --config lies: the path that was given, or the folder of the run of that name."""
    if not words.config or words.recipe or words.extend or Path(words.config).expanduser().exists():
        return words.config  # or one of several that exclude each other, which is refused
    from elf_platform.lookup import resolve as look_up

    return str(look_up(words.config, "run", storage=Path(words.storage) if words.storage else None))


def _keeps_name(config: RunConfig, given: str) -> RunConfig:
    """With the name of the run that --config names, when it was automatic and nothing was changed that decides what is trained: an extended
    run, or one of an earlier version, has another than these settings would get."""
    if config.name or not given:
        return config
    known, recipe = read_config(Path(given).expanduser())
    same = all(found.role in ("free", "afterwards") for found in compare(known, config))
    return dataclasses.replace(config, name=known.name) if same and is_automatic(known.name, recipe) else config


def _unnamed_store(words: Words, config: RunConfig) -> str:
    if not (words.config or words.extend) or any(word.split("=")[0] in ("--tracking.uri", "--tracking-uri") for word in words.settings):
        return ""
    from elf_platform.tracking.runs import naming

    return config.tracking.uri if naming(config.tracking.uri) else ""


def _trained(given: str) -> str:
    """The folder of the trained run that --config names; empty for another file."""
    path = Path(given).expanduser().absolute()
    folder = path if path.is_dir() else path.parent
    return str(folder) if given and folder.parent.name == "runs" and newest_step(folder) else ""


def _from_file(path: Path) -> tuple[str, RunConfig]:
    """A run's configuration to start from.

    A name that the run was given automatically is dropped, so that changed settings get a name of their own; a storage folder that the
    file does not lie in is that of another machine, and is dropped too.
    """
    config, recipe = read_config(path)
    config = copy.copy(config)
    if is_automatic(config.name, recipe):
        object.__setattr__(config, "name", "")
    if config.storage.absolute() not in path.absolute().parents:
        object.__setattr__(config, "storage", Path(""))
    return recipe, config


def _tyro(cls: type[T], default: T | None, words: Sequence[str], known: Sequence[str]) -> T:
    """What ``words`` make of ``cls``; tyro parses the values by the types of the fields, and its refusals become ValueErrors."""
    said = io.StringIO()
    start = tyro.MISSING_NONPROP if default is None else default
    try:
        with contextlib.redirect_stderr(said):
            settings, unknown = tyro.cli(
                cls, default=start, args=words, config=TYRO, use_underscores=True, return_unknown_args=True
            )
    except ValueError as error:
        raise ValueError(_of_encoder(str(error), words)) from error
    except SystemExit as stop:
        # tyro prints a box and exits; a contradiction that the settings found is the context of the exit, whole and unwrapped.
        context = stop.__context__
        message = str(context) if isinstance(context, ValueError) else _unbox(said.getvalue())
        raise ValueError(_of_encoder(message, words)) from None
    if unknown:
        raise ValueError(_unknown_word(unknown[0], known))
    return settings


def _of_encoder(message: str, words: Sequence[str]) -> str:
    """Both networks of a run call themselves network; what was given for the encoder's is said of codec.network."""
    given = {word.split("=")[0].removeprefix("--").replace("-", "_") for word in words}
    if not any(f"codec.{name}" in given and name not in given for name in re.findall(r"\bnetwork\.\w+", message)):
        return message
    return re.sub(r"(?<!codec\.)\bnetwork\.", "codec.network.", message)


def _unbox(text: str) -> str:
    """The first section of one of tyro's boxed messages, as a sentence."""
    lines = [line.strip("│╭╮╰╯ \n") for line in text.splitlines()[1:]]
    rule = next((i for i, line in enumerate(lines) if set(line) <= {"─"}), len(lines))
    message = " ".join(line for line in lines[:rule] if line)
    message = re.sub(r"^Error parsing (?:(--\S+:)|\S+:)", lambda found: found[1] or "", message).strip()
    return message or "the command line could not be read; --help all lists every setting"


def _unknown_word(word: str, known: Sequence[str]) -> str:
    if word in RECIPES:
        return f"the recipe {word} must come first, before the settings"
    if not word.startswith("-"):
        return f"unexpected word {word!r}: settings are written --name value; --help all lists them"
    name = word.lstrip("-").split("=")[0].replace("-", "_")
    return f"{unknown_key(name, known)} --help all lists every setting."


def _is_ours(error: BaseException) -> bool:
    """True when our own code raised the error: its message was written for the user. Errors that crossed processes have no traceback."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return not frames or str(frames[-1].f_globals.get("__name__")).split(".")[0] in ("elf", "elf_platform", "__main__")


def _is_rays(error: BaseException) -> bool:
    """True for Ray's own troubles (a worker killed for memory, a lost node): sentences for the user, not places in our code."""
    return any(base.__module__.startswith(("ray.exceptions", "ray.train.")) for base in type(error).__mro__)


def _quiet_logs() -> None:
    for name in ("ray", "ray.train", "ray.tune", "ray.data", "DeepSpeed", "deepspeed", "transformers", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
