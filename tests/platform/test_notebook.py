"""Models from Python: the same texts as the jobs print, losses as training validates them, and refusals that say what to do."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_artefact import small_artefact

import elf_platform
from elf.processes import Autoregressive, EmbeddedFlow
from elf_platform.notebook import Model, load
from elf_platform.sampling.command import SampleCommand
from elf_platform.sampling.job import print_samples
from elf_platform.terminal import harmless

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished runs."""
    root = tmp_path_factory.mktemp("storage")
    conditional = EmbeddedFlow(loss_on_padding=True, decoder_noise_scale=1.0)
    small_artefact(root / "runs" / "my-run" / "artefact")
    small_artefact(root / "runs" / "translate" / "artefact", conditional, source_length=6)
    small_artefact(root / "runs" / "ar-run" / "artefact", Autoregressive())
    return root


@pytest.fixture(autouse=True)
def settings_of_torch() -> Iterator[None]:
    """The jobs fix them for their process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def named(storage: Path) -> Callable[[str], Model]:
    return lambda name: load(name, storage=storage, gpu="off")


def test_the_document_runs(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every snippet of docs/python.md, one after the other, with runs of these names."""
    monkeypatch.setenv("ELF_HOME", str(storage))
    snippets = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.M | re.S)
    names: dict[str, Any] = {}
    for snippet in snippets:
        exec(compile(snippet, "docs/python.md", "exec"), names)
    assert len(snippets) >= 5 and len(names["texts"]) == 8 and len(names["answers"]) == 2
    assert names["record"].scores["gen_ppl"].value > 1


def test_the_texts_are_those_of_the_job(storage: Path, named: Callable[[str], Model]) -> None:
    folder = storage / "runs" / "my-run" / "artefact"
    printed = print_samples(SampleCommand(artefact=folder, count=3, steps=4, seed=2, sampler="ode", gpu="off"))
    assert named("my-run").sample(3, steps=4, seed=2, sampler="ode") == [row["text"] for row in printed]
    assert len({*(row["text"] for row in printed)}) == 3, "or anything would do"
    asked = print_samples(SampleCommand(artefact=storage / "runs" / "translate" / "artefact", prompt="the sun", steps=4, gpu="off"))
    assert named("translate").translate(["the sun", ""], steps=4) == [asked[0]["text"], ""]
    several = named("translate").translate(["the sun", ""], steps=4, per_source=2)
    assert several[::2] == [asked[0]["text"], ""] and several[1] and several[3] == ""
    continued = print_samples(SampleCommand(artefact=storage / "runs" / "ar-run" / "artefact", prompt="the sun", gpu="off"))
    assert named("ar-run").complete("the sun") == [continued[0]["text"]]


def test_control_characters_of_samples_have_no_effect_on_a_terminal(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = print_samples(SampleCommand(artefact=storage / "runs" / "ar-run" / "artefact", count=8, seed=1, gpu="off"))
    assert any(harmless(row["text"]) != row["text"] for row in rows), "an untrained model writes some"
    assert "".join(f"[{row['id']}] {harmless(row['text'])}\n\n" for row in rows) == capsys.readouterr().out


def test_this_process_stays_as_it_is(named: Callable[[str], Model]) -> None:
    model = named("my-run")
    torch.set_num_threads(1)
    state = torch.get_rng_state()
    model.sample(1, steps=2)
    model.loss("the sun")
    assert torch.get_num_threads() == 1 and not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), state)


def test_losses_depend_on_the_text_alone(named: Callable[[str], Model]) -> None:
    """An autoregressive loss is exact: that of two texts is the mean over their tokens, whatever the rows."""
    model = named("ar-run")
    one, other, both = model.loss("the sun"), model.loss("the river and the road"), model.loss(["the sun", "the river and the road"])
    tokens = [len(ids) + 1 for ids in model.artefact.tokenizer.encode_batch(["the sun", "the river and the road"])]
    assert both["ce"] == pytest.approx((one["ce"] * tokens[0] + other["ce"] * tokens[1]) / sum(tokens), rel=1e-5)
    assert one["ce"] != other["ce"]
    flow = named("my-run")
    assert flow.loss("the sun", seed=1) == flow.loss("the sun", seed=1) != flow.loss("the sun", seed=2)
    assert {"loss", "flow", "decoder_ce"} <= flow.loss("the sun").keys(), "one text has both branches"
    long = " ".join(["the river and the road"] * 20)
    assert model.loss(long)["ce"] > 0, "a text that is longer than a row takes several"
    pairs = named("translate").loss(["the road"], sources=["the sun"])
    assert pairs["decoder_ce"] > 0


def test_scores_are_a_record(storage: Path) -> None:
    texts = ["the sun and the river", "a road"]
    record = elf_platform.score(texts, references=[["the sun and the river", "the sun"], "the road"])
    assert 0 < record.scores["bleu"].value < 100
    whole = elf_platform.score(texts, references=texts)
    assert whole.scores["rougeL"].value == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: m("my-run").translate("the sun"), "trained on plain text"),
        (lambda m: m("my-run").complete("the sun"), "continues no text"),
        (lambda m: m("translate").sample(2), r"give them to translate\(\)"),
        (lambda m: m("translate").complete("the sun"), r"use translate\(\)"),
        (lambda m: m("translate").loss("the sun"), "each text needs its source"),
        (lambda m: m("translate").loss(["the sun"], sources=["a", "b"]), "1 texts but 2 sources"),
        (lambda m: m("my-run").loss(["the sun"], sources=["a"]), "leave sources away"),
        (lambda m: m("my-run").loss(["", "  "]), "all 2 texts are empty"),
        (lambda m: m("my-run").loss([None]), "text 0 is NoneType"),
        (lambda m: m("my-run").sample(2, step=3), "did you mean steps"),
        (lambda m: m("my-run").sample(2, steps=0), "steps"),
        (lambda m: m("my-run").loss("the sun", draws=2.5), "draws is 2.5, but a whole number"),
        (lambda m: m("my-run").loss("the sun", seed=-1), "seed is -1"),
        (lambda m: m("translate").translate(None), "texts are NoneType"),
        (lambda m: m("translate").translate({"a": "the sun"}), "texts are dict"),
        (lambda m: m("translate").translate("the sun", count=3), "--count is given by the sources"),
        (lambda m: m("translate").translate("the sun " * 9, strict=True), "the given texts: source 1 has"),
        (lambda m: m("my-runn"), "my-run"),
        (lambda m: load("my-run", gpu="maybe"), "gpu is 'maybe'"),
        (lambda m: load("my-run", precision="fp8"), "precision is 'fp8'"),
        (lambda m: elf_platform.score(["a", "b"], references=["a", None]), "texts are NoneType"),
        (lambda m: elf_platform.score([]), "no text"),
    ],
)
def test_what_cannot_be_done_is_said(named: Callable[[str], Model], call: Callable[[Any], Any], says: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        call(named)
