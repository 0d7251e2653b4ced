"""What every settings class refuses by itself: numbers out of bounds, text that is none."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest

from elf.settings import Bounds, Count, FreeText, Positive, Scale, Seed, Settings, Share


@dataclass(frozen=True, kw_only=True)
class Made(Settings):
    """One field of each form."""

    prefix: ClassVar[str] = "made."

    steps: Positive = 3
    rows: Count = 0
    any_number: int = 0
    share: Share = 0.5
    scale: Scale = 1.0
    shift: float = 0.0
    open: Annotated[float, Bounds(above=0, below=1)] = 0.5
    seed: Seed = 0
    limit: Positive | None = None
    betas: tuple[Share, Share] = (0.9, 0.99)
    table: tuple[float, ...] = ()
    name: str = ""
    folder: Path | None = None
    text: FreeText | None = None


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"steps": 0}, "made.steps is 0, but must be at least 1"),
        ({"rows": -1}, "made.rows is -1, but must be at least 0"),
        ({"steps": 1.5}, "made.steps is 1.5, but must be a whole number"),
        ({"steps": math.nan}, "made.steps is nan, but must be a whole number"),
        ({"steps": True}, "made.steps is True, but must be a whole number"),
        ({"steps": 10**30}, "must be between -9223372036854775807 and 9223372036854775807"),
        ({"any_number": -(10**5000)}, "made.any_number is a number of thousands of digits, but must be between"),
        ({"share": 1.5}, "made.share is 1.5, but must be between 0 and 1"),
        ({"share": math.nan}, "made.share is nan, but must be a finite number"),
        ({"scale": 0.0}, "made.scale is 0, but must be above 0 and at most 1e+06"),
        ({"shift": math.inf}, "made.shift is inf, but must be a finite number"),
        ({"shift": 10**400}, "but must be a finite number"),
        ({"shift": "1"}, "made.shift is '1', but must be a number"),
        ({"open": 1.0}, "made.open is 1, but must be above 0 and below 1"),
        ({"seed": -1}, "made.seed is -1, but must be at least 0"),
        ({"seed": 2**63}, "made.seed is 9223372036854775808, but must be"),
        ({"limit": 0}, "made.limit is 0, but must be at least 1"),
        ({"betas": (0.9, 1.5)}, "made.betas is (0.9, 1.5), but must be between 0 and 1 (each of them)"),
        ({"table": (0.0, math.inf)}, "but must be a finite number (each of them)"),
        ({"name": "a\nb"}, "made.name is 'a\\nb', but must be one line of text without control characters"),
        ({"name": "a\x9bb"}, "without control characters"),
        ({"name": "\udcff"}, "must be Unicode text; it holds bytes that are not UTF-8"),
        ({"folder": Path("a\tb")}, "without control characters"),
        ({"text": "\ud800"}, "must be Unicode text"),
    ],
)
def test_what_no_settings_take(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as refused:
        Made(**values)
    assert says in str(refused.value)
    assert len(str(refused.value)) < 300
    str(refused.value).encode()


def test_what_they_take() -> None:
    values: dict[str, Any] = {
        "any_number": -5, "share": 1, "scale": 1e6, "shift": -1e300, "seed": 2**63 - 1, "limit": 1, "betas": (0.0, 1.0),
        "table": (1.0, 2.0), "name": "Ünïcode [x] ?%#", "folder": Path("/a b/ç"), "text": "two\nlines",
    }  # fmt: skip
    made = Made(**values)
    assert {name: getattr(made, name) for name in values} == values
