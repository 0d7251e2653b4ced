"""The command line of jobs/sample.py, and what it means for a given artefact."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
import tyro

from elf.artefact import CONFIG, Artefact
from elf.files import sha256_of
from elf.nn.config import Precision
from elf.sampling.config import SampleConfig
from elf.settings import Bounds, FreeText, Positive, Settings
from elf_platform.sampling.run import SampleRun, SourceFacts
from elf_platform.sampling.settings import SETTINGS, TOKEN_FREE, origin_words, sampler_settings, settings_words
from elf_platform.sampling.sources import Source, digest, encode_sources, read_sources
from elf_platform.version import code_version

DEFAULT_COUNT = SampleConfig().count


@dataclass(frozen=True, kw_only=True)
class SampleCommand(SampleConfig):
    """Draw text from a trained artefact: print it, or fill a folder with it. The sampler's settings count where they are ``given``, and
    are otherwise those that the artefact keeps."""

    prefix: ClassVar[str] = "--"

    artefact: Annotated[Path, tyro.conf.Positional]
    """A run by its name or folder, an artefact folder (RUN/artefact), or what jobs/import_elf.py wrote."""
    count: Annotated[
        Annotated[int, Bounds(least=1, most=100_000_000)] | None,
        tyro.conf.arg(help_behavior_hint=f"({DEFAULT_COUNT}; with sources, one for each)"),
    ] = None  # type: ignore[assignment]
    """Number of samples."""
    out: Path | None = None
    """Folder that a pool of Ray actors fills; the same command goes on where it was stopped. Without it the samples are printed."""
    compute_batch: Positive = 32
    """Samples that are computed together. Another value may change roundings in matrix products, and so a token here and there."""
    actors: Annotated[int, Bounds(least=0, most=100_000)] = 0
    """Actors that sample at once; 0: as many as the cluster has room for. Their number changes no byte."""
    threads: Annotated[int, Bounds(least=0, most=10_000)] = 0
    """CPU threads of an actor; 0: one (printing uses all). Another value may change roundings."""
    gpu: Literal["auto", "on", "off"] = "auto"
    """One GPU for each actor; auto uses GPUs where there are any."""
    precision: Precision = "fp32"
    """Arithmetic of the network's trunk."""
    compile: bool = False
    """torch.compile the network: a minute of compilation for each actor, so it pays on GPUs and for many samples."""
    sources: Path | None = None
    """What the texts are made from, one a line, row or record of a file in any format that data are prepared from: sources of a conditional
    model, prefixes for an autoregressive one."""
    source_column: str = ""
    """Column of the sources: a name, or where the first line holds none, a number from 1. Empty for that of the pairs that the
    model learned from, else "source", and for whole lines of .txt, which is tab-separated with a column."""
    prompt: FreeText | None = None
    """One source, given here."""
    per_source: Positive = 1
    """Samples for each source."""
    strict: bool = False
    """Refuse sources that are longer than the model takes, instead of cutting and counting them."""
    storage: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(default: $ELF_HOME, or ~/elf-runs)")] = None
    """Folder in which runs are found by their names."""
    given: Annotated[tuple[str, ...] | None, tyro.conf.Suppress] = None
    """Names of the sampler's settings that are the user's own; None: those that are not as they are by default."""

    def __post_init__(self) -> None:
        Settings.__post_init__(self)  # contradictions show when the artefact's settings are known
        if self.sources is not None and self.prompt is not None:
            raise ValueError("--sources and --prompt both give sources; give one of them")
        if self.prompt is not None and self.source_column:
            raise ValueError("--source_column is about a file of sources, but --prompt is given; leave it away")
        given = self.sources is not None or self.prompt is not None
        if given and self.count is not None:
            raise ValueError("--count is given by the sources; leave it away, and give --per_source for more samples of each")
        if not given and (self.per_source != 1 or self.strict or self.source_column):
            raise ValueError("--per_source, --source_column and --strict are about sources, but none are given; leave them away")
        if self.out is None and self.actors:
            raise ValueError("--actors is the number of actors that fill a folder, but the samples are to be printed; give --out FOLDER")

    @property
    def wishes(self) -> dict[str, Any]:
        """The sampler's settings that the user gives."""
        default = SampleConfig()
        names = self.given if self.given is not None else [n for n in SETTINGS if getattr(self, n) != getattr(default, n)]
        return {name: getattr(self, name) for name in names}

    def config(self, artefact: Artefact, count: int) -> SampleConfig:
        """The sampler's settings for ``count`` samples of an artefact; raises ValueError for contradictions."""
        return sampler_settings(artefact.sample, self.wishes, process=artefact.process.kind, count=count)


def with_given(command: SampleCommand, argv: Sequence[str]) -> SampleCommand:
    """The command that was parsed from ``argv``, knowing which of the sampler's settings stand there."""
    words = {word.partition("=")[0].removeprefix("--").replace("-", "_") for word in argv if word.startswith("--")}
    return dataclasses.replace(command, given=tuple(name for name in SETTINGS if name in words))


