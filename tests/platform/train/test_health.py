"""Which steps are bad, what is remembered of them, and that an interruption changes neither."""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elf_platform.config import HealthConfig
from elf_platform.train.health import BadStep, Health, Window, read_windows, record_window

FINITE = st.floats(min_value=0, max_value=1e6, allow_nan=False)
ENDLESS = 10**6  # bad steps that a test does not care about


def health(*, global_batch: int = 8, windows: Sequence[Window] = (), state: dict[str, object] | None = None, **settings: object) -> Health:
    return Health(HealthConfig(**{"max_bad_steps": ENDLESS, **settings}), global_batch=global_batch, windows=windows, state=state)


def window(step: int, rows: int = 8) -> Window:
    return Window(step=step, first_row=step * rows, rows=rows, reason="the loss is nan")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_bad_from_the_first_step(bad: float) -> None:
    judge = health()
    assert judge.problem(bad, 1.0) == f"the loss is {bad}"
    assert judge.problem(1.0, bad) == f"the gradient norm is {bad}"
    assert judge.problem(1e30, 1e30) is None  # spike_factor 0: no such check


@pytest.mark.parametrize(("size", "needed"), [(64, 16), (8, 4), (20, 5), (2, 2), (1, 1)])
def test_a_spike_is_seen_once_a_quarter_of_the_window_is_there(size: int, needed: int) -> None:
    judge = health(spike_factor=3.0, window=size)
    for _ in range(needed):
        assert judge.problem(100.0, 1.0) is None
        judge.accept(2.0, 1.0)
    assert judge.problem(6.0, 3.0) is None  # at the factor, not above it
    words = judge.problem(7.0, 1.0)
    assert words is not None and "the loss is 7, 3.5 times its median of 2" in words and "health.spike_factor allows 3" in words
    words = judge.problem(2.0, 3.5)
    assert words is not None and words.startswith("the gradient norm is 3.5")


def test_a_median_of_zero_or_less_judges_nothing() -> None:
    judge = health(spike_factor=2.0, window=4)
    for _ in range(4):
        judge.accept(-5.0, 0.0)
    assert judge.problem(-1.0, 10.0) is None


