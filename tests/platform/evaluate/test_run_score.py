"""The judge that is trained in seconds, what a run scores with it, and what an artefact scores on prepared rows."""

import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from score_subjects import make_judge

from elf.artefact import Artefact, Sizes, load_artefact, save_artefact
from elf.batch import Batch
from elf.codecs import TableConfig
from elf.data.tokenizer import Tokenizer
from elf.metrics.text import unigram_cross_entropy
from elf.nn.config import NetworkConfig
from elf.optim import NEGLIGIBLE_SHARE
from elf.optim.config import OptimConfig
from elf.processes import EmbeddedFlow
from elf_platform.config import DataConfig, RunConfig, TokenizerConfig
from elf_platform.data.prepare import PreparedData, prepare
from elf_platform.data.reader import RowReader
from elf_platform.evaluate.judge import load_judge
from elf_platform.evaluate.losses import check_data, score_artefact
from elf_platform.evaluate.metrics import Resampling
from elf_platform.evaluate.record import load_record, missing
from elf_platform.evaluate.run_score import run_samples, score_run
from elf_platform.evaluate.texts import prepared_texts, read_texts
from elf_platform.evaluate.tiny_judge import TinyJudge, targets_alone, tiny_judge
from elf_platform.headline import empty_figures, read_corpus

NETWORK = NetworkConfig(hidden=16, depth=1, heads=2, bottleneck=4, prefix_tokens=2)
SMALL = TinyJudge(network=NetworkConfig(hidden=32, depth=1, heads=2), steps=80, step_tokens=240, ema_decay=0.9)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tiny_text: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    config = DataConfig(
        paths=(f"{tiny_text}/*.txt",), length=24, valid_fraction=0.1, tokenizer=TokenizerConfig(source="bpe", vocab_size=400)
    )
    return prepare(config, tmp_path_factory.mktemp("store"), progress=False, each=lambda jobs, task: map(task, jobs))


