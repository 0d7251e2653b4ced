"""MAUVE in closed form: equal, disjoint and two-cluster histograms; k-means on clusters that are plain to see."""

import math
from itertools import pairwise

import numpy as np
import pytest

from elf.metrics.mauve import POINTS, frontier_area, kmeans, mauve, reduce


def blobs(centres: list[list[float]], count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(centre, 0.05, size=(count, len(centre))) for centre in centres])


def test_equal_histograms_fill_the_square() -> None:
    p = np.array([0.2, 0.0, 0.5, 0.3])
    assert frontier_area(p, p) == pytest.approx(1.0, abs=1e-9)


def test_disjoint_histograms_have_the_beta_integral() -> None:
    """The frontier is ((1-w)^c, w^c), with area c B(c, c+1) = Gamma(c+1)^2 / Gamma(2c+1)."""
    p, q = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    for scale in (1.0, 2.0, 5.0):
        expected = math.gamma(scale + 1) ** 2 / math.gamma(2 * scale + 1)
        assert frontier_area(p, q, scale=scale, points=2001) == pytest.approx(expected, rel=1e-3)
    assert frontier_area(p, q) == pytest.approx(1 / 252, abs=1e-3)


def test_two_clusters_by_hand() -> None:
    """p = (3/4, 1/4) and q = (1/4, 3/4): the frontier written out with scalars, its area by the trapezoid rule."""
    found = frontier_area(np.array([0.75, 0.25]), np.array([0.25, 0.75]))
    xs, ys = [0.0], [1.0]
    for w in np.linspace(1e-6, 1 - 1e-6, POINTS):
        a = 0.75 * w + 0.25 * (1 - w)
        b = 1 - a
        xs.append(math.exp(-5 * (0.25 * math.log(0.25 / a) + 0.75 * math.log(0.75 / b))))
        ys.append(math.exp(-5 * (0.75 * math.log(0.75 / a) + 0.25 * math.log(0.25 / b))))
    points = sorted([*zip(xs, ys, strict=True), (1.0, 0.0)])
    area = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points))
    assert found == pytest.approx(area, abs=1e-6)
    assert 1 / 252 < found < 1


def test_frontier_is_symmetric() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(6))
    assert frontier_area(p, q) == pytest.approx(frontier_area(q, p), abs=1e-12)


def test_kmeans_finds_plain_clusters() -> None:
    features = blobs([[0, 0], [5, 0], [0, 5]], 20, seed=1)
    labels = kmeans(features, 3, seed=0)
    assert [len(set(labels[i : i + 20].tolist())) for i in (0, 20, 40)] == [1, 1, 1] and len(set(labels.tolist())) == 3
    assert np.array_equal(labels, kmeans(features, 3, seed=0))


def test_kmeans_with_fewer_points_than_clusters() -> None:
    assert len(kmeans(np.ones((3, 2)), 5)) == 3


def test_reduction_keeps_what_varies() -> None:
    rng = np.random.default_rng(4)
    features = np.concatenate([np.full((50, 1), 100.0), rng.normal(0, 10, (50, 1)), rng.normal(0, 1e-3, (50, 3))], axis=1)
    assert reduce(features).shape == (50, 1)


def test_reduction_is_the_singular_value_decomposition() -> None:
    features = np.random.default_rng(5).normal(size=(30, 6)) * np.array([5.0, 3, 2, 1, 0.5, 0.1])
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    left, size, _ = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    found = reduce(features)
    assert 1 < found.shape[1] < 6 and np.abs(found) == pytest.approx(np.abs(left * size)[:, : found.shape[1]], abs=1e-10)


def test_mauve_of_features() -> None:
    one, two = blobs([[1, 0, 0], [0, 1, 0]], 40, seed=1), blobs([[1, 0, 0], [0, 1, 0]], 40, seed=2)
    other = blobs([[0, 0, 1], [-1, 0, 0]], 40, seed=3)
    assert mauve(one, one) == pytest.approx(1.0, abs=1e-9)
    assert mauve(one, other, clusters=4) < 0.02
    assert mauve(one, other, clusters=4) < mauve(one, two, clusters=4)
    assert mauve(one, two) == mauve(one, two) and math.isnan(mauve(one, two[:1]))