@given(st.lists(st.tuples(FINITE, FINITE), max_size=40), st.integers(1, 12), FINITE, FINITE)
def test_a_spike_is_above_the_median_of_the_last_good_ones(good: list[tuple[float, float]], size: int, loss: float, norm: float) -> None:
    judge = health(spike_factor=2.5, window=size)
    for figures in good:
        judge.accept(*figures)
    last = good[-size:]
    expected = False
    if len(last) >= min(size, max(4, size // 4)):
        for value, history in ((loss, [g[0] for g in last]), (norm, [g[1] for g in last])):
            usual = statistics.median(history)
            expected |= usual > 0 and value > 2.5 * usual
    assert (judge.problem(loss, norm) is not None) == expected


@given(st.lists(st.tuples(FINITE, FINITE), max_size=12), st.sets(st.integers(0, 50), max_size=5))
def test_the_state_comes_back_exactly(good: list[tuple[float, float]], bad: set[int]) -> None:
    judge = health(window=8, spike_factor=2.0)
    for figures in good:
        judge.accept(*figures)
    for step in bad:
        judge.reject(step, "the loss is inf")
    text = json.dumps(judge.state(), allow_nan=False)
    again = health(window=8, spike_factor=2.0, state=json.loads(text))
    assert json.dumps(again.state()) == text
    for loss in (0.0, 0.1, 1.0, 1e5):
        assert again.problem(loss, 1.0) == judge.problem(loss, 1.0)
    assert [again.window_of(s) for s in range(52)] == [judge.window_of(s) for s in range(52)]


def test_a_smaller_window_takes_the_newest_of_the_state() -> None:
    judge = health(window=6)
    for i in range(6):
        judge.accept(float(i), float(-i))
    kept = health(window=2, state=judge.state()).state()
    assert kept["losses"] == [4.0, 5.0] and kept["grad_norms"] == [-4.0, -5.0]


@given(st.integers(0, 30), st.integers(1, 16), st.integers(1, 16))
def test_a_window_holds_for_its_rows_at_any_batch_size(step: int, size: int, other: int) -> None:
    recorded = window(step, size)
    judge = health(global_batch=other, windows=[recorded])
    rows = set(range(step * size, (step + 1) * size))
    for asked in range((step + 2) * size // other + 2):
        overlaps = not rows.isdisjoint(range(asked * other, (asked + 1) * other))
        assert judge.window_of(asked) == (recorded if overlaps else None)


def test_stop_names_the_step_its_rows_and_the_ways_out() -> None:
    judge = health(on_bad_step="stop")
    judge.accept(3.25, 0.5)
    with pytest.raises(BadStep, match=r"Step 7 \(rows 56 to 63 .*the loss is nan; the last good step had loss 3.25 .*0\.5\.") as caught:
        judge.reject(7, "the loss is nan")
    assert "health.on_bad_step" in str(caught.value) and "optim.lr" in str(caught.value)
    assert judge.window_of(7) is None and judge.state()["windows"] == []


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 5))
def test_too_many_bad_steps(bad: list[bool], most: int) -> None:
    """Against the sentence: the last ``most`` bad steps with fewer than ``most`` good ones between the first and the last of them."""
    judge, met = health(max_bad_steps=most), list[int]()
    for step, is_bad in enumerate(bad):
        if not is_bad:
            judge.accept(1.0, 1.0)
            continue
        met.append(step)
        stretch = bad[met[-most] : step + 1] if len(met) >= most else []
        if stretch and stretch.count(False) < most:
            words = f"{most} steps were bad from step {met[-most]} to {step} and only {stretch.count(False)} "
            with pytest.raises(BadStep, match=words if most > 1 else "health.max_bad_steps is 1"):
                judge.reject(step, "the loss is nan")
            return
        judge.reject(step, "the loss is nan")


def test_one_bad_step_in_two_is_too_many_and_one_in_three_is_not() -> None:
    judge = health(max_bad_steps=10)
    for step in range(0, 3000, 3):
        judge.reject(step, "the loss is nan")
    judge = health(max_bad_steps=10)
    with pytest.raises(BadStep, match="from step 0 to 18 and only 9 between them good"):
        for step in range(0, 3000, 2):
            judge.reject(step, "the loss is nan")


def run(figures: Sequence[float], config: HealthConfig, folder: Path, *, every: int, dies_at: Sequence[int] = ()) -> tuple[list[str], str]:
    """A run in small, as the loop does it, with a checkpoint each ``every`` steps; it is killed once after each step of ``dies_at``.

    What was done in the end with each step, and why it stopped."""
    done, deaths = [""] * len(figures), list(dies_at)
    saved: tuple[int, dict[str, object] | None] = (0, None)
    while True:
        judge = Health(config, global_batch=4, windows=read_windows(folder), state=json.loads(json.dumps(saved[1])))
        step = saved[0]
        while step < len(figures):
            loss = figures[step]
            if judge.window_of(step):
                done[step] = "passed over"
            elif reason := judge.problem(loss, 1.0):
                try:
                    record_window(folder, judge.reject(step, reason))
                except BadStep as error:
                    return done[:step], str(error)
                done[step] = "passed over"
                if config.on_bad_step == "rollback":
                    break
            else:
                judge.accept(loss, 1.0)
                done[step] = "done"
            step += 1
            if step % every == 0:
                saved = step, judge.state()
            if step in deaths:
                deaths.remove(step)
                break
        else:
            return done, ""


LOSSES = st.lists(st.sampled_from([1.0, 1.0, 1.1, 0.9, 2.5, 9.0, math.nan]), min_size=1, max_size=40)


@given(LOSSES, st.sets(st.integers(1, 40)), st.integers(1, 7), st.sampled_from(["skip", "rollback"]), st.integers(2, 4))
def test_deaths_and_rollbacks_do_not_change_what_is_done(
    tmp_path_factory: pytest.TempPathFactory, figures: list[float], deaths: set[int], every: int, policy: str, most: int
) -> None:
    config = HealthConfig(on_bad_step=policy, spike_factor=2.0, window=8, max_bad_steps=most)  # type: ignore[arg-type]
    straight = run(figures, HealthConfig(spike_factor=2.0, window=8, max_bad_steps=most), tmp_path_factory.mktemp("straight"), every=100)
    folder = tmp_path_factory.mktemp("interrupted")
    assert run(figures, config, folder, every=every, dies_at=sorted(deaths)) == straight
    recorded = [w.step for w in read_windows(folder)]
    assert recorded == sorted(set(recorded)) and recorded == [s for s, what in enumerate(straight[0]) if what == "passed over"]


def test_windows_are_appended_once_and_read_in_the_order_of_their_rows(tmp_path: Path) -> None:
    assert read_windows(tmp_path) == []
    for step in (9, 4, 9, 4, 6):
        record_window(tmp_path, window(step))
    assert read_windows(tmp_path) == [window(4), window(6), window(9)]
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == 3


def test_a_torn_last_line_is_left_out_and_written_over(tmp_path: Path) -> None:
    record_window(tmp_path, window(1))
    record_window(tmp_path, window(2))
    path = tmp_path / "skipped.jsonl"
    whole = path.read_bytes()
    first_line = whole.index(b"\n") + 1
    for cut in range(first_line, len(whole)):
        path.write_bytes(whole[:cut])
        assert read_windows(tmp_path) == [window(1)]
        record_window(tmp_path, window(3))
        assert read_windows(tmp_path) == [window(1), window(3)]


def test_a_broken_line_in_the_middle_is_refused(tmp_path: Path) -> None:
    record_window(tmp_path, window(1))
    path = tmp_path / "skipped.jsonl"
    for line in ("no json", '{"step": 3}'):
        path.write_text(line + "\n" + path.read_text().splitlines()[-1] + "\n")
        with pytest.raises(ValueError, match="line 1 of .*skipped.jsonl is no record of skipped rows"):
            read_windows(tmp_path)
