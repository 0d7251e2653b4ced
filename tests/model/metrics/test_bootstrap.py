"""Bootstrap intervals against the normal theory they must agree with."""

import math

import numpy as np
import pytest

from elf.metrics.bootstrap import estimate, mean_estimate, resampled_sums


def test_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    found = mean_estimate(values.tolist(), resamples=4000)
    error = 1.96 * values.std() / math.sqrt(400)
    assert found.value == pytest.approx(values.mean(), abs=1e-12) and found.count == 400
    assert found.low == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + error, abs=0.1 * error)


def test_ratio_is_resampled_as_sums() -> None:
    """A ratio of sums: the delta method gives its standard error; the mean of ratios would be another figure."""
    rng = np.random.default_rng(2)
    weight = rng.integers(1, 30, size=500).astype(float)
    total = 2.0 * weight + rng.normal(0, 3.0, size=500)
    found = estimate(np.stack([total, weight], axis=1), lambda s: float(s[0] / s[1]), resamples=4000)
    ratio = total.sum() / weight.sum()
    error = 1.96 * math.sqrt(((total - ratio * weight) ** 2).sum()) / weight.sum()
    assert found.value == pytest.approx(ratio, abs=1e-12)
    assert found.high - found.low == pytest.approx(2 * error, rel=0.1)


def test_same_seed_same_interval_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = np.random.default_rng(3).normal(size=(30, 2))
    whole = resampled_sums(columns, resamples=50, seed=5)
    monkeypatch.setattr("elf.metrics.bootstrap.CHUNK", 500)
    assert np.array_equal(resampled_sums(columns, resamples=50, seed=5), whole)
    assert not np.array_equal(resampled_sums(columns, resamples=50, seed=6), whole)


def test_nothing_to_resample() -> None:
    nothing = mean_estimate([])
    assert math.isnan(nothing.value) and nothing.low is None and nothing.count == 0
    assert mean_estimate([4.0, 4.0]).low == mean_estimate([4.0, 4.0]).high == 4.0
    assert mean_estimate([4.0, 5.0], resamples=0).low is None
