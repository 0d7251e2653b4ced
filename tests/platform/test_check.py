"""What is refused before a run's name is claimed, and that the sums are those of the real network."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import VOCAB, MadeRows, small_config

from elf.draws import Draws
from elf.processes import Autoregressive, EmbeddedFlow, Process
from elf_platform.check import check_run, check_sizes
from elf_platform.cli import parse_run_config
from elf_platform.config import TrackingConfig
from elf_platform.evaluate.command import EvaluateCommand, evaluate
from elf_platform.pretrain import pretrain
from elf_platform.sizes import count_parameters, least_allocations, shape_network
from elf_platform.writable import check_place

HUGE = str(10**12)


def check(line: str, storage: Path) -> None:
    check_run(parse_run_config([*line.split(), "--storage", str(storage)]).config)


@pytest.mark.parametrize("line", ["tiny", "ar-tiny", "tiny --codec table", f"tiny --train.keep {HUGE}", f"tiny --train.log_every {HUGE}"])
def test_what_can_run_is_let_through(line: str, tmp_path: Path) -> None:
    check(line, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f"tiny --train.steps {HUGE}", "figures of 1,000,000,000,000 steps 100000.00 GB"),
        (f"tiny --network.hidden {HUGE}", "has a tensor of more than 2^63 bytes"),
        (f"tiny --network.prefix_tokens {HUGE}", "but this machine has"),
        (f"tiny --network.bottleneck {HUGE}", "384,000,002,142,376 parameters: weights 1536000.01"),
        ("tiny --network.depth 10000", "activations of 64 rows"),
        (f"tiny --codec.network.hidden {HUGE}", "the encoder that is trained first (codec.network"),
        (f"tiny --codec.channels {HUGE}", "channels"),
        (f"tiny --codec.global_batch {HUGE} --codec.steps 3", "the encoder that is trained first"),
        (f"tiny --codec table --train.steps 40 --train.global_batch {HUGE}", "activations of 1000000000000 rows"),
        (f"ar-tiny --train.steps 40 --train.global_batch {HUGE} --train.micro_batch 1", "the next batches of 1000000000000 rows"),
        ("tiny --data.length 2000000000", "but this machine has"),
        ("tiny --data.tokenizer.vocab_size 2000000000", "but this machine has"),
        ("tiny --data.tokenizer.vocab_size 200", "data.tokenizer.vocab_size is 200, but must be at least 260"),
        ("tiny --sample.count 100000000", "100000000 samples at the end and their token logits"),
        ("tiny --sample.cfg 2", "needs a conditional model"),
        ("tiny --process token_denoising", "cannot generate text"),
        ("tiny --tracking.uri nonsense", "tracking.uri 'nonsense' is no address"),
        ("tiny --tracking.uri sqlite:///mlflow.db", "is relative to the working directory"),
        ("tiny --data.tokenizer.source no/where.json", "there is no tokenizer at no/where.json"),
        ("tiny --codec t5 --codec.source google-t5/t5-small", "did you mean hub:google-t5/t5-small"),
        ("tiny --codec.path nowhere", "codec.path nowhere is not the folder of a codec"),
        ("tiny --codec table --codec.table normalised --codec.source nowhere", "codec.source nowhere is not the folder"),
    ],
)  # fmt: skip
def test_what_cannot_end_well_is_refused_with_the_sum(line: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        check(line, tmp_path)
    assert says in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_typo_in_a_path_is_found_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text\n")
    for path in (tmp_path / "a.txt", tmp_path, tmp_path / "*.txt", "builtin", "hub:some/thing", "s3://bucket/part-*.jsonl"):
        check(f"tiny --data.paths {path}", tmp_path / "storage")
    for path in (tmp_path / "b.txt", tmp_path / "none", tmp_path / "*.jsonl"):
        with pytest.raises(FileNotFoundError, match="nothing matches it"):
            check(f"tiny --data.paths {tmp_path / 'a.txt'} {path}", tmp_path / "storage")


def test_a_refused_run_claims_nothing(tmp_path: Path) -> None:
    run = parse_run_config(["tiny", "--name", "mine", "--storage", str(tmp_path), "--data.tokenizer.source", "no/where.json"])
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        pretrain(run.config, run.recipe)
    assert not (tmp_path / "runs" / "mine").exists()


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    check_place(tmp_path / "new" / "and deeper", "storage")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="Not a directory"):
        check_place(tmp_path / "file" / "runs", "storage")
    with pytest.raises(ValueError, match="is no folder"):
        check_place(tmp_path / "file", "storage")
    with pytest.raises(ValueError, match="File name too long"):
        check_place(tmp_path / ("x" * 300), "storage")
    if os.geteuid():  # the superuser may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(ValueError, match="may not be written"):
            check_place(tmp_path / "closed" / "runs", "storage")


def test_a_cluster_elsewhere_is_not_judged_by_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = parse_run_config(["tiny", "--network.depth", "3000", "--train.global_batch", "512", "--storage", str(tmp_path)]).config
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ValueError, match="this machine has"):
        check_sizes(big)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    check_sizes(big)
    beyond = dataclasses.replace(big, data=dataclasses.replace(big.data, length=2**31 - 1))
    with pytest.raises(ValueError, match="no machine has that"):
        check_sizes(beyond)


@pytest.mark.parametrize("process", [EmbeddedFlow(), Autoregressive()])
def test_parameters_are_counted_without_building_every_block(process: Process) -> None:
    config = dataclasses.replace(small_config(process), network=dataclasses.replace(small_config().network, depth=7))
    built = shape_network(config, vocab_size=31, channels=6)
    assert count_parameters(config, vocab_size=31, channels=6) == sum(p.numel() for p in built.parameters())


@pytest.mark.parametrize("process", [EmbeddedFlow(), Autoregressive()])
def test_the_least_allocations_are_no_more_than_a_step_keeps(process: Process) -> None:
    """Counted from the tensors that a real forward pass keeps for the backward pass, each storage once."""
    config = small_config(process)
    rows = np.arange(config.train.global_batch)
    batch = MadeRows().read(rows)
    network = process.build_network(config.network, vocab_size=VOCAB, channels=6, length=config.data.length)
    drawn = process.draw(Draws(seed=0, step=0, rows=rows, total=len(rows)), batch, 6)
    codec = config.codec.build(vocab_size=VOCAB)
    kept: dict[int, int] = {}
    alive: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        process.loss(network, batch, codec.encode(batch) if process.needs_codec else None, drawn)
    parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}
    measured = sum(size for pointer, size in kept.items() if pointer not in parameters)
    needs = least_allocations(config, vocab_size=VOCAB, channels=6)
    activations = next(value for name, value in needs.items() if name.startswith("activations"))
    assert measured / 5 < activations < measured, f"{activations} of {measured}"


def test_what_an_evaluation_will_need_is_asked_for_before_texts_are_read(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_bytes(b"\xff\xfe\x00 no text at all")  # would be refused when it is read
    (tmp_path / "file").write_text("")
    words = {"subject": texts, "storage": tmp_path / "storage", "judge": "none"}
    for more, says in (
        ({"judge": str(tmp_path / "nowhere")}, "there is no judge at"),
        ({"out": tmp_path / "file" / "score.json"}, "--out cannot hold"),
        ({"tracking": TrackingConfig(uri="nonsense")}, "is no address of an MLflow store"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=says):
            evaluate(EvaluateCommand(**(words | more)))
