"""The configuration of a run: frozen, typed, refused when it contradicts itself. Recipes build one; the command line overrides leaves."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from elf.codecs import CodecConfig
from elf.data.pairs import check_source_length
from elf.nn.config import NetworkConfig, Precision
from elf.optim.config import OptimConfig
from elf.processes import ProcessConfig
from elf.sampling.config import SampleConfig
from elf.settings import Bounds, Count, NotNegative, Positive, Seconds, SecondsOrOff, Seed, Settings
from elf_platform.redact import refuse_secrets, take_login

Megabytes = Annotated[float, Bounds(above=0, most=1e9)]
_LARGEST = 2**63 - 1
NAME_BYTES = 120
"""Longest name of a run: files beside its folder carry it with a prefix and an ending, and 255 bytes are the limit of file systems."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=@,-]*")


def check_name(name: str, setting: str) -> None:
    """Raises ValueError unless ``name`` is one that file systems, shells, Ray and MLflow all take as it is."""
    if not _NAME.fullmatch(name) or len(name) > NAME_BYTES:
        raise ValueError(
            f"{setting} is {name[:NAME_BYTES]!r}, but a name is letters of the English alphabet, digits and . _ + = @ , - "
            f"without slashes and spaces, a letter or digit first, {NAME_BYTES} characters at the most"
        )


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(Settings):
    """Where the tokenizer comes from."""

    prefix: ClassVar[str] = "data.tokenizer."

    source: str = "bpe"
    """bpe or unigram: train one on a sample of the corpus. A path to a tokenizer.json (or the folder that holds it): load it.
    hub:NAME: fetch it from the Hugging Face hub."""
    vocab_size: Annotated[int, Bounds(least=1, most=2**31 - 1)] = 4096
    """bpe and unigram only: number of ids, special tokens included."""
    sample_mb: Megabytes = 16.0
    """bpe and unigram only: megabytes of text to train on, taken evenly from the whole corpus."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    """Corpus, tokenizer and packing: everything that decides the bytes of the prepared shards."""

    prefix: ClassVar[str] = "data."
    later: ClassVar[tuple[str, ...]] = ("unit",)

    paths: tuple[str, ...] = ()
    """Files, folders, globs or filesystem URIs (s3://, gs://) of .txt, .tsv, .csv, .jsonl, .ndjson, .json, .parquet or .arrow, also .gz,
    .zst, .bz2 or .xz (docs/data.md); or hub:NAME for a Hugging Face data set. Empty: the embedded default, the documentation of Python and
    of the installed packages."""
    text_column: str = "text"
    """Column or key that holds the text (of pairs: the target), in all files but .txt; a number from 1 where the first line of a .tsv or
    .csv holds no names, and then of tab-separated .txt too. a.b names the field b of a column a. A list of targets counts as its first."""
    unit: Literal["paragraph", "line"] = "paragraph"
    """What is one document in a .txt: a paragraph, which ends at a blank line, or a line."""
    source_column: str = ""
    """Pairs of source and target, for conditional models: the column that holds the source; .txt is then tab-separated. A list is its
    sentences. Empty: plain text."""
    source_length: Count = 0
    """Pairs only: most tokens of a row that are the source; longer sources are cut, with a count. Each target is cut to what is left of
    `length` behind a longest source, its end-of-text token included, since that is what is generated."""
    split_by: Literal["target", "source"] = "target"
    """Pairs only: the side whose hash decides the split, so that all pairs with the same target (source) are held out, or none."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    length: Annotated[int, Bounds(least=2, most=2**31 - 1)] = 1024
    """Tokens per row."""
    packing: Literal["concat", "document", "best_fit"] = "concat"
    """concat: documents joined by an end-of-text token and cut into full rows. document: one document a row, long ones cut into
    several rows. best_fit: whole documents put together into rows with the least padding, long ones cut."""
    valid_fraction: Annotated[float, Bounds(above=0, below=1)] = 0.01
    """Share of documents held out for validation, chosen by document hash."""
    strict: bool = False
    """Refuse unreadable input (wrong encoding, broken lines, files of no known type) instead of skipping it with a count. Pairs that are
    cut, or have an empty side, are counted either way."""
    shard_mb: Megabytes = 64.0
    """Megabytes of text per task and shard, at most; a corpus of less than 32 such shards is cut finer, down to 4 MB."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read: the text, or source and target."""
        return (self.source_column, self.text_column) if self.source_column else (self.text_column,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(path.strip() for path in self.paths):
            raise ValueError(
                f"data.paths is {self.paths}, but a path is empty; give files, globs or URIs, or no path at all for the documentation of "
                "Python and of the installed packages"
            )
        if self.unit == "line" and (self.source_column or self.text_column.isdecimal()):
            raise ValueError(
                "data.unit line has no effect where columns are asked for, since a line of a .txt is a row of columns then; leave it at "
                "paragraph"
            )
        for path in self.paths:
            refuse_secrets(path, "data.paths")
        if not self.source_column:
            for name, default in (("source_length", 0), ("split_by", "target")):
                if getattr(self, name) != default:
                    raise ValueError(
                        f"data.{name} {getattr(self, name)} has no effect without data.source_column; name the column of the sources, or "
                        f"leave data.{name} at {default}"
                    )
            return
        if self.packing != "document":
            raise ValueError(
                f"data.packing {self.packing} puts several documents into a row, but a pair of source and target is a row of its own; set "
                "data.packing to document"
            )
        if self.source_column == self.text_column:
            raise ValueError(f"data.source_column and data.text_column are both {self.text_column!r}; name those of source and target")
        check_source_length(self.source_length, self.length)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Steps, batch, placement and rhythm of training."""

    prefix: ClassVar[str] = "train."

    steps: Positive = 1000
    """Optimiser steps."""
    global_batch: Positive = 512
    """Rows per optimiser step over all workers; results do not depend on how they are divided."""
    micro_batch: Count = 0
    """Rows per forward pass and worker; 0 means the whole share of the worker in one pass. Gradient accumulation follows."""
    workers: Annotated[int, Bounds(least=1, most=100_000)] = 1
    """Ray Train workers (processes); one GPU each when gpu is on. `--train.workers 1:2` is elastic: as many as the cluster has room
    for, one to two; the global batch stays the same."""
    min_workers: Count = 0
    """Elastic: the fewest workers to go on with, the first number of `--train.workers 1:2`. 0: exactly `workers`."""
    resize_every_s: Seconds = 60.0
    """Elastic: seconds between looks at the cluster for room for more workers."""
    gpu: Literal["auto", "on", "off"] = "auto"
    """auto: use GPUs when the cluster has enough of them for the workers."""
    threads: Annotated[int, Bounds(least=0, most=10_000)] = 0
    """CPU threads per worker; 0 divides the CPUs of the machine evenly."""
    precision: Precision = "fp32"
    """bf16: matrix products of the trunk in bfloat16 under autocast; parameters, gradients and optimiser state stay float32."""
    activation_checkpointing: bool = False
    """Recompute each block's activations in the backward pass: less memory, about a third more time."""
    log_every: Positive = 10
    """Steps between logged points; each is the mean over the steps since the last."""
    valid_every: Count = 0
    """Steps between validations; 0 for one at the start and one at the end only."""
    valid_rows: Count = 256
    """Validation rows used, at most."""
    sample_every: Count = 0
    """Steps between samples shown in the report; 0 for none before the end."""
    judge: Literal["tiny", "none"] = "tiny"
    """tiny: at the end the run's samples are scored (Gen. PPL, entropy, NFE) by a judge that is trained on the run's data in seconds, once
    for each data set. none: no score."""
    checkpoint_every: Positive = 1000
    """Steps between checkpoints; one is always written at the end."""
    keep: Positive = 3
    """Checkpoints kept, newest first."""
    keep_best: bool = False
    """Also keep the checkpoint with the lowest validation loss."""
    keep_every: Count = 0
    """Also keep every checkpoint whose step is a multiple of this; 0 for none."""
    max_failures: Annotated[int, Bounds(least=0, most=1_000_000)] = 3
    """Times Ray restarts the workers from the last checkpoint before giving up."""
    stop_within_s: Seconds = 120.0
    """Seconds that a planned stop (Ctrl-C, SIGTERM, a resize, a node that is drained) waits for the step and the save."""
    record_rows: bool = False
    """Write the data-set rows of every step to rows/rank-*.jsonl, to see afterwards what the model was shown and when."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps * self.global_batch > _LARGEST:
            raise ValueError(
                f"train.steps {self.steps} x train.global_batch {self.global_batch} = {self.steps * self.global_batch} rows, but rows are "
                f"counted to {_LARGEST}; lower one of them"
            )
        if self.keep_best and not self.valid_rows:
            raise ValueError("train.keep_best needs a validation loss, but train.valid_rows is 0; drop it, or validate on some rows")
        if self.keep_every % self.checkpoint_every:
            raise ValueError(
                f"train.keep_every {self.keep_every} is no multiple of train.checkpoint_every {self.checkpoint_every}: there would be no "
                "checkpoint at most of those steps"
            )
        if self.min_workers:
            self._check_elastic()
            return
        if self.global_batch % self.workers:
            raise ValueError(
                f"train.global_batch {self.global_batch} does not divide among train.workers {self.workers}: "
                f"{self.global_batch} = {self.workers} * {self.global_batch // self.workers} + {self.global_batch % self.workers}; "
                f"use {self.global_batch // self.workers * self.workers or self.workers} or another number of workers"
            )
        share = self.global_batch // self.workers
        if self.micro_batch and share % self.micro_batch:
            raise ValueError(
                f"train.micro_batch {self.micro_batch} does not divide a worker's share of {share} rows "
                f"(train.global_batch {self.global_batch} / train.workers {self.workers}); use a divisor of {share}, or 0"
            )

    def _check_elastic(self) -> None:
        """Any number of workers in the range may turn up, so shares may differ by a row and nothing has to divide."""
        if self.min_workers >= self.workers:
            raise ValueError(
                f"train.workers {self.min_workers}:{self.workers} is no range; give fewer workers before the colon than after it, or one "
                "number for a fixed group"
            )
        if self.global_batch < self.workers:
            raise ValueError(
                f"train.global_batch {self.global_batch} has not a row for each of up to {self.workers} workers; raise it or lower "
                "train.workers"
            )


@dataclass(frozen=True, kw_only=True)
class HealthConfig(Settings):
    """What is watched while a run trains, and what happens when something is wrong."""

    prefix: ClassVar[str] = "health."

    on_bad_step: Literal["skip", "rollback", "stop"] = "skip"
    """A step is bad when its loss or gradient is not finite, or spikes (spike_factor). skip: leave the weights as they are and go on with
    the next step. rollback: go back to the last checkpoint and never do that step again. stop: end the run with an error."""
    spike_factor: NotNegative = 0.0
    """A loss or gradient norm above this many times its median over the last `window` good steps is a spike; 0 for no such check."""
    window: Positive = 64
    """Good steps that the median is over; the check begins when a quarter of them are there."""
    max_bad_steps: Positive = 10
    """Bad steps without as many good ones in between after which the run stops."""
    replicas_every: Count = 500
    """Steps between checks that what workers hold in common is the same to the last bit; 0 for never."""
    stall_s: SecondsOrOff = 600.0
    """Seconds without progress after which every worker writes its threads' stacks to the run folder; 0 for never."""
    timeout_s: Seconds = 1800.0
    """Seconds that a worker waits for the others before it gives up; Ray then restarts the group. The main one may sample meanwhile."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.spike_factor <= 1:
            raise ValueError(f"health.spike_factor is {self.spike_factor}, which would call ordinary steps spikes; use 2 or more, or 0")


@dataclass(frozen=True, kw_only=True)
class EngineConfig(Settings):
    """What runs forward, backward and the update on a worker."""

    prefix: ClassVar[str] = "engine."

    kind: Literal["auto", "plain", "deepspeed"] = "auto"
    """plain: PyTorch in one process. deepspeed: ZeRO over any number of workers. auto: deepspeed for several workers or zero > 0."""
    zero: int = 0
    """ZeRO stage: 0 replicates everything, 1 shards optimiser state and moving average, 2 also gradients, 3 also parameters."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.zero not in (0, 1, 2, 3):
            raise ValueError(f"engine.zero is {self.zero}, but ZeRO has the stages 0, 1, 2 and 3")
        if self.kind == "plain" and self.zero:
            raise ValueError(f"engine.zero {self.zero} has no effect with engine.kind plain; set it to 0, or engine.kind to deepspeed")


@dataclass(frozen=True, kw_only=True)
class TrackingConfig(Settings):
    """Where figures go besides the run folder."""

    prefix: ClassVar[str] = "tracking."

    kind: Literal["mlflow", "jsonl", "null"] = "mlflow"
    """mlflow: an MLflow run. jsonl: only the run folder's metrics.jsonl. null: nothing, not even that."""
    uri: str = ""
    """mlflow only: tracking server; empty for a sqlite store under the storage folder."""
    experiment: str = "elf"
    """mlflow only: experiment name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.experiment, "tracking.experiment")
        object.__setattr__(self, "uri", take_login(self.uri, "tracking.uri"))
        if self.uri and self.kind != "mlflow":
            raise ValueError(f"tracking.uri has no effect with tracking.kind {self.kind}; drop it, or set tracking.kind to mlflow")


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """Everything that decides a run. `--config RUN/config.json` reproduces one, `--print` shows it resolved."""

    prefix: ClassVar[str] = ""

    name: str = ""
    """Name of the run and of its folder: letters, digits and . _ + = @ , -. Empty for the recipe's name and a hash of the config, so that
    the same command resumes and another config makes another run."""
    storage: Path = Path("")
    """Folder (shared by all nodes) for data, runs and the tracking store; empty for $ELF_HOME, or ~/elf-runs."""
    seed: Seed = 0
    """Seed of initial weights, data order and every draw."""
    data: DataConfig = field(default_factory=DataConfig)
    codec: CodecConfig
    process: ProcessConfig
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    @property
    def engine_kind(self) -> Literal["plain", "deepspeed"]:
        """The engine that runs: ``engine.kind`` with auto resolved."""
        if self.engine.kind != "auto":
            return self.engine.kind
        return "deepspeed" if self.train.workers > 1 or self.engine.zero else "plain"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name:
            check_name(self.name, "name")
        if self.engine_kind == "plain" and self.train.workers > 1:
            raise ValueError(
                f"engine.kind plain runs in one process, but train.workers is {self.train.workers}; "
                "set train.workers to 1, or engine.kind to deepspeed"
            )
        if self.optim.warmup_steps > self.train.steps:
            raise ValueError(
                f"optim.warmup_steps {self.optim.warmup_steps} is more than train.steps {self.train.steps}: the learning rate would "
                f"never reach optim.lr; train longer, or warm up for less: --optim.warmup_steps {self.train.steps // 10}"
            )
