"""Draws and data order: pure functions of (seed, stream, step, row), whatever the division of the rows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elf.data.order import Permutation, derive_key, rows_of_step
from elf.draws import Draws


def draws(rows: np.ndarray, total: int, *, seed: int = 3, step: int = 5) -> Draws:
    return Draws(seed=seed, step=step, rows=rows, total=total)


@given(st.integers(1, 3000), st.integers(0, 2**63))
def test_permutation_is_a_bijection(size: int, key: int) -> None:
    image = Permutation(size, key)(np.arange(size))
    assert sorted(image.tolist()) == list(range(size))


def test_permutation_is_uniform_enough() -> None:
    """Every element lands everywhere about equally often: chi-squared over keys, within five standard deviations."""
    size, keys = 12, 6000
    counts = np.zeros((size, size))
    for key in range(keys):
        counts[np.arange(size), Permutation(size, key)(np.arange(size))] += 1
    expected = keys / size
    chi2 = ((counts - expected) ** 2 / expected).sum()
    freedom = (size - 1) ** 2
    assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)


def test_order_reads_each_row_once_per_epoch_and_crosses_epochs() -> None:
    read = np.concatenate([rows_of_step(s, np.arange(6), global_batch=6, rows=20, seed=1) for s in range(10)])
    for epoch in range(3):
        assert sorted(read[20 * epoch : 20 * epoch + 20].tolist()) == list(range(20))
    assert read[:20].tolist() != read[20:40].tolist()


@given(st.integers(0, 50), st.sampled_from([1, 2, 3, 6]))
def test_order_does_not_depend_on_the_division_of_the_batch(step: int, workers: int) -> None:
    whole = rows_of_step(step, np.arange(6), global_batch=6, rows=31, seed=9)
    parts = [rows_of_step(step, part, global_batch=6, rows=31, seed=9) for part in np.split(np.arange(6), workers)]
    assert np.concatenate(parts).tolist() == whole.tolist()


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        rows_of_step(0, np.arange(2), global_batch=2, rows=0, seed=0)


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_draws_do_not_depend_on_the_division_of_the_batch(parts: int) -> None:
    whole = draws(np.arange(12), 12)
    split = [draws(rows, 12) for rows in np.split(np.arange(12), parts)]
    for made in (
        lambda d: d.normal("a", 3, 2), lambda d: d.uniform("a", 4), lambda d: d.quantile("a"),
        lambda d: torch.from_numpy(d.coin("a", 0.3).on_B), lambda d: d.quantile("b", d.coin("a", 0.3).off),
    ):
        assert torch.equal(torch.cat([made(d) for d in split]), made(whole))


def test_draws_differ_between_streams_steps_seeds_and_rows() -> None:
    base = draws(np.arange(2), 8).normal("noise", 5)
    others = [
        draws(np.arange(2), 8).normal("other", 5), draws(np.arange(2), 8, step=6).normal("noise", 5),
        draws(np.arange(2), 8, seed=4).normal("noise", 5), draws(np.arange(2, 4), 8).normal("noise", 5),
    ]
    assert all(not torch.equal(base, other) for other in others)
    assert not torch.equal(base[0], base[1])


def test_normal_noise_has_the_moments_of_a_unit_normal() -> None:
    z = draws(np.arange(64), 64).normal("noise", 4096).double()
    assert abs(float(z.mean())) < 5 / np.sqrt(z.numel())
    assert abs(float(z.var()) - 1) < 5 * np.sqrt(2 / z.numel())
    correlation = torch.corrcoef(z) - torch.eye(64, dtype=torch.float64)
    assert float(correlation.abs().max()) < 6 / np.sqrt(4096)


@given(st.integers(1, 200), st.integers(0, 1000))
def test_quantiles_are_stratified(total: int, step: int) -> None:
    u = draws(np.arange(total), total, step=step).quantile("time")
    assert 0 < float(u.min()) <= float(u.max()) < 1
    assert sorted((u * total).long().tolist()) == list(range(total))


@given(st.integers(1, 300), st.floats(0, 1), st.integers(0, 1000))
def test_coins_come_up_on_their_share(total: int, probability: float, step: int) -> None:
    coin = draws(np.arange(total), total, step=step).coin("c", probability)
    assert abs(int(coin.on_B.sum()) - total * probability) < 1 + 1e-9
    assert coin.on.total == int(coin.on_B.sum()) and coin.off.total == total - coin.on.total
    assert coin.on.place_B[coin.on_B].tolist() == list(range(coin.on.total))
    assert coin.off.place_B[~coin.on_B].tolist() == list(range(coin.off.total))
    share = np.convolve(coin.on_B, np.ones(10), mode="valid") if total >= 10 else np.array([])
    assert np.all(np.abs(share - 10 * probability) < 1 + 1e-9), "a micro-batch of ten rows is off its share by a row"


def test_each_row_has_the_coins_probability() -> None:
    """Over steps every row comes up with probability p: within five standard errors for each of seven rows."""
    on = np.stack([draws(np.arange(7), 7, step=s).coin("c", 0.2).on_B for s in range(4000)])
    assert np.all(np.abs(on.mean(0) - 0.2) < 5 * np.sqrt(0.2 * 0.8 / 4000))


def test_recorded_values() -> None:
    """Recorded once: a change of these numbers changes the rows, noise and branches of every run."""
    assert derive_key("order", 0, 1) == 0xECE97D62C9DB3429
    assert derive_key("a", 1) != derive_key("a1") and derive_key("a", 1) != derive_key("a", "1")
    assert Permutation(10, 7)(np.arange(10)).tolist() == [1, 5, 3, 4, 7, 8, 2, 0, 9, 6]
    made = Draws(seed=1, step=2, rows=np.arange(3), total=8)
    assert made.quantile("time").tolist() == pytest.approx([0.4185506157689423, 0.9142972807127621, 0.7271184747793547], abs=1e-12)
