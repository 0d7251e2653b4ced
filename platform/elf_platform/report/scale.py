"""Axes: from values to pixels, round ticks, short numbers."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] onto the pixels [start, end], by value or by logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, wanted: int) -> list[float]:
        """Round values within the range, about ``wanted`` of them."""
        return log_ticks(self.low, self.high, wanted) if self.log else linear_ticks(self.low, self.high, wanted)


def linear_ticks(low: float, high: float, wanted: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between low and high."""
    step = round_step((high - low) / max(1, wanted))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def round_step(raw: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below ``raw``."""
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))


def log_ticks(low: float, high: float, wanted: int) -> list[float]:
    """Powers of ten between low and high, with their multiples by 2 and 5 where that leaves room, or every second one, ..."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in decades for factor in factors if low <= factor * 10.0**power <= high]
        if len(ticks) <= wanted + 1:
            return ticks if len(ticks) > 1 else linear_ticks(low, high, wanted)
    every = math.ceil(len(ticks) / wanted)
    return [tick for tick in ticks if round(math.log10(tick)) % every == 0]


def padded(low: float, high: float, log: bool) -> tuple[float, float]:
    """The range with a little room on both sides, never empty."""
    if log:
        room = max((high / low) ** 0.06, 1.02)
        return low / room, high * room
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (0.0 if 0 <= low < room else low - room), high + room


def short(value: float, digits: int = 3) -> str:
    """A number for people: 12.3k, 0.0021, 4e-5, 1.5M, 10.5B. At most ``digits`` significant digits."""
    size = abs(value)
    if size >= 1e15 or 0 < size < 1e-4:
        return f"{value:.{max(0, digits - 1)}e}".replace("e-0", "e-").replace("e+", "e").replace(".00e", "e").replace(".0e", "e")
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= unit * 0.9995:
            return f"{float(f'{value / unit:.{digits}g}'):g}{letter}"
    return f"{float(f'{value:.{digits}g}'):g}"
