"""What all settings have in common: they check themselves whenever one is built, from the command line, from a file and in Python.

A settings class is a frozen dataclass that inherits from ``Settings``. Its numbers are finite and within the bounds that stand beside the
field (``steps: Positive = 1000``), its text has no control characters; the refusal names the dotted path, the value and what is allowed.
"""

import dataclasses
import functools
import math
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union

_LONGEST = 4096  # of a name or path: the limit of Linux
_LARGEST = 2**63 - 1  # what arrays, Arrow files and the libraries' counters hold

S = TypeVar("S", bound="Settings")


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a number may be: ``least`` and ``most`` are allowed themselves, ``above`` and ``below`` are not."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def problem(self, value: float) -> str:
        """What the number must be; empty when it is that."""
        too_low = (self.least is not None and value < self.least) or (self.above is not None and value <= self.above)
        too_high = (self.most is not None and value > self.most) or (self.below is not None and value >= self.below)
        if not (too_low or too_high):
            return ""
        low = f"at least {_show(self.least)}" if self.least is not None else f"above {_show(self.above)}" if self.above is not None else ""
        high = f"at most {_show(self.most)}" if self.most is not None else f"below {_show(self.below)}" if self.below is not None else ""
        if self.least is not None and self.most not in (None, _LARGEST):
            return f"between {_show(self.least)} and {_show(self.most)}"
        if low and high and self.most != _LARGEST:
            return f"{low} and {high}"
        return high if too_high else low


class _AnyCharacter:
    """Marks text that may hold any character: it is data and no name."""


Positive = Annotated[int, Bounds(least=1)]
Count = Annotated[int, Bounds(least=0)]
Seed = Annotated[int, Bounds(least=0, most=_LARGEST)]
"""What every generator takes: torch, numpy and the draws' keys."""
Share = Annotated[float, Bounds(least=0, most=1)]
Decay = Annotated[float, Bounds(least=0, below=1)]
Above0 = Annotated[float, Bounds(above=0)]
NotNegative = Annotated[float, Bounds(least=0)]
Scale = Annotated[float, Bounds(above=0, most=1e6)]
"""A factor of values near 1: beyond a million, float32 arithmetic overflows or says nothing."""
LearningRate = Annotated[float, Bounds(above=0, most=100)]
"""Updates of every optimiser here are of the order of the rate itself, so that 100 is far beyond what can train."""
Seconds = Annotated[float, Bounds(above=0, most=1e8)]
"""Timers take no more than some years."""
SecondsOrOff = Annotated[float, Bounds(least=0, most=1e8)]
FreeText = Annotated[str, _AnyCharacter()]


class Settings:
    """Base of all settings dataclasses. A subclass with contradictions of its own to refuse calls ``super().__post_init__()`` first."""

    prefix: ClassVar[str] = "--"
    """What stands before a field's name where it is set, for messages: ``optim.``, or ``--`` for the settings of a job."""
    later: ClassVar[tuple[str, ...]] = ()
    """Fields that came after something had been made of such settings: at their defaults they change no fingerprint of data or codecs."""

    def __post_init__(self) -> None:
        cls: Any = type(self)
        for name, hint in _hints(cls).items():
            value = getattr(self, name)
            if problem := _problem(hint, value):
                raise ValueError(f"{self.prefix}{name} is {_show(value)}, but {problem}")


def identity_fields(value: Any) -> list[str]:
    """Names of a settings object's fields that say what was made with it: all but those of ``later`` that are at their defaults."""
    names = []
    for field in dataclasses.fields(value):
        default = field.default_factory() if callable(field.default_factory) else field.default
        if field.init and not (field.name in getattr(value, "later", ()) and getattr(value, field.name) == default):
            names.append(field.name)
    return names


def _problem(hint: Any, value: Any) -> str:
    """Why a value is none of the annotated type ``hint``; empty when it is one."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        inner, *marks = typing.get_args(hint)
        if inner is str and any(isinstance(mark, _AnyCharacter) for mark in marks):
            return _text_problem(value, data=True)
        problem = _problem(inner, value)
        bounds = [mark for mark in marks if isinstance(mark, Bounds)]
        if problem or not bounds or value is None:
            return problem
        return next((f"must be {problem}" for b in bounds if (problem := b.problem(value))), "")
    if origin in (Union, types.UnionType):
        found = [_problem(member, value) for member in typing.get_args(hint)]
        return "" if "" in found else found[0]
    if origin is Literal:
        words = typing.get_args(hint)
        return "" if value in words else f"must be one of {', '.join(map(str, words))}"
    if origin is tuple and isinstance(value, tuple | list):
        members = typing.get_args(hint)
        members = (members[0],) * len(value) if members[-1] is Ellipsis else members
        return next((f"{problem} (each of them)" for m, v in zip(members, value, strict=False) if (problem := _problem(m, v))), "")
    return _plain_problem(hint, value)


def _plain_problem(hint: Any, value: Any) -> str:
    if hint is type(None):
        return "" if value is None else "must be empty"
    if hint is int:
        if isinstance(value, bool) or not isinstance(value, int):
            return "must be a whole number"
        return "" if -_LARGEST <= value <= _LARGEST else f"must be between {-_LARGEST} and {_LARGEST}"
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "must be a number"
        return "" if abs(value) < math.inf and abs(value) <= 1.7e308 else "must be a finite number"
    if hint in (str, Path):
        return _text_problem(value)
    return ""


def _text_problem(value: Any, *, data: bool = False) -> str:
    """Control characters break lines, terminals and files of names; what is no Unicode text can be written to no file of ours."""
    if not isinstance(value, str | Path):
        return "must be text"
    text = str(value)
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        return "must be Unicode text; it holds bytes that are not UTF-8 (or half of a surrogate pair): rename or convert it"
    if not data and len(text) > _LONGEST:
        return f"must be at most {_LONGEST} characters"
    if not data and any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text):
        return "must be one line of text without control characters such as a line break or a tab"
    return ""


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def _show(value: Any) -> str:
    """The value as one would write it, shortened."""
    if isinstance(value, Path):
        value = str(value)
    try:
        text = repr(value) if isinstance(value, str) else f"{value:g}" if isinstance(value, float) and value == int(value) else str(value)
    except (OverflowError, ValueError):  # inf and nan; a whole number of thousands of digits
        text = str(value) if isinstance(value, float) else "a number of thousands of digits"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 120 else f"{text[:100]} ..."
