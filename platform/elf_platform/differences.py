"""Where two nested dictionaries of settings differ, for refusals that name it."""

import json
from collections.abc import Callable, Mapping
from typing import Any


def differences(old: Mapping[str, Any], new: Mapping[str, Any], *, show: Callable[[Any], str] = json.dumps, path: str = "") -> list[str]:
    """``data.length: 128 -> 256`` for each leaf in which two dictionaries differ; one that is missing counts as None."""
    lines = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, show=show, path=f"{path}{key}.")
        elif before != after:
            lines.append(f"{path}{key}: {show(before)} -> {show(after)}")
    return lines
