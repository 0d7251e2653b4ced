"""Judges against plain computations, and the refusal of judges whose figures would mean nothing."""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from elf.artefact import Sizes, load_artefact, save_artefact
from elf.codecs import TableConfig
from elf.data.tokenizer import Tokenizer, train_tokenizer
from elf.metrics.perplexity import PROTOCOLS
from elf.nn.config import NetworkConfig
from elf.processes import EmbeddedFlow
from elf_platform.evaluate.judge import load_judge
from elf_platform.evaluate.metrics import Resampling, judged_scores
from elf_platform.evaluate.scoring import BatchScores, JudgeBatch, plan_batches, run_here, score_sets

SOME = [
    "the cat sat on the mat and the dog sat on the cat",
    "a river runs to the sea",
    "the sea sat on the dog and the mat ran to the river while the cat barks at the sea",
    "one",
]


def ppl(source: Path, name: str, **options: int) -> float:
    judge, protocol = load_judge(str(source)), PROTOCOLS[name]
    scored = score_sets(judge, [judge.encode(SOME)], protocol, **options)[0]
    return judged_scores(scored, protocol, Resampling(resamples=0)).scores["gen_ppl"].value


def straight(source: Path, tokenizer: Tokenizer) -> list[tuple[float, int]]:
    """(nll, tokens) of each text by transformers' own loss in float64: the text, one end-of-text token, the first token unscored."""
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(source, dtype=torch.float64).eval()
    out = []
    for ids in tokenizer.encode_batch(SOME):
        row = torch.tensor([[*ids[:32], *([tokenizer.eos_id] if len(ids) < 32 else [])]])
        with torch.no_grad():
            loss = float(model(row, labels=row).loss)
        out.append((loss * (row.shape[1] - 1), row.shape[1] - 1))
    return out


def test_perplexity_is_transformers_own_loss(gpt2_folder: Path, tokenizer: Tokenizer) -> None:
    expected = straight(gpt2_folder, tokenizer)
    assert ppl(gpt2_folder, "elf") == pytest.approx(math.exp(sum(a for a, _ in expected) / sum(b for _, b in expected)), rel=1e-5)
    assert ppl(gpt2_folder, "elf-macro") == pytest.approx(math.exp(sum(a / b for a, b in expected) / len(expected)), rel=1e-5)


def test_beginning_of_text_scores_the_first_token(gpt2_folder: Path, tokenizer: Tokenizer) -> None:
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(gpt2_folder, dtype=torch.float64).eval()
    total, count = 0.0, 0
    for ids in tokenizer.encode_batch(SOME):
        row = torch.tensor([[tokenizer.eos_id, *ids[:31], *([tokenizer.eos_id] if len(ids) < 31 else [])]])
        with torch.no_grad():
            total += float(model(row, labels=row).loss) * (row.shape[1] - 1)
        count += row.shape[1] - 1
    assert ppl(gpt2_folder, "bos") == pytest.approx(math.exp(total / count), rel=1e-5)


@pytest.mark.parametrize("name", ["elf", "bos"])
def test_own_judge_is_its_networks_cross_entropy(judge_folder: Path, name: str) -> None:
    artefact = load_artefact(judge_folder)
    network, total, count = artefact.network, 0.0, 0
    for ids in artefact.tokenizer.encode_batch(SOME):
        cut = ids[: 23 if name == "bos" else 24]
        row = torch.tensor([[*cut, *([artefact.tokenizer.eos_id] if len(cut) < (23 if name == "bos" else 24) else [])]])
        with torch.no_grad():
            logits = network(row)[1][0]
        nll = torch.nn.functional.cross_entropy(logits.double(), row[0], reduction="none")
        nll = nll if name == "bos" else nll[1:]
        total, count = total + float(nll.sum()), count + len(nll)
    assert ppl(judge_folder, name) == pytest.approx(math.exp(total / count), rel=1e-5)


@pytest.mark.parametrize("kind", ["judge_folder", "gpt2_folder"])
def test_batches_change_rounding_alone_and_states_are_those_after_the_last_token(kind: str, request: pytest.FixtureRequest) -> None:
    judge = load_judge(str(request.getfixturevalue(kind)))
    alone = score_sets(judge, [judge.encode(SOME)], PROTOCOLS["elf"], budget=1)[0]
    together = score_sets(judge, [judge.encode(SOME)], PROTOCOLS["elf"], budget=10_000)[0]
    assert together.sums_N2 == pytest.approx(alone.sums_N2, rel=1e-5)
    assert together.state_NH == pytest.approx(alone.state_NH, abs=1e-4)
    assert together.ids == alone.ids and together.truncated == sum(len(i) > judge.card.length for i in judge.encode(SOME))


