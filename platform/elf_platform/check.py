"""Refuses a run that cannot end well, before its name is claimed or anything is started: all that its end needs is looked at."""

import math
import os
from pathlib import Path

import torch

from elf.codecs.hub import hub_folder, is_hub
from elf.codecs.store import HEADER
from elf.data.tokenizer import LEAST_VOCABULARY, load_tokenizer
from elf_platform.codec import encoder_config
from elf_platform.config import RunConfig
from elf_platform.data.hub_dataset import PREFIX
from elf_platform.data.manifest import TRAINED
from elf_platform.data.selection import select
from elf_platform.place import machine_memory
from elf_platform.sizes import count_parameters, expected_sizes, least_allocations
from elf_platform.tracking.runs import store_uri
from elf_platform.train.preflight import check_disk, memory_per_worker
from elf_platform.writable import check_place

_GB = 1e9
_NO_MACHINE = 1e15  # bytes of memory; where another machine will train, its own size is not known from here


def check_run(config: RunConfig, *, begun: bool = False) -> None:
    """begun: the run goes on, with the tokenizer that its data hold.

    Raises ValueError or OSError, with the sum or the way out, for what could only fail later: settings that do not fit one another,
    places that cannot be written, files that are not there, and memory or disk that no machine here has."""
    encoder = encoder_config(config)
    config.process.check_sampling(config.sample, conditional=bool(config.data.source_column))
    if config.tracking.kind == "mlflow":
        store_uri(config.tracking.uri, config.storage)
    check_place(config.storage / "runs" / config.name, "storage")
    check_sizes(config)
    if encoder is not None:
        try:
            check_sizes(encoder)
        except ValueError as error:
            raise ValueError(f"the encoder that is trained first (codec.network, codec.global_batch): {error}") from error
    if not begun:
        _check_tokenizer(config)
        _check_paths(config)
    _check_codec(config)


def _check_paths(config: RunConfig) -> None:
    """Paths of this machine that stand for nothing. What lies elsewhere is looked at when it is read: that takes time."""
    for path in config.data.paths:
        if "://" not in path and not path.startswith(PREFIX):
            select([path])


def check_sizes(config: RunConfig) -> None:
    """Raises ValueError, with the sum, when the least that the run allocates is more than this machine (or any machine) has."""
    vocab_size, channels = expected_sizes(config)
    parameters = count_parameters(config, vocab_size=vocab_size, channels=channels)
    state, words = memory_per_worker(parameters, config)
    needs = {f"{parameters:,} parameters: {words}": state} | least_allocations(config, vocab_size=vocab_size, channels=channels)
    total, there = sum(needs.values()), _memory(config)
    if total > there:
        largest = [(what, n) for what, n in sorted(needs.items(), key=lambda item: -item[1])[:3] if n > 0.01 * total]
        terms = "; ".join(f"{what}, {_size(number)}" for what, number in largest)
        raise ValueError(
            f"a worker needs at least {_size(total)} of memory, but {_where(there)}: {terms}. Lower the "
            "size that is meant here: network, data.length, vocabulary, train.global_batch (or set train.micro_batch), or sample.count "
            "(jobs/sample.py draws any number into a folder)"
        )
    check_disk(parameters, config, config.storage)


def _memory(config: RunConfig) -> float:
    """Bytes that one worker may have at the most: of this machine where it trains here, else of any machine."""
    if os.environ.get("RAY_ADDRESS"):
        return _NO_MACHINE
    if config.train.gpu != "off" and torch.cuda.is_available():
        return max(machine_memory(), *(float(torch.cuda.get_device_properties(i).total_memory) for i in range(torch.cuda.device_count())))
    return machine_memory()


def _where(there: float) -> str:
    return "no machine has that" if there >= _NO_MACHINE else f"this machine has {_size(there)}"


def _size(number: float) -> str:
    return f"{number / _GB:,.1f} GB" if number < 1e15 and math.isfinite(number) else f"{number / _GB:.1e} GB"


def _check_tokenizer(config: RunConfig) -> None:
    tokenizer = config.data.tokenizer
    if tokenizer.source not in TRAINED:
        load_tokenizer(tokenizer.source)
    elif tokenizer.vocab_size < LEAST_VOCABULARY:
        raise ValueError(
            f"data.tokenizer.vocab_size is {tokenizer.vocab_size}, but must be at least {LEAST_VOCABULARY}: each byte and each special "
            "token has an id"
        )


def _check_codec(config: RunConfig) -> None:
    """The folder that a codec is made from is there, whichever kind it is."""
    if not config.process.needs_codec:
        return
    name = "path" if getattr(config.codec, "path", "") else "source"
    source = str(getattr(config.codec, name, ""))
    if is_hub(source):
        hub_folder(source, setting=f"codec.{name}", way_out="give a local folder, or use the own codec, which needs no download")
    elif source:
        folder = Path(source).expanduser()
        if not (folder / HEADER).is_file() and not (folder / "config.json").is_file():
            guess = f"; did you mean hub:{source}?" if source.count("/") == 1 and not source.startswith((".", "/", "~")) else ""
            raise FileNotFoundError(f"codec.{name} {source} is not the folder of a codec or of a T5 model{guess}")
