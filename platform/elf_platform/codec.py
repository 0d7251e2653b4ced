"""The codec of a run, ready on shared storage: loaded from its source, or trained on the run's own shards by the same platform."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elf.batch import Batch
from elf.codecs import Codec, OwnCodec, OwnConfig, check_codec, load_codec
from elf.codecs.store import DamagedCodec
from elf.files import clear_leftovers
from elf.nn.token_model import TokenModel
from elf.optim import OptimConfig, trained_average
from elf_platform.config import RunConfig, TrackingConfig
from elf_platform.config_io import to_dict
from elf_platform.data.reader import RowReader
from elf_platform.lock import exclusive
from elf_platform.tracking import RunHandle
from elf_platform.train.checkpoint import CheckpointReader, latest
from elf_platform.train.worker import Job, initial_network
from elf_platform.version import code_version

if TYPE_CHECKING:  # it imports Ray Data, and refusals of settings must not wait for that
    from elf_platform.data.prepare import PreparedData

STATISTICS_ROWS = 512
"""Rows over which the mean and standard deviation of each latent channel are estimated."""

Launch = Callable[[Job, str], None]
"""Trains a job on workers; the second argument is the title of its progress bar."""


def encoder_config(config: RunConfig) -> RunConfig | None:
    """The run that trains the encoder of an own codec, None when none has to be trained.

    Its optimiser is Muon with a cosine schedule (docs/lab-log.md). Raises ValueError when its batch does not fit the workers."""
    own = config.codec
    if not config.process.needs_codec or not isinstance(own, OwnConfig) or own.path:
        return None
    if own.global_batch < config.train.workers:
        raise ValueError(f"codec.global_batch {own.global_batch} has not a row for each of {config.train.workers} workers; raise it")
    if own.global_batch % config.train.workers and not config.train.min_workers:
        raise ValueError(
            f"codec.global_batch {own.global_batch} does not divide among train.workers {config.train.workers}; use a multiple of it"
        )
    train = replace(
        config.train, steps=own.steps, global_batch=own.global_batch, micro_batch=0, valid_every=0, sample_every=0,
        checkpoint_every=max(own.steps // 2, 1), keep=1, keep_best=False, keep_every=0, record_rows=False,
        log_every=min(config.train.log_every, own.steps),
    )
    warmup = min(50, own.steps // 10)
    return replace(
        config, name="encoder", seed=own.seed, network=own.network, train=train,
        process=own.encoder_process(loss_on_padding=_padding(config)),
        optim=OptimConfig(name="muon", lr=own.lr, warmup_steps=warmup, decay="cosine", final_lr_ratio=0.05, ema_decay=0.98),
        tracking=TrackingConfig(kind="jsonl"),
    )


def prepare_codec(
    config: RunConfig, data: "PreparedData", launch: Launch, *, threads: int, log: Callable[[str], None] = print
) -> tuple[Path | None, Codec | None]:
    """Folder of the saved codec and the codec itself on the CPU; (None, None) for a process that works on token ids.

    An own codec is trained once for its settings and data, and found again afterwards. Raises ValueError when the codec does not fit
    the tokenizer or the row length."""
    if not config.process.needs_codec:
        return None, None
    encoder = encoder_config(config)
    codec: Codec
    if encoder is not None:
        folder = _own_folder(config, data)
        # Another run with the same encoder may be training it right now.
        with exclusive(folder.with_name(f"{folder.name}.training"), "the training of this encoder", wait=log):
            found = _whole_codec(folder, log)
            if found is None:
                _train_encoder(config, encoder, data, folder, launch, threads)
    else:
        codec = config.codec.build(vocab_size=data.tokenizer.vocab_size)
        check_codec(codec, vocab_size=data.tokenizer.vocab_size, length=config.data.length)
        folder = config.storage / "codecs" / f"{codec.kind}-{codec.fingerprint[:12]}"
        with exclusive(folder.with_name(f"{folder.name}.saving"), "the saving of this codec", wait=log):
            found = _whole_codec(folder, log)
            if found is None:
                codec.save(folder)
    codec = found or load_codec(folder)
    check_codec(codec, vocab_size=data.tokenizer.vocab_size, length=config.data.length)
    return folder, codec


def _whole_codec(folder: Path, log: Callable[[str], None]) -> Codec | None:
    """The codec in ``folder``; None when it is to be made, also again because it was damaged. The caller holds the folder's lock."""
    clear_leftovers(folder.parent, folder.name)
    try:
        return load_codec(folder)
    except FileNotFoundError:
        return None
    except DamagedCodec as error:
        log(f"the codec in {folder} is damaged and is made again: {error}")
        return None


def _padding(config: RunConfig) -> bool:
    return bool(getattr(config.process, "loss_on_padding", False))


def _own_folder(config: RunConfig, data: "PreparedData") -> Path:
    identity = [to_dict(config.codec, identity=True), data.manifest.content_hash, config.data.length, config.train.precision]
    identity += ["loss_on_padding"] if _padding(config) else []
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return config.storage / "codecs" / f"own-{digest[:12]}"


def _train_encoder(
    config: RunConfig, encoder: RunConfig, data: "PreparedData", folder: Path, launch: Launch, threads: int
) -> None:
    """Train (or resume) the encoder beside ``folder``, estimate its statistics, save it as a codec there."""
    own = config.codec
    assert isinstance(own, OwnConfig)
    run_folder = folder.with_name(f"{folder.name}.training")
    run_folder.mkdir(parents=True, exist_ok=True)
    job = Job(
        config=encoder, run_folder=run_folder, data_folder=data.folder, data_fingerprint=data.manifest.content_hash, codec_folder=None,
        channels=own.channels, threads=threads, tracking=RunHandle(kind="jsonl"), code_version=code_version(),
        shared=True,
    )
    launch(job, "encoder")
    trained = latest(run_folder / "checkpoints")
    assert trained is not None and trained.step == own.steps
    network = initial_network(job, data.tokenizer.vocab_size)
    assert isinstance(network, TokenModel)
    average, updates = CheckpointReader(trained).whole("ema"), trained.state["counters"]["step"]
    decay = job.config.optim.ema_decay
    network.load_state_dict(trained_average(average, network.state_dict(), decay=decay, updates=updates))
    OwnCodec.from_network(network, own, _batches(data)).save(folder)
    # The codec holds the weights now; the figures stay, but what would make a later training of it look like a resumed one goes.
    shutil.rmtree(run_folder / "checkpoints")
    (run_folder / "events.jsonl").unlink(missing_ok=True)


def _batches(data: "PreparedData") -> Iterator[Batch]:
    reader = RowReader(data.folder, "train")
    chosen = np.linspace(0, len(reader) - 1, min(STATISTICS_ROWS, len(reader))).astype(np.int64)
    for start in range(0, len(chosen), 32):
        yield reader.read(chosen[start : start + 32])
