"""Lines made fit to be drawn: smoothed, thinned, cut into windows. Plain lists of (x, y), x in ascending order."""

import itertools
import math
from collections.abc import Sequence

from elf_platform.report.record import Line


def smooth(line: Line, points: int = 50) -> Line:
    """Moving average over a ``points``-th of the line, centred: it does not lag behind a steep start. Narrower at the ends."""
    reach = max(1, len(line) // (2 * points))
    sums = [0.0, *itertools.accumulate(y for _, y in line)]
    result = []
    for i, (x, _) in enumerate(line):
        before = min(reach, i)  # as many after as before at the start, which is steep; fewer at the end, which is not
        after = min(before, len(line) - 1 - i)
        result.append((x, (sums[i + after + 1] - sums[i - before]) / (before + 1 + after)))
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


def same(a: Line, b: Line) -> bool:
    """Whether two lines are one, up to rounding."""
    return len(a) == len(b) and all(p[0] == q[0] and math.isclose(p[1], q[1], rel_tol=1e-6) for p, q in zip(a, b, strict=True))


def spread(count: int, wanted: int) -> list[int]:
    """``wanted`` indices below ``count`` from the first to the last, evenly; all of them if there are fewer."""
    if count <= wanted:
        return list(range(count))
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the values lie, without interpolation."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def logit_normal_density(t: float, mean: float, std: float) -> float:
    """Density of t = sigmoid(N(mean, std)); 0 at the ends."""
    if not 0 < t < 1:
        return 0.0
    z = (math.log(t / (1 - t)) - mean) / std
    return math.exp(-z * z / 2) / (std * math.sqrt(2 * math.pi) * t * (1 - t))
