"""A small conditional run from pairs to an artefact, with everything real but Ray."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from made_words import WORDS

from elf.artefact import Columns, load_artefact
from elf.codecs import OwnConfig
from elf.nn.config import NetworkConfig
from elf.optim import OptimConfig
from elf.processes import EmbeddedFlow
from elf.sampling.config import SampleConfig
from elf_platform.codec import prepare_codec
from elf_platform.config import DataConfig, RunConfig, TokenizerConfig, TrainConfig
from elf_platform.data.prepare import PreparedData, prepare
from elf_platform.data.reader import RowReader
from elf_platform.finish import finish
from elf_platform.sampling.command import SampleCommand
from elf_platform.sampling.job import print_samples
from elf_platform.tracking import RunHandle
from elf_platform.train.checkpoint import CheckpointReader, latest
from elf_platform.train.context import WorkerContext
from elf_platform.train.snapshots import given_sources, shown_rows
from elf_platform.train.worker import Job, initial_network, run_worker

pytestmark = pytest.mark.slow


def here(jobs: Sequence[Any], task: Callable[[Any], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return map(task, jobs)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Copying two words behind a third: learnt by anything that looks at its source."""
    folder = tmp_path_factory.mktemp("conditional")
    rng = np.random.default_rng(0)
    words = [[str(word) for word in rng.choice(WORDS, 2)] for _ in range(400)]
    (folder / "pairs.tsv").write_text("to\tfrom\n" + "".join(f"{a} {b} {n}\t{a} {b} {n}!\n" for n, (a, b) in enumerate(words)))
    small = NetworkConfig(hidden=32, depth=2, heads=2, bottleneck=16, prefix_tokens=2)
    return RunConfig(
        name="pairs", storage=folder,
        data=DataConfig(
            paths=(str(folder / "pairs.tsv"),), source_column="from", text_column="to", source_length=12, length=24, packing="document",
            tokenizer=TokenizerConfig(vocab_size=320), valid_fraction=0.1,
        ),
        codec=OwnConfig(channels=16, network=small, steps=20, global_batch=16, lr=5e-3),
        process=EmbeddedFlow(decoder_noise_scale=1.0, loss_on_padding=True), network=small,
        optim=OptimConfig(name="muon", lr=5e-3, warmup_steps=2, ema_decay=0.9),
        train=TrainConfig(steps=20, global_batch=16, log_every=5, valid_every=10, valid_rows=16, sample_every=10, checkpoint_every=20),
        sample=SampleConfig(sampler="ode", steps=3, guidance=1.0, cfg=2.0, count=4),
    )


@pytest.fixture(scope="module")
def data(config: RunConfig) -> PreparedData:
    return prepare(config.data, config.storage, progress=False, each=here)


def test_from_pairs_to_an_artefact_that_knows_its_sources(config: RunConfig, data: PreparedData) -> None:
    torch.set_num_threads(1)

    def launch(job: Job, title: str) -> None:
        run_worker(job, WorkerContext(run_folder=job.run_folder, device=torch.device("cpu")))

    codec_folder, codec = prepare_codec(config, data, launch, threads=1)
    assert codec is not None
    run_folder = config.storage / "runs" / config.name
    run_folder.mkdir(parents=True)
    job = Job(
        config=config, run_folder=run_folder, data_folder=data.folder, data_fingerprint=data.manifest.content_hash,
        codec_folder=codec_folder, channels=codec.channels, threads=1, tracking=RunHandle(kind="jsonl"), code_version="test",
    )
    launch(job, "main")
    figures = finish(job)
    assert float(figures["valid/loss"]) < float(figures["valid/loss_at_start"])
    artefact = load_artefact(run_folder / "artefact")
    # Twenty updates at 0.9 leave an eighth of the initial weights in the average, and none in what is exported.
    checkpoint = latest(run_folder / "checkpoints")
    assert checkpoint is not None
    initial, name = initial_network(job, data.tokenizer.vocab_size).state_dict(), "trunk.blocks.0.attn.qkv.weight"
    exported, average = artefact.network.state_dict()[name], CheckpointReader(checkpoint).whole("ema")[name]
    assert torch.allclose(exported * (1 - 0.9**20) + 0.9**20 * initial[name], average, atol=1e-6)
    assert not torch.allclose(exported, average, atol=1e-4)
    sizes = artefact.sizes
    assert (sizes.length, sizes.source_length, sizes.target_length) == (24, 12, 12)
    lines = [json.loads(line) for line in (run_folder / "samples.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10] * 4 + [20] * 4
    pairs = dict(line.split("\t")[::-1] for line in (config.storage / "pairs.tsv").read_text().splitlines())
    for early, late in zip(lines[:4], lines[4:], strict=True):
        assert early["source"] == late["source"] and pairs[late["source"]] == late["reference"] == early["reference"]
    assert len({line["source"] for line in lines}) == 4
    # What samples the artefact afterwards starts from the run's own settings, and so gives the run's own samples.
    assert artefact.sample == replace(config.sample, count=SampleConfig().count)
    assert artefact.columns == Columns(source="from", text="to")
    (run_folder / "sources.txt").write_text("".join(f"{line['source']}\n" for line in lines[4:]))
    rows = print_samples(SampleCommand(artefact=run_folder / "artefact", sources=run_folder / "sources.txt", threads=1, gpu="off"))
    torch.use_deterministic_algorithms(False)
    assert [row["text"] for row in rows] == [line["text"] for line in lines[4:]]


def test_sources_come_from_anywhere_in_the_held_out_rows(data: PreparedData) -> None:
    rows = RowReader(data.folder, "valid")
    total = len(rows)
    order = shown_rows(total, total)
    assert sorted(order) == list(range(total)) and order[0] != 0
    assert np.array_equal(shown_rows(2 * total + 3, total), np.concatenate([order, order, order[:3]]))
    assert np.array_equal(shown_rows(4, total), order[:4]), "the few that are shown are the first of the many that are scored"
    assert max(shown_rows(8, 1000)) > 500, "of a sorted corpus not only the start"


def test_sources_repeat_where_there_are_too_few_rows(data: PreparedData) -> None:
    rows = RowReader(data.folder, "valid")
    count = len(rows) + 2
    given = given_sources(rows, count, codec=None, device=torch.device("cpu"))
    assert given is not None and given.condition.target_length == 12
    batch = rows.read(shown_rows(count, len(rows)))
    kept = torch.where(batch.condition_BL, batch.ids_BL, rows.pad_id)
    assert torch.equal(given.condition.ids_BL, kept) and torch.equal(given.condition.length_B, batch.cond_length_B)
    assert given.sources[0] == given.sources[-2] and given.references[0] == given.sources[0].removesuffix("!")
