"""Small artefacts of random weights, for what samples from them."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from made_words import WORDS

from elf.artefact import Sizes, save_artefact
from elf.codecs import TableConfig
from elf.data.tokenizer import Tokenizer, train_tokenizer
from elf.nn.config import NetworkConfig
from elf.processes import EmbeddedFlow, Process

NETWORK = NetworkConfig(hidden=32, depth=2, heads=2, bottleneck=8, prefix_tokens=2)
LINEAGE = {"run": "made", "step": 1, "weights": "ema", "code_version": "0", "data_sha256": "ab" * 32}
CHANNELS = 8


@functools.cache
def small_tokenizer() -> Tokenizer:
    return train_tokenizer(iter([" ".join(WORDS)] * 4), "bpe", 320)


def small_artefact(
    folder: Path, process: Process | None = None, *, length: int = 16, source_length: int = 0, codec: bool = True, seed: int = 0,
    lineage: dict[str, Any] = LINEAGE, **kept: Any,
) -> Path:
    """An artefact whose samples differ from one another; by default ELF's process. kept: sample, columns."""
    process = process or EmbeddedFlow()
    tokenizer = small_tokenizer()
    sizes = Sizes(vocab_size=tokenizer.vocab_size, channels=CHANNELS, length=length, source_length=source_length)
    torch.manual_seed(seed)
    network = process.build_network(NETWORK, vocab_size=sizes.vocab_size, channels=CHANNELS, length=length)
    state = network.state_dict()
    if "x_head.linear.weight" in state:  # starts at zero, with which all samples would be alike
        state["x_head.linear.weight"] = torch.randn_like(state["x_head.linear.weight"])
    table = TableConfig(channels=CHANNELS).build(vocab_size=tokenizer.vocab_size) if codec and process.needs_codec else None
    return save_artefact(
        folder, process=process, network_config=NETWORK, network_state=state, sizes=sizes, tokenizer=tokenizer, codec=table,
        lineage=lineage, **kept,
    )


def edit_config(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change an artefact's config.json."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
