"""Run configurations as plain dictionaries and JSON, strictly: an unknown key or a wrong type is refused by its dotted path.

Files of older formats are brought up to this one. Which run a configuration is, and what may change in one, is told by ``identity``.
"""

import contextlib
import dataclasses
import difflib
import json
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from elf.codecs import CODECS
from elf.files import write_text
from elf.processes import PROCESSES
from elf.settings import identity_fields
from elf_platform.config import RunConfig
from elf_platform.other_names import our_name

FORMAT = 2
"""Version of config.json. 2: keeps a history of what was changed after the run began."""

RENAMED: dict[int, dict[str, str]] = {1: {}}
"""What each older format called otherwise: dotted path to its name in the next format, or to "" for a setting that is gone. Whoever
renames or removes a setting raises ``FORMAT`` and adds a line, so that runs of before stay readable."""

_REGISTRIES: dict[str, Mapping[str, type]] = {"codec": CODECS, "process": PROCESSES}  # unions, told apart by the key "kind"

T = TypeVar("T")


def to_dict(value: Any, *, identity: bool = False) -> Any:
    """The plain form (dicts, lists, numbers, strings) of a settings dataclass; members of a union carry their "kind" first.

    identity: for a fingerprint, without settings that came later and are at their defaults."""
    if dataclasses.is_dataclass(value):
        kinds = [kind for registry in _REGISTRIES.values() for kind, cls in registry.items() if cls is type(value)]
        plain = {"kind": kinds[0]} if kinds else {}
        hints = _hints(type(value))
        names = identity_fields(value) if identity else [f.name for f in dataclasses.fields(value) if f.init]
        return plain | {name: _plain(getattr(value, name), hints[name], identity) for name in names}
    return _plain(value, type(value), identity)


def from_dict(cls: type[T], plain: Mapping[str, Any], path: str = "") -> T:
    """Builds the dataclass ``cls`` from its plain form; missing keys take their defaults.

    Raises ValueError for an unknown key (naming the nearest known one), a missing key without default or a value of another type.
    """
    if not isinstance(plain, Mapping):
        raise ValueError(f"{path or 'the configuration'} is {_show(plain)}, but a table of settings was expected")
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls)) if f.init}
    hints = _hints(cls)
    for key in plain:
        if key not in fields:
            raise ValueError(unknown_key(_join(path, str(key)), [_join(path, name) for name in fields]))
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in plain:
            raise ValueError(f"the configuration has no {_join(path, name)}, which has no default; add it")
    values = {key: _parse(hints[key], value, _join(path, key)) for key, value in plain.items()}
    prefix, here = str(getattr(cls, "prefix", "")), f"{path}." if path else ""
    try:
        return cls(**values)
    except ValueError as error:  # network settings call themselves network, but a codec has some too
        if not prefix or prefix == here:
            raise
        raise ValueError(str(error).replace(prefix, here)) from error


def unknown_key(key: str, known: Iterable[str], what: str = "setting") -> str:
    """The sentence that refuses ``key`` and names the nearest of ``known``."""
    known, key = sorted(known), key.encode("utf-8", "backslashreplace").decode()[:100]
    if ours := our_name(key, known):
        return f"unknown {what} {key}; did you mean {ours}?"
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if "." not in key:  # a leaf without its prefix, such as lr for optim.lr
        near = [name for name in known if name.rsplit(".", 1)[-1] == key] or near
    if near:
        return f"unknown {what} {key}; did you mean {' or '.join(near)}?"
    return f"unknown {what} {key}" + (f"; known are {', '.join(known)}." if len(known) <= 20 else ".")


def flatten(config: RunConfig) -> dict[str, Any]:
    """Leaf values by dotted path, such as ``{"optim.lr": 0.002, ...}``."""
    return dict(_leaves(to_dict(config)))


def default_storage() -> Path:
    """$ELF_HOME, or ~/elf-runs; absolute."""
    return Path(os.environ.get("ELF_HOME") or Path.home() / "elf-runs").expanduser().absolute()


def to_record(config: RunConfig) -> dict[str, Any]:
    """The plain form with its format number, for files that outlive this version of the code."""
    return {"format": FORMAT, **to_dict(config)}


def from_record(record: Mapping[str, Any]) -> RunConfig:
    """The configuration in what ``to_record`` gave, in this version or an older one; settings that came since have their defaults.

    Raises ValueError for a format that is not known, and what ``from_dict`` raises."""
    plain: dict[str, Any] = json.loads(json.dumps(record))
    version = plain.pop("format", 1)  # without a number: a checkpoint of the first format
    if type(version) is not int or (version not in RENAMED and version != FORMAT):
        raise ValueError(f"has format {version}, but this version of the code reads formats up to {FORMAT}; use the code that wrote it")
    for older in range(version, FORMAT):
        for old, new in RENAMED[older].items():
            _move(plain, old, new)
    return from_dict(RunConfig, plain)


