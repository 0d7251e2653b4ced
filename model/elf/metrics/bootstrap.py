"""Confidence intervals by resampling texts (Efron's percentile bootstrap).

Every metric here is a function of sums over texts, so that a resample is a weighted sum of columns: a ratio of sums is resampled as
sums and counts, never as a mean of ratios.

Shapes: N texts, K columns, R resamples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Columns = NDArray[np.float64]
CHUNK = 4_000_000
"""Numbers held at once while resampling."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure over ``count`` texts, with the interval that it falls into when the texts are drawn again."""

    value: float
    low: float | None = None
    """Lower end of the interval; None where resampling texts says nothing about the figure."""
    high: float | None = None
    count: int


def resampled_sums(columns_NK: Columns, *, resamples: int, seed: int) -> Columns:
    """float64 [R, K]: column sums over N texts drawn with replacement, R times; the same for the same seed."""
    count, width = columns_NK.shape
    rng = np.random.default_rng(seed)
    chance_N = np.full(count, 1.0 / count)
    step = max(CHUNK // max(count * width, 1), 1)
    sums = []
    for start in range(0, resamples, step):
        times_RN = rng.multinomial(count, chance_N, size=min(step, resamples - start)).astype(np.float64)
        # Not a matrix product: its order of summation depends on the number of threads.
        sums.append((times_RN[:, :, None] * columns_NK).sum(axis=1))
    return np.concatenate(sums) if sums else np.empty((0, width))


def estimate(
    columns_NK: Columns, figure: Callable[[Columns], float], *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Estimate:
    """``figure`` of the column sums [K], with its percentile interval at ``level``. nan and no interval without texts.

    Resamples for which the figure is not defined (nan) are left out."""
    columns_NK = np.asarray(columns_NK, dtype=np.float64)
    count = len(columns_NK)
    if not count:
        return Estimate(value=math.nan, count=0)
    value = figure(np.array([math.fsum(column) for column in columns_NK.T]))
    if not resamples:
        return Estimate(value=value, count=count)
    drawn = np.array([figure(sums_K) for sums_K in resampled_sums(columns_NK, resamples=resamples, seed=seed)])
    drawn = drawn[~np.isnan(drawn)]
    if math.isnan(value) or not len(drawn):
        return Estimate(value=value, count=count)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=value, low=float(low), high=float(high), count=count)


def mean_estimate(values: list[float], *, resamples: int = 1000, seed: int = 0) -> Estimate:
    """The mean of one value a text, with its interval."""
    columns_N2 = np.array([(value, 1.0) for value in values], dtype=np.float64).reshape(-1, 2)
    return estimate(columns_N2, lambda sums_K: float(sums_K[0] / sums_K[1]), resamples=resamples, seed=seed)
