"""Worker pools that all tests here share, the runs they are compared with, and the tables of figures at the end of the session."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tables import Table
from worker_pool import STEPS, Described, WorkerPool

TABLES = {
    "one curve": Table(
        f"One curve: {STEPS} steps against the plain engine in one process",
        ("process", "optimiser", "precision", "engine", "workers"), "micro-batch",
        ("worst loss difference", "worst weight difference", "worst EMA difference"),
    ),
    "kills": Table(
        "Kills: final weights, average and optimiser state equal to the last bit, rows equal", ("what was killed", "moment"), "where", (),
    ),
    "corruption": Table("Corruption: what happens to a run with a damaged checkpoint", ("damage", "of"), "outcome", ()),
    "elastic": Table(
        "Elastic: one curve across resizes, against an undivided run on two workers", ("resizes",), "at steps",
        ("worst loss difference", "worst weight difference", "worst EMA difference"),
    ),
    "moves": Table(
        f"Moves: one run of {STEPS} steps that changes engine and workers at planned stops, against an undivided one",
        ("process", "optimiser", "arrow"), "after step", ("state at the arrow", "loss of the next leg"), by_key=False,
    ),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    words = "one curve: a sample of the combinations, or all; corruption: two or four kinds; kills: one or two, or ten of each kind"
    parser.addoption("--matrix", choices=("sample", "full"), default="sample", help=words)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the test of a sample and that of every combination, the one that was asked for; what is marked ``full`` on demand alone."""
    full = config.getoption("--matrix", default="sample") == "full"  # unknown when this folder was not named on the command line
    unwanted = "test_one_curve_on_a_sample" if full else "test_one_curve_on_every_combination"
    gone = [item for item in items if getattr(item, "originalname", "") == unwanted or (not full and item.get_closest_marker("full"))]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for table in TABLES.values():
        for line in table.lines():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def tables() -> dict[str, Table]:
    return TABLES


@pytest.fixture(scope="session")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, WorkerPool]]:
    """By number of processes."""
    with ExitStack() as stack:
        yield {world: stack.enter_context(WorkerPool(world, tmp_path_factory.mktemp(f"pool-{world}"))) for world in (1, 2)}


@pytest.fixture(scope="session")
def undivided(pools: dict[int, WorkerPool], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], Path]:
    """Run folder of (process, optimiser, precision) on the plain engine in one process, the whole batch in one pass, with the
    checkpoint of every step. Each is trained once."""
    done: dict[tuple[str, str, str], Path] = {}

    def run(process: str, optimiser: str, precision: str = "fp32") -> Path:
        key = (process, optimiser, precision)
        if key not in done:
            folder = tmp_path_factory.mktemp("-".join(key))
            train = {"checkpoint_every": 1, "keep": STEPS, "precision": precision}
            pools[1].run(Described(folder=folder, process=process, optimiser=optimiser, train=train))
            done[key] = folder
        return done[key]

    return run