@pytest.fixture(scope="module")
def artefact(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    process, codec = EmbeddedFlow(), TableConfig(channels=6).build(vocab_size=data.tokenizer.vocab_size)
    sizes = Sizes(vocab_size=data.tokenizer.vocab_size, channels=6, length=24)
    torch.manual_seed(0)
    network = process.build_network(NETWORK, vocab_size=sizes.vocab_size, channels=6, length=24)
    return load_artefact(
        save_artefact(
            tmp_path_factory.mktemp("run") / "artefact", process=process, network_config=NETWORK, network_state=network.state_dict(),
            sizes=sizes, tokenizer=data.tokenizer, codec=codec, lineage={"weights": "ema", "code_version": "1"},
        )
    )


def test_tiny_judge_learns_and_is_found_again(data: PreparedData, tmp_path: Path) -> None:
    folder = tiny_judge(data.folder, tmp_path, SMALL, device=CPU)
    weights = (folder / "model.safetensors").read_bytes()
    assert tiny_judge(data.folder, tmp_path, SMALL, device=CPU) == folder
    assert tiny_judge(data.folder, tmp_path, TinyJudge(network=SMALL.network, steps=1), device=CPU) != folder
    again = tiny_judge(data.folder, tmp_path / "elsewhere", SMALL, device=CPU)
    assert (again / "model.safetensors").read_bytes() == weights, "the same settings and data give the same judge"
    record = score_artefact(
        load_artefact(folder), data.folder, name="judge", count=0, seed=0, device=CPU, precision="fp32", resampling=Resampling(resamples=20)
    )
    corpus = read_corpus(data.folder, data.tokenizer.vocab_size)
    assert record.scores["nll"].value == record.scores["ce"].value
    assert record.scores["nll"].value < unigram_cross_entropy(corpus.train_counts_V, corpus.valid_counts_V) - 1
    assert missing(record) == [] and record.judge["name"] == "no judge"
    assert record.judge["device"] == "cpu" and record.judge["threads"] == torch.get_num_threads()


def test_a_tiny_judge_keeps_nothing_of_its_initial_weights(data: PreparedData, tmp_path: Path) -> None:
    """After one step the average holds the initial weights and those of the step; without the former, its decay plays no part."""
    whole = TinyJudge()
    assert whole.ema_decay**whole.steps > NEGLIGIBLE_SHARE, "the default judge ends with a share that is taken out"
    exported = []
    for decay in (0.9, 0.5):
        settings = TinyJudge(network=SMALL.network, steps=1, ema_decay=decay)
        exported.append(load_file(tiny_judge(data.folder, tmp_path, settings, device=CPU) / "model.safetensors"))
    for name, value in exported[0].items():
        torch.testing.assert_close(value, exported[1][name], atol=1e-6, rtol=1e-5)


def test_targets_alone_are_moved_to_the_head() -> None:
    ids = torch.tensor([[5, 6, 7, 8, 0, 0], [1, 2, 3, 4, 5, 6]])
    moved = targets_alone(Batch.of_ids(ids, torch.tensor([4, 6]), torch.tensor([2, 0])), pad_id=0)
    assert moved.ids_BL.tolist() == [[7, 8, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]] and moved.length_B.tolist() == [2, 6]
    assert moved.cond_length_B.tolist() == [0, 0]
    plain = Batch.of_ids(ids)
    assert targets_alone(plain, 0) is plain


def test_a_run_scores_its_samples_beside_real_text(
    data: PreparedData, artefact: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = functools.partial(tiny_judge, settings=SMALL)
    monkeypatch.setattr("elf_platform.evaluate.run_score.tiny_judge", small)
    config = RunConfig(
        name="small", storage=tmp_path, process=EmbeddedFlow(), codec=TableConfig(channels=6), network=NETWORK, optim=OptimConfig(),
        data=data.manifest.data,
    )
    rng = np.random.default_rng(0)
    ids = rng.integers(4, data.tokenizer.vocab_size, size=(12, 24)).tolist()
    texts = [data.tokenizer.decode(row) for row in ids]
    drawn = run_samples(artefact, config, texts, ids, nfe=33, count=12, data_sha256="cd" * 32)
    figures = score_run(artefact, config, drawn, tmp_path, data.folder, targets=texts)
    assert figures["score/gen_ppl_reference"] < figures["score/gen_ppl_shuffled"] < figures["score/gen_ppl"]
    assert figures["score/gen_ppl_low"] < figures["score/gen_ppl"] < figures["score/gen_ppl_high"]
    assert figures["score/bleu"] == pytest.approx(100)
    assert "protocol elf: first token unscored" in str(figures["score/protocol"]) and "12 of 12 samples" in str(figures["score/protocol"])
    record = load_record(tmp_path)
    assert record.sampling["nfe"] == 33 and record.scores["gen_ppl"].value == figures["score/gen_ppl"]
    json.dumps(figures)
    nothing = run_samples(artefact, config, ["", ""], [[], []], nfe=33, count=2, data_sha256="cd" * 32)
    assert "all 2 are empty" in str(score_run(artefact, config, nothing, tmp_path, data.folder)["score/protocol"])
    wrong = score_run(artefact, config, nothing, tmp_path, data.folder, targets=texts[:2])
    assert wrong["score/bleu"] == wrong["score/rougeL"] == 0 and "score/gen_ppl" not in wrong
    assert "2 of 2 texts are empty; they count as wrong" in str(wrong["score/protocol"])
    assert empty_figures(["a", "", " "], [[5], [], [6]]) == {
        "sample/empty": 2.0, "sample/empty_why": "1 end at the first token, 1 hold no visible character"
    }


def test_an_artefact_is_measured_on_validation_rows(data: PreparedData, artefact: Artefact) -> None:
    record = score_artefact(
        artefact, data.folder, name="elf", count=20, seed=0, device=CPU, precision="fp32", resampling=Resampling(resamples=20)
    )
    assert {"flow", "decoder_ce", "loss", "decoder_accuracy"} <= record.scores.keys() and missing(record) == []
    levels = {name: score for name, score in record.scores.items() if name.startswith("level/")}
    assert levels and all(score.value > 0 for score in levels.values())
    assert 0 <= record.scores["decoder_accuracy"].value < 0.2, "an untrained decoder reads next to nothing"
    assert record.scores["decoder_ce"].value == pytest.approx(math.log(data.tokenizer.vocab_size), rel=0.3)


def test_prepared_data_as_text(data: PreparedData) -> None:
    found, few = read_texts(data.folder), prepared_texts(data.folder, count=5)
    assert len(few.texts) == 5 and few.texts[0] == found.texts[0] and few.texts[-1] == found.texts[-1]
    assert all("</s>" not in text for text in found.texts)
    rows = RowReader(data.folder, "valid")
    assert len(found.texts) == len(rows) and found.form.startswith("valid rows of 24 tokens")


def test_rows_of_another_model_are_refused(data: PreparedData, tokenizer: Tokenizer, tmp_path: Path) -> None:
    rows = RowReader(data.folder, "valid")
    with pytest.raises(ValueError, match="made with another tokenizer"):
        check_data(load_artefact(make_judge(tmp_path / "other", tokenizer)), rows)
    same = make_judge(tmp_path / "longer", data.tokenizer, length=32)
    with pytest.raises(ValueError, match="rows .* have 24 tokens, but the artefact .* takes 32"):
        check_data(load_artefact(same), rows)
    assert load_judge(str(same)).card.length == 32


def test_what_cannot_be_scored_costs_no_run(
    data: PreparedData, artefact: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig(
        name="small", storage=tmp_path, process=EmbeddedFlow(), codec=TableConfig(channels=6), network=NETWORK, data=data.manifest.data
    )
    short = TinyJudge(network=SMALL.network, steps=1)
    monkeypatch.setattr("elf_platform.evaluate.run_score.tiny_judge", functools.partial(tiny_judge, settings=short))
    drawn = run_samples(artefact, config, ["some text"] * 3, [[5, 6]] * 3, nfe=33, count=3, data_sha256="")
    figures = score_run(artefact, config, drawn, tmp_path, data.folder)
    assert list(figures) == ["score/protocol"] and "it lacks sampling.data" in str(figures["score/protocol"])
    assert not (tmp_path / "score.json").exists()
    (tmp_path / "score.json").write_text("of an earlier attempt")
    (tmp_path / "judges").rename(tmp_path / "away")
    (tmp_path / "judges").write_text("in the way")
    figures = score_run(artefact, config, drawn, tmp_path, data.folder)
    assert str(figures["score/protocol"]).startswith("not scored: ") and not (tmp_path / "score.json").exists()
