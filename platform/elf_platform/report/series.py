"""Lines made fit to be drawn: smoothed, thinned, cut into windows. Plain lists of (x, y), x in ascending order."""

import math
from collections.abc import Sequence

from elf_platform.report.record import Line


def smooth(line: Line, points: int = 50) -> Line:
    """Exponential moving average whose memory is a ``points``-th of the line, corrected for its start."""
    keep = 1 - 1 / max(1.0, len(line) / points)
    value = weight = 0.0
    result = []
    for x, y in line:
        value, weight = keep * value + (1 - keep) * y, keep * weight + (1 - keep)
        result.append((x, value / weight))
    return result


def thin(line: Line, limit: int = 400) -> Line:
    """At most ``limit`` points that keep every peak: the lowest and the highest of each stretch, and both ends."""
    if len(line) <= limit:
        return line
    stretches = (limit - 2) // 2
    inner = line[1:-1]
    kept = [line[0]]
    for i in range(stretches):
        stretch = inner[len(inner) * i // stretches : len(inner) * (i + 1) // stretches]
        kept += sorted({min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])})
    return [*kept, line[-1]]


def spread(count: int, wanted: int) -> list[int]:
    """``wanted`` indices below ``count`` from the first to the last, evenly; all of them if there are fewer."""
    if count <= wanted:
        return list(range(count))
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the values lie, without interpolation."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def window_means(line: Line, count: int) -> list[tuple[float, float]]:
    """(last x, mean y) over ``count`` equal stretches of x; stretches without a point are left out."""
    if not line:
        return []
    first, last = line[0][0], line[-1][0]
    sums: dict[int, list[tuple[float, float]]] = {}
    for x, y in line:
        place = min(count - 1, int((x - first) / (last - first) * count)) if last > first else 0
        sums.setdefault(place, []).append((x, y))
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for _, part in sorted(sums.items())]


def logit_normal_density(t: float, mean: float, std: float) -> float:
    """Density of t = sigmoid(N(mean, std)); 0 at the ends."""
    if not 0 < t < 1:
        return 0.0
    z = (math.log(t / (1 - t)) - mean) / std
    return math.exp(-z * z / 2) / (std * math.sqrt(2 * math.pi) * t * (1 - t))
