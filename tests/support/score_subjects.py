"""Texts to score, a judge with random weights, and a folder of samples as jobs/sample.py leaves it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from elf.artefact import Sizes, save_artefact
from elf.data.tokenizer import Tokenizer
from elf.nn.config import NetworkConfig
from elf.processes import Autoregressive
from elf.sampling.config import SampleConfig
from elf_platform.sampling.folder import begin, finish
from elf_platform.sampling.parts import write_part
from elf_platform.sampling.run import SampleRun, SourceFacts

TEXTS = [
    "the cat sat on the mat and the dog sat on the cat",
    "a river runs to the sea",
    "the dog barks",
    "",
    "the sea sat on the dog and the mat ran to the river while the cat barks at the sea",
    "one",
]


def make_judge(folder: Path, tokenizer: Tokenizer, *, length: int = 24, **lineage: Any) -> Path:
    """An artefact of the autoregressive process."""
    config, sizes = NetworkConfig(hidden=16, depth=1, heads=2), Sizes(vocab_size=tokenizer.vocab_size, channels=0, length=length)
    torch.manual_seed(0)
    network = Autoregressive().build_network(config, vocab_size=sizes.vocab_size, channels=0, length=sizes.length)
    torch.nn.init.normal_(network.unembed.weight, std=0.5)  # type: ignore[union-attr, arg-type]
    known = {"run": "judge", "weights": "ema", "code_version": "1", "tokenizer_sha256": tokenizer.fingerprint} | lineage
    return save_artefact(
        folder, process=Autoregressive(), network_config=config, network_state=network.state_dict(), sizes=sizes, tokenizer=tokenizer,
        codec=None, lineage=known,
    )


def write_samples(folder: Path, texts: list[str], tokenizer: Tokenizer, *, done: bool = True, **changes: Any) -> Path:
    """A folder as jobs/sample.py leaves it."""
    settings = asdict(SampleConfig(steps=4, seed=7))
    settings.pop("count")
    known: dict[str, Any] = {
        "artefact": "ab" * 32, "tokenizer": tokenizer.fingerprint, "process": "elf", "weights": "ema", "settings": settings,
        "compute_batch": len(texts), "length": 24, "target_length": 24, "precision": "fp32", "device": "cpu", "threads": 1,
        "compile": False, "sources": SourceFacts(), "torch": "2", "code_version": "0.1",
    }
    run = SampleRun(**(known | changes))
    rows = [
        {"id": i, "text": text, "tokens": tokenizer.encode_batch([text])[0], "source": "", "truncated": False, "seed": 7, "nfe": 5}
        for i, text in enumerate(texts)
    ]
    begin(folder, run, len(texts))
    write_part(folder, 0, rows, run=run.to_dict(), device="cpu")
    if done:
        finish(folder, run, [len(texts)], {"data_sha256": "cd" * 32, "weights": "ema"})
    return folder
