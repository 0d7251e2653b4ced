"""One curve: a run is the same on every engine, with any number of workers and any micro-batch, up to the order of float additions.

Quick set: `pytest -m slow tests/exactness`. All combinations: `pytest -m slow tests/exactness/test_one_curve.py --matrix full`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from curves import Apart, bounds, runs_apart
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from tables import Table
from worker_pool import Described, WorkerPool

from elf.processes import PROCESSES

pytestmark = pytest.mark.slow

ENGINES = [("plain", 0, 1), ("deepspeed", 0, 1), ("deepspeed", 1, 1), *(("deepspeed", zero, 2) for zero in (0, 1, 2, 3))]
MICRO_BATCHES = {1: (0, 1, 2, 4), 2: (0, 1, 2)}  # 0 is the whole share of the 8 rows


@dataclass(frozen=True, kw_only=True)
class Case:
    """One combination."""

    process: str
    optimiser: str
    precision: str
    engine: tuple[str, int, int]  # kind, ZeRO stage, workers
    micro_batch: int

    def __str__(self) -> str:
        kind, zero, workers = self.engine
        return f"{self.process}-{self.optimiser}-{self.precision}-{kind}{zero}x{workers}-{self.micro_batch}"


CASES = [
    Case(process=process, optimiser=optimiser, precision=precision, engine=engine, micro_batch=micro_batch)
    for precision in ("fp32", "bf16")
    for process in sorted(PROCESSES)
    for optimiser in ("adamw", "muon")
    for engine in ENGINES
    for micro_batch in MICRO_BATCHES[engine[2]]
]
ALWAYS = [
    Case(process=process, optimiser=optimiser, precision="fp32", engine=("deepspeed", zero, 2), micro_batch=2 * (zero % 2))
    for process, optimiser in (("elf", "muon"), ("autoregressive", "adamw"))
    for zero in (0, 1, 2, 3)
]


class Curves:
    """Trains cases, each once, notes their figures and holds them to the bounds."""

    def __init__(self, pools: dict[int, WorkerPool], undivided: Callable[[str, str, str], Path], table: Table, folder: Path) -> None:
        self.pools, self.undivided, self.table, self.folder = pools, undivided, table, folder
        self._done: dict[Case, Apart] = {}

    def check(self, case: Case) -> None:
        """Raises AssertionError when the case is further from the plain engine than its bounds."""
        assert self.apart(case).beyond(bounds(case.optimiser, case.precision)) == [], str(case)

    def apart(self, case: Case) -> Apart:
        """How far the case is from the plain engine with the whole batch in one pass."""
        if case not in self._done:
            self._done[case] = self._measure(case)
        return self._done[case]

    def folder_of(self, case: Case) -> Path:
        """The run folder of a case."""
        return self.folder / str(case)

    def _measure(self, case: Case) -> Apart:
        expected = self.undivided(case.process, case.optimiser, case.precision)
        kind, zero, workers = case.engine
        train = {"precision": case.precision, "micro_batch": case.micro_batch}
        folder = self.folder_of(case)
        self.pools[workers].run(
            Described(folder=folder, process=case.process, optimiser=case.optimiser, kind=kind, zero=zero, train=train)
        )
        apart = runs_apart(folder, expected)
        engine = "plain" if kind == "plain" else f"ZeRO-{zero}"
        key = (case.process, case.optimiser, case.precision, engine, str(workers))
        self.table.add(key, str(case.micro_batch), (apart.loss, apart.weight, apart.ema))
        return apart


@pytest.fixture(scope="module")
def curves(
    pools: dict[int, WorkerPool], undivided: Callable[[str, str, str], Path], tables: dict[str, Table],
    tmp_path_factory: pytest.TempPathFactory,
) -> Curves:
    return Curves(pools, undivided, tables["one curve"], tmp_path_factory.mktemp("one-curve"))


def always(test: Callable[..., None]) -> Callable[..., None]:
    """Every stage in two processes, whatever else is drawn."""
    for case in reversed(ALWAYS):
        test = example(case=case)(test)
    return test


@always
@settings(max_examples=16, derandomize=True, deadline=None, database=None, phases=(Phase.explicit, Phase.generate))
@given(case=st.sampled_from(CASES))
def test_one_curve_on_a_sample(curves: Curves, case: Case) -> None:
    curves.check(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_curve_on_every_combination(curves: Curves, case: Case) -> None:
    curves.check(case)


@pytest.mark.parametrize(("process", "optimiser", "precision"), [("elf", "muon", "fp32"), ("autoregressive", "adamw", "bf16")])
def test_a_batch_cut_alike_gives_the_same_bits(curves: Curves, process: str, optimiser: str, precision: str) -> None:
    """Two passes of half the batch, one after the other in one process or side by side in two: the same two terms of each gradient."""
    plain, zero = (
        Case(process=process, optimiser=optimiser, precision=precision, engine=engine, micro_batch=micro_batch)
        for engine, micro_batch in ((("plain", 0, 1), 4), (("deepspeed", 0, 2), 0))
    )
    curves.check(plain)
    curves.check(zero)
    assert runs_apart(curves.folder_of(zero), curves.folder_of(plain)) == Apart(loss=0.0, grad_norm=0.0, weight=0.0, ema=0.0)


@pytest.mark.parametrize("process", [pytest.param(kind, marks=[] if kind == "elf" else pytest.mark.full) for kind in sorted(PROCESSES)])
def test_dropout_keeps_one_curve(pools: dict[int, WorkerPool], tmp_path: Path, process: str) -> None:
    """Masks belong to rows: ZeRO-3 in two processes, with every forward done again for its gradient, drops what one process drops."""
    plain, zero = tmp_path / "plain", tmp_path / "zero"
    pools[1].run(Described(folder=plain, process=process, optimiser="adamw", dropout=0.3))
    train = {"micro_batch": 2, "activation_checkpointing": True}
    pools[2].run(Described(folder=zero, process=process, optimiser="adamw", kind="deepspeed", zero=3, dropout=0.3, train=train))
    assert runs_apart(zero, plain).beyond(bounds("adamw", "fp32")) == []
    without = tmp_path / "without"
    pools[1].run(Described(folder=without, process=process, optimiser="adamw"))
    assert runs_apart(without, plain).beyond(bounds("adamw", "fp32")), "nothing was dropped"
