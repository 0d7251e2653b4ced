"""What cannot run is refused before any work, with the sum."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from elf_platform.capacity import Cluster, Growth, Node
from elf_platform.config import EngineConfig, RunConfig, TrainConfig
from elf_platform.train.preflight import Sum, average_note, check_disk, check_memory, memory_per_worker, place

Config = Callable[..., RunConfig]


def workers(config: RunConfig, count: int, zero: int = 0, **train: object) -> RunConfig:
    train = {"global_batch": 840} | train
    return replace(config, train=replace(config.train, workers=count, **train), engine=EngineConfig(kind="deepspeed", zero=zero))


def cluster(cpus: float = 2, gpus: float = 0, *, nodes: int = 1, local: bool = True, growth: Growth = Growth()) -> Cluster:
    return Cluster(nodes=(Node(cpus=cpus, gpus=gpus),) * nodes, local=local, growth=growth)


def test_more_workers_than_the_cluster_has(config_of: Config) -> None:
    with pytest.raises(ValueError, match=r"4 x 1 CPU threads = 4 CPUs, .* cluster has 2 CPUs, .*; lower train.workers to at most 2"):
        place(workers(config_of(), 4), cluster())
    with pytest.raises(ValueError, match=r"needs 8 GPUs, .* but the cluster has 2: 64 CPUs and 2 GPUs"):
        place(workers(config_of(), 8, gpu="on"), cluster(64, 2, local=False))
    with pytest.raises(ValueError, match=r"2 x 3 CPU threads = 6 CPUs, .* or lower train.threads to at most 2"):
        place(workers(config_of(), 2, threads=3), cluster(4))


def test_a_worker_fits_one_node(config_of: Config) -> None:
    """Two nodes of four CPUs are no machine of eight."""
    two = cluster(4, nodes=2, local=False)
    assert place(workers(config_of(), 1), two).threads == place(workers(config_of(), 2), two).threads == 4
    assert place(workers(config_of(), 3), two).threads == 2
    with pytest.raises(ValueError, match=r"each worker has to fit one node, .* 2 nodes of 4 CPUs, with room for 0; lower .* to at most 4"):
        place(workers(config_of(), 1, threads=8), two)
    with pytest.raises(ValueError, match=r"2 x 3 CPU threads .* room for 1; lower train.workers to at most 1, or .* to at most 2"):
        place(workers(config_of(), 2, threads=3), cluster(4))


def test_gpu_workers_have_the_threads_of_their_nodes(config_of: Config) -> None:
    head = Node(cpus=64)
    mixed = Cluster(nodes=(head, Node(cpus=8, gpus=1), Node(cpus=16, gpus=4)), local=False)
    assert place(workers(config_of(), 1, gpu="on"), mixed).threads == 8
    assert place(workers(config_of(), 5, gpu="on"), mixed).threads == 4, "of the smallest node that carries a worker"
    with pytest.raises(ValueError, match=r"2 x 12 CPU threads .* room for 1"):
        place(workers(config_of(), 2, gpu="on", threads=12), mixed)
    spread = Cluster(nodes=(Node(cpus=0, gpus=4), head), local=False)
    with pytest.raises(ValueError, match=r"needs 1 GPUs, each with a CPU of its node, but the cluster has 0"):
        place(workers(config_of(), 1, gpu="on"), spread)
    few = place(workers(config_of(), 2), cluster(8, 1))
    assert not few.use_gpu and "GPUs for 1 worker only" in few.note


def test_an_autoscaled_cluster_may_grow(config_of: Config) -> None:
    kinds = (Node(cpus=4), Node(cpus=16, count=4), Node(cpus=8, gpus=1, count=8))
    scaled = cluster(4, 0, local=False, growth=Growth(kinds=kinds, machines=13))
    placed = place(workers(config_of(), 8, gpu="on"), scaled)
    assert placed.use_gpu and placed.threads == 8 and "scales up" in placed.note
    assert place(workers(config_of(), 8), scaled).use_gpu, "auto takes what the cluster can get"
    assert place(workers(config_of(), 1, gpu="off"), scaled).threads == 16
    assert place(workers(config_of(), 1, gpu="off", threads=16), scaled).threads == 16
    with pytest.raises(ValueError, match="room for 0"):
        place(workers(config_of(), 1, gpu="off", threads=17), scaled)
    few = cluster(4, 0, local=False, growth=Growth(kinds=kinds, machines=7))
    assert few.room(cpus=1, gpus=1) == 7, "machines of all kinds together are limited too"
    assert not place(workers(config_of(), 8), few).use_gpu


def test_threads_divide_the_machine_and_gpus_are_used_when_there_are_enough(config_of: Config) -> None:
    assert place(workers(config_of(), 2), cluster(8)).threads == 4
    assert not place(workers(config_of(), 2), cluster(8, 1)).use_gpu
    assert place(workers(config_of(), 2), cluster(8, 2)).use_gpu
    assert not place(workers(config_of(), 2, gpu="off"), cluster(8, 2)).use_gpu


def test_memory_is_summed_by_stage(config_of: Config) -> None:
    base = config_of()
    sums = [memory_per_worker(1_000_000, workers(base, 4, zero))[0] for zero in range(4)]
    # Muon: weights 4 + gradients 4 + average 4 + momentum 4.4 bytes per parameter; ZeRO adds a master copy of 4/W and divides.
    assert sums[0] == pytest.approx(16.4e6)
    assert sums[1] == pytest.approx((4 + 4 + (4 + 8.4) / 4) * 1e6)
    assert sums[2] == pytest.approx((4 + (4 + 4 + 8.4) / 4) * 1e6)
    assert sums[3] == pytest.approx((4 + 4 + 4 + 8.4) / 4 * 1e6)
    with pytest.raises(ValueError, match=r"16\.40 GB per worker .* 4 of them .* need 65\.60 GB, but 24\.00 GB"):
        check_memory(1_000_000_000, workers(base, 4), available=24e9, per_machine=4)
    assert "= 16.40 GB" in check_memory(1_000_000_000, workers(base, 4), available=80e9, per_machine=4).words


def test_an_average_that_reaches_back_to_the_start_is_told(config_of: Config) -> None:
    def note(steps: int, decay: float) -> str:
        config = config_of()
        train = replace(config.train, steps=steps)
        return average_note(replace(config, train=train, optim=replace(config.optim, ema_decay=decay, warmup_steps=1)))

    assert "the start of these 1,400 steps. Its 25% of initial weights" in note(1400, 0.999)
    assert "--optim.ema_decay 0.9967 or lower" in note(1400, 0.999)
    assert note(1400, 0.9967) == note(95_085, 0.9999) == note(20, 0.0) == ""


def test_disk_is_summed(config_of: Config, tmp_path: Path) -> None:
    config = replace(config_of(), train=replace(config_of().train, keep=2))
    with pytest.raises(ValueError, match=r"3 checkpoints of 12\.40 GB \+ artefact 4\.00 GB = 41\.20 GB, but .* has 10\.00 GB free"):
        check_disk(1_000_000_000, config, tmp_path, free=10e9)
    assert "41.20 GB" in check_disk(1_000_000_000, config, tmp_path / "not" / "yet", free=50e9).words


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"global_batch": 10, "workers": 4}, r"does not divide among train.workers 4: 10 = 4 \* 2 \+ 2; use 8"),
        ({"global_batch": 8, "workers": 2, "micro_batch": 3}, "use a divisor of 4"),
        ({"steps": 0}, "at least 1"),
    ],
)
def test_a_batch_that_does_not_divide(settings: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TrainConfig(**settings)


def test_a_sum_is_short() -> None:
    assert str(Sum(needed=0.31e9, available=6.2e9, words="")) == "310 MB of 6 GB"
    assert str(Sum(needed=31.26e9, available=float("inf"), words="")) == "31.3 GB"