@dataclass(frozen=True, kw_only=True)
class Task:
    """A command that was checked against its artefact."""

    artefact: Path
    run: SampleRun
    config: SampleConfig
    sources: tuple[Source, ...]
    origin: str
    """Where the settings come from, in words."""

    @property
    def settings(self) -> str:
        """The sampler's settings and where they come from, in words."""
        return f"{settings_words(self.config, self.run.process)} ({self.origin})"

    def placed(self, *, device: str, compute_batch: int | None = None) -> "Task":
        """The same task for another device, or in other compute batches."""
        run = dataclasses.replace(self.run, device=device, compute_batch=compute_batch or self.run.compute_batch)
        return dataclasses.replace(self, run=run)

    @property
    def sizes(self) -> list[int]:
        """Samples of each part."""
        batch = self.run.compute_batch
        return [min(batch, self.config.count - start) for start in range(0, self.config.count, batch)]

    def ids(self, part: int) -> list[int]:
        """Ids of a part's compute batch: further ones fill the last batch up to the shape of the others."""
        return list(range(part * self.run.compute_batch, (part + 1) * self.run.compute_batch))

    def sources_of(self, part: int) -> list[Source]:
        """The source of each id; what fills the last batch takes the last one."""
        last = len(self.sources) - 1
        return [self.sources[min(i // self.run.sources.per_source, last)] for i in self.ids(part)] if self.sources else []


def check(command: SampleCommand, artefact: Artefact, *, threads: int, texts: Sequence[str] | None = None) -> Task:
    """What ``command`` asks of ``artefact``, on CPUs of ``threads`` threads. texts: sources that are in memory, instead of the command's.

    Raises ValueError when it cannot be done."""
    sizes, process = artefact.sizes, artefact.process
    source_length = sizes.source_length
    if not process.needs_codec:
        _check_token_settings(command, process.kind)
    process.check_sampling(command.config(artefact, DEFAULT_COUNT), conditional=bool(source_length))
    given = command.sources is not None or command.prompt is not None or texts is not None
    if source_length and not given:
        raise ValueError(
            f"{artefact.folder} is a conditional model: it turns a source of up to {source_length} tokens into a target, so it needs "
            "sources; give --sources FILE (one a line) or --prompt TEXT"
        )
    if given and not source_length and process.needs_codec:
        raise ValueError(
            f"{artefact.folder} was trained without sources, and the process {process.kind} cannot continue a text; leave --sources and "
            "--prompt away, or give the artefact of a conditional or an autoregressive run"
        )
    if given and process.needs_codec and artefact.codec is None:
        raise ValueError(
            f"{artefact.folder} has no codec, which encodes the sources of a conditional model; write the artefact again with its codec"
        )
    if command.compile and not process.needs_codec:
        raise ValueError(
            f"--compile does not pay for the process {process.kind}, whose rows grow token by token: each length would be compiled; "
            "leave it away"
        )
    where = "the given texts" if texts is not None else str(command.sources or "--prompt")
    texts = _texts(command, artefact) if texts is None else texts
    limit = source_length or sizes.length - 1
    sources = encode_sources(texts, artefact.tokenizer, limit=limit, strict=command.strict, where=where)
    count = len(sources) * command.per_source if given else command.count or DEFAULT_COUNT
    config = command.config(artefact, count)
    fewest_given = source_length or (1 if given else 0)  # a prefix leaves the rest of its row, however long it is
    settings = dataclasses.asdict(config)
    del settings["count"]
    run = SampleRun(
        artefact=sha256_of(artefact.folder / CONFIG), tokenizer=artefact.tokenizer.fingerprint, process=process.kind,
        weights=str(artefact.lineage.get("weights", "unknown")), settings=settings, compute_batch=command.compute_batch,
        length=sizes.length, target_length=sizes.length - fewest_given, precision=command.precision, device="cpu", threads=threads,
        compile=command.compile, torch=torch.__version__, code_version=code_version(),
        sources=SourceFacts(
            sha256=digest(texts), lines=len(sources), per_source=command.per_source,
            truncated=sum(source.truncated for source in sources), empty=sum(not source.tokens for source in sources),
        ) if given else SourceFacts(),
    )
    origin = origin_words(artefact.sample, command.wishes)
    return Task(artefact=artefact.folder, run=run, config=config, sources=tuple(sources), origin=origin)


def _check_token_settings(command: SampleCommand, kind: str) -> None:
    """Recipes may carry these along (``check_autoregressive``), but samples with and without them would pass for two runs."""
    for name in TOKEN_FREE:
        if (value := command.wishes.get(name)) is not None and value != (default := getattr(SampleConfig, name)):
            raise ValueError(
                f"--{name} {value} has no effect with the process {kind}, which draws token by token; leave it away (it is {default} then)"
            )


def _texts(command: SampleCommand, artefact: Artefact) -> list[str]:
    if command.prompt is not None:
        return [command.prompt]
    remembered = artefact.columns.source if artefact.columns else ""
    return read_sources(command.sources, command.source_column, remembered=remembered) if command.sources else []
