"""The import of the authors' checkpoints through its job: files, the hub's local cache, and refusals; no network."""

import importlib.util
import json
from pathlib import Path

import huggingface_hub.constants
import pytest
import tokenizers
import torch
from safetensors.torch import load_file
from sample_folders import task_of

from elf.artefact import load_artefact
from elf.processes import EmbeddedFlow
from elf_platform.import_official import ImportConfig

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "forward.safetensors"


def job(*argv: str | Path) -> None:
    spec = importlib.util.spec_from_file_location("import_elf", ROOT / "jobs" / "import_elf.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(word) for word in argv])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    params = {name.removeprefix("param."): value for name, value in load_file(GOLDEN).items() if name.startswith("param.")}
    path = tmp_path / "checkpoint_42"
    torch.save({"params": params, "ema_params1": params, "opt_state": {}, "step": 42, "epoch": 1}, path)
    return path


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    words = {name: i for i, name in enumerate(["<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(50))])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    backend.add_special_tokens(["<pad>", "</s>", "<unk>"])
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_the_artefact_computes_what_their_code_computed(
    checkpoint: Path, tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    job(checkpoint, "--out", out, "--length", "16", "--tokenizer", tokenizer, "--codec", "none")
    assert "hidden 48, depth 4, heads 4, 24 channels, 61 ids" in capsys.readouterr().out
    artefact, record = load_artefact(out), load_file(GOLDEN)
    assert artefact.process == EmbeddedFlow() and artefact.codec is None
    assert (artefact.lineage["step"], artefact.lineage["weights"]) == (42, "ema")
    with torch.no_grad():
        x_hat, logits = artefact.network(
            record["in.z"], record["in.self_cond"], record["in.t"], record["in.sc_scale"], record["in.decode"], want_tokens=True
        )
    torch.testing.assert_close(x_hat, record["out.x_hat"], atol=2e-5, rtol=0)
    torch.testing.assert_close(logits, record["out.logits"], atol=2e-5, rtol=0)


def test_the_task_decides_settings_and_length_and_the_codec_is_put_in(checkpoint: Path, tokenizer: Path, tmp_path: Path) -> None:
    from transformers import T5Config, T5EncoderModel

    sizes = {"vocab_size": 64, "d_model": 24, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    T5EncoderModel(T5Config(**sizes)).save_pretrained(tmp_path / "t5")
    job(checkpoint, "--out", tmp_path / "out", "--task", "de-en", "--tokenizer", tokenizer, "--codec", tmp_path / "t5")
    artefact = load_artefact(tmp_path / "out")
    assert (artefact.sizes.length, artefact.sizes.source_length) == (128, 64)
    assert artefact.lineage["tokenizer_sha256"] == artefact.tokenizer.fingerprint
    task = task_of(tmp_path / "out", prompt="w1 w2")
    assert (task.config.sampler, task.config.steps, task.config.cfg) == ("ode", 3, 2.0), "the published sampler, with steps as given"
    assert len(task.sources[0].tokens) == 2 and task.run.target_length == 64
    assert artefact.process == EmbeddedFlow(decoder_noise_scale=1.0, loss_on_padding=True)
    assert artefact.codec is not None and artefact.codec.channels == 24


def test_the_hub_is_asked_only_when_told(
    checkpoint: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that lies in the hub's local cache, which needs no network."""
    commit = "0123456789" * 4
    folder = tmp_path / "cache" / "models--someone--elf"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    checkpoint.rename(folder / "snapshots" / commit / "checkpoint_42")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    options = ("--out", tmp_path / "out", "--tokenizer", tokenizer, "--codec", "none")
    with pytest.raises(FileNotFoundError, match="there is no file or folder someone/elf"):
        job("someone/elf", *options)
    job("hub:someone/elf", *options)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["lineage"]["run"] == "import of hub:someone/elf"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"hub:someone/other, which is not in the local cache.*fetch its checkpoint_N elsewhere"):
        job("hub:someone/other", *options)


def test_weights_of_another_size_than_asked_for_are_refused(checkpoint: Path, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hidden 48, depth 4 and heads 4, but preset B has 768, 12 and 12"):
        job(checkpoint, "--out", tmp_path / "out", "--preset", "B", "--tokenizer", tokenizer, "--codec", "none")
    with pytest.raises(ValueError, match="length is -1"):
        ImportConfig(source="x", out=tmp_path, length=-1)
    with pytest.raises(ValueError, match="length is 64, which leaves no target: the task de-en gives the first 64 tokens"):
        ImportConfig(source="x", out=tmp_path, task="de-en", length=64)
    assert not (tmp_path / "out").exists()