def write_config(path: Path, config: RunConfig, *, recipe: str, code_version: str, history: Sequence[Mapping[str, Any]] = ()) -> None:
    """Writes a run's config.json, whole or not at all. history: what was changed after the run began, oldest first."""
    plain = {"recipe": recipe, "code_version": code_version, "history": list(history), **to_record(config)}
    write_text(path, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")


def read_config(path: Path) -> tuple[RunConfig, str]:
    """The configuration and the recipe's name in a config.json; those of older formats are brought up to this one.

    Raises FileNotFoundError without the file, ValueError when it is not a run's configuration of a known format.
    """
    path, plain = _read(path)
    for name in ("code_version", "history"):
        plain.pop(name, None)
    recipe = str(plain.pop("recipe", "custom"))
    try:
        return from_record(plain), recipe
    except ValueError as error:
        raise ValueError(f"{path} {error}" if str(error).startswith("has format") else f"{path}: {error}") from error


def read_history(path: Path) -> list[dict[str, Any]]:
    """What was changed after a run began, oldest first; the same errors as ``read_config``."""
    history = _read(path)[1].get("history", [])
    entries = history if isinstance(history, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("changed", {}), dict)]


def _read(path: Path) -> tuple[Path, dict[str, Any]]:
    """The config.json that is meant by a run's folder or by the file, and what is in it."""
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no configuration at {path}; give a run's folder or its config.json")
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # broken UTF-8 is a ValueError as well
        raise ValueError(f"{path} is not JSON ({error}); give the config.json of a run") from error
    if not isinstance(plain, dict) or "process" not in plain:
        raise ValueError(f"{path} is JSON, but not the configuration of a run; give the config.json of a run")
    return path, plain


def _move(plain: dict[str, Any], old: str, new: str) -> None:
    """Give the value at dotted path ``old`` to ``new``, or drop it; nothing when there is none."""
    table, leaf = _table_of(plain, old)
    if leaf not in table:
        return
    value = table.pop(leaf)
    if new:
        target, name = _table_of(plain, new)
        target[name] = value


def _table_of(plain: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    *tables, leaf = path.split(".")
    for name in tables:
        plain = plain.setdefault(name, {})
    return plain, leaf


def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _show(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 120 else f"{text[:100]} ..."


def _leaves(plain: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(plain, dict):
        for key, value in plain.items():
            yield from _leaves(value, _join(path, key))
    else:
        yield path, plain


def _plain(value: Any, hint: Any, identity: bool = False) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value, identity=identity)
    if isinstance(value, Path):
        return "" if value == Path("") else str(value)
    if isinstance(value, tuple | list):
        inner = typing.get_args(hint)
        return [_plain(item, inner[min(i, len(inner) - 1)] if inner else Any, identity) for i, item in enumerate(value)]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)  # 1 and 1.0 are one setting and must hash alike
    return value


def _parse(hint: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    members = typing.get_args(hint) if origin in (Union, types.UnionType) else (hint,)
    registry = next((r for r in _REGISTRIES.values() if all(member in r.values() for member in members)), None)
    if registry is not None:
        return _parse_kind(registry, value, path)
    if len(members) > 1:
        rest = [member for member in members if member is not type(None)]
        assert len(rest) == 1, f"the type of {path} is a union that is neither a registry nor an optional value: {hint}"
        return None if value is None and len(rest) < len(members) else _parse(rest[0], value, path)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, path)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices or isinstance(value, bool):
            raise ValueError(f"{path} is {_show(value)}, but must be one of {', '.join(map(str, choices))}")
        return value
    if origin is tuple:
        return _parse_tuple(hint, value, path)
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # a whole number beyond every float is refused as one that is not finite
            return float(value)
        return float("inf")
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    expected = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}.get(hint, str(hint))
    raise ValueError(f"{path} is {_show(value)}, but {expected} was expected")


def _parse_tuple(hint: Any, value: Any, path: str) -> tuple[Any, ...]:
    inner = typing.get_args(hint)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{path} is {_show(value)}, but a list was expected")
    if inner[-1] is Ellipsis:
        inner = (inner[0],) * len(value)
    if len(inner) != len(value):
        raise ValueError(f"{path} is {_show(value)}, but {len(inner)} values were expected")
    return tuple(_parse(kind, item, f"{path}.{i}") for i, (kind, item) in enumerate(zip(inner, value, strict=True)))


def _parse_kind(registry: Mapping[str, type], value: Any, path: str) -> Any:
    if not isinstance(value, Mapping) or "kind" not in value:
        raise ValueError(f"{path} is {_show(value)}, but a table with a kind was expected: {', '.join(registry)}")
    kind = value["kind"]
    if kind not in registry:
        raise ValueError(unknown_key(str(kind), registry, what=f"{path}.kind"))
    return from_dict(registry[kind], {key: item for key, item in value.items() if key != "kind"}, path)