def test_sets_scored_together_have_the_very_figures_of_each_alone_in_whatever_order_batches_come(judge_folder: Path) -> None:
    judge, protocol = load_judge(str(judge_folder)), PROTOCOLS["elf"]
    sets = [judge.encode(texts) for texts in (SOME, SOME[1:], SOME[:1])]

    def backwards(batches: Sequence[JudgeBatch]) -> Iterator[tuple[int, BatchScores]]:
        return reversed(list(run_here(judge, protocol)(batches)))

    together = score_sets(judge, sets, protocol, budget=30, run=backwards)
    for one, ids in zip(together, sets, strict=True):
        (alone,) = score_sets(judge, [ids], protocol, budget=30)
        assert np.array_equal(one.sums_N2, alone.sums_N2) and np.array_equal(one.state_NH, alone.state_NH)
        assert (one.ids, one.truncated) == (alone.ids, alone.truncated)


def test_cut_to_fewer_tokens(judge_folder: Path) -> None:
    judge = load_judge(str(judge_folder))
    scored = score_sets(judge, [judge.encode(SOME)], PROTOCOLS["elf"], limit=4)[0]
    whole = judge.encode(SOME)
    assert scored.ids == [ids[:4] for ids in whole] and scored.truncated == sum(len(ids) > 4 for ids in whole)
    assert scored.sums_N2[:, 1].tolist() == [min(len(ids), 3) for ids in whole]
    with pytest.raises(ValueError, match="takes 1 to 24"):
        score_sets(judge, [judge.encode(SOME)], PROTOCOLS["elf"], limit=25)


def test_batches_are_by_length_and_within_the_budget() -> None:
    ids = [[1] * n for n in (5, 2, 9, 2, 30, 1)]
    batches = plan_batches(ids, limit=40, budget=12)
    assert [batch.index for batch in batches] == [[5, 1, 3], [0], [2], [4]]
    assert plan_batches([], limit=4, budget=4) == []


def test_judge_with_another_tokenizer_is_refused(tmp_path: Path, judge_folder: Path, gpt2_folder: Path, tokenizer: Tokenizer) -> None:
    other = train_tokenizer(iter(["completely other words for once"] * 4), "bpe", 262)
    copy = shutil.copytree(judge_folder, tmp_path / "own")
    other.save(copy / "tokenizer.json")
    with pytest.raises(ValueError, match=r"tokenizer.json has SHA-256"):
        load_judge(str(copy))
    config = json.loads((judge_folder / "config.json").read_text())
    config["lineage"]["tokenizer_sha256"] = other.fingerprint
    shutil.copytree(judge_folder, tmp_path / "lineage")
    (tmp_path / "lineage/config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="was trained with the tokenizer"):
        load_judge(str(tmp_path / "lineage"))
    from transformers import PreTrainedTokenizerFast

    copy = shutil.copytree(gpt2_folder, tmp_path / "gpt2")
    PreTrainedTokenizerFast(tokenizer_object=other.backend, eos_token="</s>", bos_token="</s>").save_pretrained(copy)
    with pytest.raises(ValueError, match=f"its model was trained with {tokenizer.vocab_size} ids"):
        load_judge(str(copy))


def test_the_folder_of_a_run_stands_for_its_artefact(judge_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(judge_folder, tmp_path / "artefact")
    (tmp_path / "config.json").write_text(json.dumps({"name": "judge", "process": {"kind": "autoregressive"}}))
    assert load_judge(str(tmp_path)).card == load_judge(str(judge_folder)).card


def test_what_is_no_judge_is_refused(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="there is no judge at"):
        load_judge(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="neither an artefact"):
        load_judge(str(tmp_path))
    config = NetworkConfig(hidden=16, depth=1, heads=2, bottleneck=4)
    codec, process = TableConfig(channels=6).build(vocab_size=tokenizer.vocab_size), EmbeddedFlow()
    sizes = Sizes(vocab_size=tokenizer.vocab_size, channels=6, length=8)
    network = process.build_network(config, vocab_size=sizes.vocab_size, channels=6, length=8)
    folder = save_artefact(
        tmp_path / "elf", process=process, network_config=config, network_state=network.state_dict(), sizes=sizes, tokenizer=tokenizer,
        codec=codec, lineage={},
    )
    with pytest.raises(ValueError, match="process 'elf', which says no likelihood"):
        load_judge(str(folder))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"judge is hf:gpt2-large.* could not be reached"):
        load_judge("hf:gpt2-large")
