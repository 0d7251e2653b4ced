"""MAUVE: the area under the divergence frontier of two sets of texts, seen through a judge's hidden states (Pillutla et al. 2021,
2102.01454).

Features are normalised to unit length, reduced to the principal components that explain 90 % of their variance, and quantised by
k-means fitted on both sets together; the two histograms over clusters are compared. Everything is float64 on the CPU and seeded; matrix
products are torch's, whose number of threads is fixed by the caller and recorded.

Shapes: N features, D width, K clusters.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SCALE = 5.0
"""c of the frontier (exp(-c KL), exp(-c KL)), as published."""
POINTS = 25
"""Mixtures on the frontier, as published."""
EXPLAINED = 0.9


def mauve(p_ND: Floats, q_ND: Floats, *, clusters: int = 0, seed: int = 0) -> float:
    """MAUVE of two feature sets, 0 to 1; nan with fewer than two features in one. clusters: 0 for a tenth of the smaller set."""
    if min(len(p_ND), len(q_ND)) < 2:
        return math.nan
    clusters = clusters or max(2, round(min(len(p_ND), len(q_ND)) / 10))
    both_ND = reduce(np.concatenate([p_ND, q_ND]).astype(np.float64))
    label_N = kmeans(both_ND, clusters, seed=seed)
    p_K = np.bincount(label_N[: len(p_ND)], minlength=clusters) / len(p_ND)
    q_K = np.bincount(label_N[len(p_ND) :], minlength=clusters) / len(q_ND)
    return frontier_area(p_K, q_K)


def frontier_area(p_K: Floats, q_K: Floats, *, scale: float = SCALE, points: int = POINTS) -> float:
    """Area under the divergence frontier of two histograms: 1 when they are equal, Gamma(c+1)^2 / Gamma(2c+1) = 1/252 at c = 5 when they
    share nothing (in the limit of many points)."""
    weight = np.linspace(1e-6, 1 - 1e-6, points)
    mixed = [(w * p_K + (1 - w) * q_K) for w in weight]
    x = np.array([0.0, *(math.exp(-scale * _kl(q_K, r_K)) for r_K in mixed), 1.0])
    y = np.array([1.0, *(math.exp(-scale * _kl(p_K, r_K)) for r_K in mixed), 0.0])
    by_x, by_y = np.lexsort((-y, x)), np.lexsort((-x, y))
    return float(0.5 * (np.trapezoid(y[by_x], x[by_x]) + np.trapezoid(x[by_y], y[by_y])))


def _kl(p_K: Floats, q_K: Floats) -> float:
    there = p_K > 0
    return float((p_K[there] * np.log(p_K[there] / q_K[there])).sum())


def reduce(features_ND: Floats) -> Floats:
    """Unit length, then the principal components that explain 90 % of the variance."""
    length_N1 = np.linalg.norm(features_ND, axis=1, keepdims=True)
    unit_ND = features_ND / np.where(length_N1 > 0, length_N1, 1.0)
    centred_ND = unit_ND - unit_ND.mean(axis=0)
    variance_D, axes_DD = (part.numpy() for part in torch.linalg.eigh(torch.from_numpy(_product(centred_ND.T, centred_ND))))
    share_D = np.cumsum(variance_D[::-1]) / max(variance_D.sum(), np.finfo(np.float64).tiny)
    kept = int(np.searchsorted(share_D, EXPLAINED)) + 1
    return _product(centred_ND, axes_DD[:, ::-1][:, :kept].copy())  # torch takes no negative strides


def kmeans(features_ND: Floats, clusters: int, *, seed: int = 0, tries: int = 5, rounds: int = 100) -> NDArray[np.int64]:
    """Cluster of each feature, int64 [N]: Lloyd's algorithm from k-means++ starts, the best of ``tries`` by the sum of squares."""
    rng = np.random.default_rng(seed)
    best: tuple[float, NDArray[np.int64]] = (math.inf, np.zeros(len(features_ND), dtype=np.int64))
    for _ in range(tries):
        centre_KD = _spread_start(features_ND, clusters, rng)
        label_N = np.full(len(features_ND), -1)
        for _ in range(rounds):
            distance_NK = _distances(features_ND, centre_KD)
            newest_N = distance_NK.argmin(axis=1)
            if np.array_equal(newest_N, label_N):
                break
            label_N = newest_N
            for k in np.unique(label_N):  # a cluster that lost all its members stays where it is
                centre_KD[k] = features_ND[label_N == k].mean(axis=0)
        inertia = float(_distances(features_ND, centre_KD)[np.arange(len(label_N)), label_N].sum())
        if inertia < best[0]:
            best = (inertia, label_N.astype(np.int64))
    return best[1]


def _spread_start(features_ND: Floats, clusters: int, rng: np.random.Generator) -> Floats:
    """k-means++ (Arthur and Vassilvitskii 2007): each centre is drawn in proportion to the squared distance to the nearest one so far."""
    chosen = [int(rng.integers(len(features_ND)))]
    nearest_N = _distances(features_ND, features_ND[chosen])[:, 0]
    for _ in range(clusters - 1):
        total = nearest_N.sum()
        chance_N = nearest_N / total if total > 0 else None
        chosen.append(int(rng.choice(len(features_ND), p=chance_N)))
        nearest_N = np.minimum(nearest_N, _distances(features_ND, features_ND[chosen[-1:]])[:, 0])
    return features_ND[chosen].copy()


def _distances(features_ND: Floats, centre_KD: Floats) -> Floats:
    """Squared distances [N, K]."""
    squares = (features_ND**2).sum(1)[:, None] + (centre_KD**2).sum(1)[None]
    return np.asarray(np.maximum(squares - 2 * _product(features_ND, centre_KD.T), 0.0))


def _product(left: Floats, right: Floats) -> Floats:
    """Matrix product by torch: that of numpy takes as many threads as its library likes, which moves the last digits."""
    product: Floats = (torch.from_numpy(left) @ torch.from_numpy(right)).numpy()
    return product
