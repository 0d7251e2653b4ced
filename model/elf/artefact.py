"""The artefact of a run: a folder with all that sampling and evaluation need, and nothing that can run code (no pickle).

    config.json        process, network, sizes, lineage, how it is to be sampled, the columns of its pairs, format version, SHA-256 of every
                       other file
    model.safetensors  weights of the network
    tokenizer.json
    codec/             codec.json and codec.safetensors, where the process has a codec
"""

import dataclasses
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from elf.codecs import Codec, check_codec, load_codec
from elf.data.tokenizer import Tokenizer
from elf.files import inside, publish, sha256_of, temporary_folder
from elf.nn.config import NetworkConfig, Precision
from elf.processes import PROCESSES, Process
from elf.sampling.config import SampleConfig

FORMAT = 1
CONFIG, WEIGHTS, TOKENIZER, CODEC = "config.json", "model.safetensors", "tokenizer.json", "codec"

Settings = TypeVar("Settings")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a network that come from tokenizer, codec and data."""

    vocab_size: int  # ids the network can predict; a tokenizer may use fewer
    channels: int  # width of the clean states
    length: int  # tokens per row
    source_length: int = 0  # most tokens of a row that are a given source; 0: unconditional

    def __post_init__(self) -> None:
        if not 0 <= self.source_length < self.length:
            raise ValueError(
                f"sizes.source_length is {self.source_length}, but must be 0 (unconditional) or leave room for a target in rows of "
                f"{self.length} tokens"
            )

    @property
    def target_length(self) -> int:
        """Tokens that are generated, at most."""
        return self.length - self.source_length


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What source and text were called in the pairs that a conditional model learned from."""

    source: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """A loaded artefact; the network is in evaluation mode."""

    folder: Path
    process: Process
    network: nn.Module
    network_config: NetworkConfig
    sizes: Sizes
    tokenizer: Tokenizer
    codec: Codec | None
    lineage: dict[str, Any]
    sample: SampleConfig | None = None
    """The sampler's settings that it was trained to be sampled with; None in artefacts that do not say. The count is the reader's."""
    columns: Columns | None = None


def save_artefact(
    folder: Path, *, process: Process, network_config: NetworkConfig, network_state: Mapping[str, Tensor], sizes: Sizes,
    tokenizer: Tokenizer | Path, codec: Codec | None, lineage: Mapping[str, Any], sample: SampleConfig | None = None,
    columns: Columns | None = None, overwrite: bool = False,
) -> Path:
    """Write an artefact whole or not at all: into a hidden folder beside it, synced to disk, then renamed.

    tokenizer: the object, or the path of its tokenizer.json. lineage: JSON values; where the weights come from.
    Writing the same content again changes nothing. Returns the absolute folder.
    Raises ValueError when parts do not fit each other, or when ``folder`` holds something else and not ``overwrite``."""
    from safetensors.torch import save_file

    folder = Path(folder).absolute()
    tokenizer = Tokenizer.load(tokenizer) if isinstance(tokenizer, Path) else tokenizer
    with torch.device("meta"):
        network = _build(process, network_config, sizes, "fp32")
    _check_state(network, network_state, f"the artefact {folder} was not written")
    _check_parts(tokenizer.vocab_size, codec, sizes, f"the artefact {folder} was not written")
    with temporary_folder(folder) as temporary:
        # Cloned: weights that are views of one flat buffer share memory, which the format refuses.
        save_file({name: value.detach().cpu().clone().contiguous() for name, value in network_state.items()}, temporary / WEIGHTS)
        tokenizer.save(temporary / TOKENIZER)
        if codec is not None:
            codec.save(temporary / CODEC)
        config = {
            "format": FORMAT,
            "process": {"kind": process.kind, **dataclasses.asdict(cast(Any, process))},
            "network": dataclasses.asdict(network_config),
            "sizes": dataclasses.asdict(sizes),
            "tokenizer": {"vocab_size": tokenizer.vocab_size},
            "lineage": dict(lineage),
            **({"sample": _without_count(sample)} if sample is not None else {}),
            **({"columns": dataclasses.asdict(columns)} if columns is not None else {}),
            "files": {p.relative_to(temporary).as_posix(): sha256_of(p) for p in sorted(temporary.rglob("*")) if p.is_file()},
        }
        (temporary / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if not _stands(folder, temporary, overwrite):
            publish(temporary, folder)
    return folder


def load_artefact(folder: Path, *, device: torch.device | str = "cpu", precision: Precision = "fp32") -> Artefact:
    """Read and check an artefact; ``precision`` is the autocast of the network's trunk.

    Raises FileNotFoundError when there is no artefact, ValueError when it is damaged, altered or of another format."""
    folder = Path(folder).absolute()
    config = _read_config(folder)
    for name, expected in config["files"].items():
        _check_file(folder, name, expected)
    kind = config["process"]["kind"]
    if kind not in PROCESSES:
        raise ValueError(
            f"{folder / CONFIG} has a process {kind!r}, but this version knows {', '.join(PROCESSES)}; load it with the version "
            "of the code that wrote it"
        )
    settings = {key: value for key, value in config["process"].items() if key != "kind"}
    process = _settings(PROCESSES[kind], settings, folder, "process")
    network_config = _settings(NetworkConfig, config["network"], folder, "network")
    sizes = _settings(Sizes, config["sizes"], folder, "sizes")
    network = _build(process, network_config, sizes, precision)
    from safetensors.torch import load_file

    state = load_file(folder / WEIGHTS)
    _check_state(network, state, f"{folder / WEIGHTS} does not fit the network that {CONFIG} describes")
    network.load_state_dict(state)
    tokenizer = Tokenizer.load(folder / TOKENIZER)
    recorded = config["tokenizer"]["vocab_size"]
    if tokenizer.vocab_size != recorded:
        raise ValueError(
            f"{folder / TOKENIZER} has {tokenizer.vocab_size} ids, but the artefact was written with a tokenizer of {recorded}: "
            "its texts would be wrong. Put back the tokenizer that belongs to it, or copy the whole artefact again"
        )
    has_codec = any(name.startswith(f"{CODEC}/") for name in config["files"])
    codec = load_codec(folder / CODEC).to(device) if has_codec else None
    _check_parts(tokenizer.vocab_size, codec, sizes, f"{folder} cannot be used")
    return Artefact(
        folder=folder,
        process=process,
        network=network.to(device).eval(),
        network_config=network_config,
        sizes=sizes,
        tokenizer=tokenizer,
        codec=codec,
        lineage=config["lineage"],
        sample=_settings(SampleConfig, config["sample"], folder, "sample") if "sample" in config else None,
        columns=_settings(Columns, config["columns"], folder, "columns") if "columns" in config else None,
    )


def _without_count(sample: SampleConfig) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(sample).items() if name != "count"}


def _build(process: Process, network_config: NetworkConfig, sizes: Sizes, precision: Precision) -> nn.Module:
    return process.build_network(
        network_config, vocab_size=sizes.vocab_size, channels=sizes.channels, length=sizes.length, precision=precision
    )


def _check_state(network: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    faults = {
        "missing": [f"{name} {shape}" for name, shape in expected.items() if name not in found],
        "not expected": [f"{name} {shape}" for name, shape in found.items() if name not in expected],
        "of another shape": [
            f"{name} {found[name]} instead of {shape}" for name, shape in expected.items() if found.get(name, shape) != shape
        ],
    }
    said = [
        f"{len(names)} {fault} ({'; '.join(names[:3])}{'; ...' if names[3:] else ''})" for fault, names in faults.items() if names
    ]
    if said:
        raise ValueError(
            f"{what}: of {len(expected)} tensors, {', and '.join(said)}. The weights are of another network: check the network "
            "settings and sizes, or take the weights that were saved with them"
        )


def _check_parts(tokenizer_size: int, codec: Codec | None, sizes: Sizes, what: str) -> None:
    if tokenizer_size > sizes.vocab_size:
        raise ValueError(
            f"{what}: the tokenizer has {tokenizer_size} ids, but the network knows {sizes.vocab_size}; use the tokenizer that "
            "the network was trained with"
        )
    if codec is not None and codec.channels != sizes.channels:
        raise ValueError(
            f"{what}: the codec's states have {codec.channels} channels, but the network takes {sizes.channels}; use the codec "
            "that the network was trained with"
        )
    if codec is not None:
        check_codec(codec, vocab_size=tokenizer_size, length=sizes.length)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no artefact at {folder}: it has no {CONFIG}. Give the artefact folder of a finished run (RUN/artefact), "
            "or one that an import wrote"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): it was cut short or edited; copy the artefact again") from error
    version = config.get("format") if isinstance(config, dict) else None
    if version != FORMAT:
        raise ValueError(
            f"{path} has format {version}, but this version reads format {FORMAT}; load it with the version of the code that "
            "wrote it"
            if version is not None
            else f"{path} is JSON, but not the configuration of an artefact; give the artefact folder of a finished run"
        )
    tables = {key: config.get(key) for key in ("process", "network", "sizes", "tokenizer", "lineage", "files")}
    tables |= {key: config[key] for key in ("sample", "columns") if key in config}
    whole = all(isinstance(value, dict) for value in tables.values()) and "kind" in tables["process"]
    if not whole or "vocab_size" not in tables["tokenizer"] or not {WEIGHTS, TOKENIZER} <= tables["files"].keys():
        raise ValueError(f"{path} lacks parts of an artefact's configuration: it was edited; copy the artefact again")
    return cast(dict[str, Any], config)


def _check_file(folder: Path, name: str, expected: str) -> None:
    path = inside(folder, name, links=True)
    if not path.is_file():
        raise ValueError(
            f"the artefact {folder} is not whole: {name}, which its {CONFIG} lists, is missing. Copy the whole folder again from "
            "where it was written"
        )
    if (found := sha256_of(path)) != expected:
        raise ValueError(
            f"{path} has SHA-256 {found[:16]}..., but {CONFIG} recorded {str(expected)[:16]}... when the artefact was written: "
            "the file was altered or damaged. Copy the whole folder again from where it was written"
        )


def _settings(cls: type[Settings], plain: Mapping[str, Any], folder: Path, where: str) -> Settings:
    """The settings dataclass from its JSON form; missing keys take their defaults, so that settings can be added later."""
    fields = {field.name: field for field in dataclasses.fields(cast(Any, cls)) if field.init}
    for key in plain:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"the nearest known one is {near[0]}" if near else f"known are {', '.join(fields)}"
            raise ValueError(f"{folder / CONFIG} has an unknown setting {where}.{key}; {hint}. It was written by another version")
    try:
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} has settings that do not hold together: {error}") from error


def _stands(folder: Path, written: Path, overwrite: bool) -> bool:
    """Whether ``folder`` holds the very artefact that was just written, whole. Raises ValueError when it is not to be replaced."""
    if not folder.is_dir():
        if folder.exists():
            raise ValueError(f"{folder} is a file, but an artefact is a folder; give another name")
        return False
    if not any(folder.iterdir()):
        return False
    existing = folder / CONFIG
    if not existing.is_file():
        raise ValueError(f"{folder} is not empty and holds no artefact, so nothing was written there; give another folder")
    same = existing.read_bytes() == (written / CONFIG).read_bytes()
    if not same and not overwrite:
        raise ValueError(f"{folder} holds another artefact already, which was left as it is; give another folder, or ask for overwriting")
    return same and is_whole(folder)


def is_whole(folder: Path) -> bool:
    """Whether the artefact is there as it was written, by the hashes of its files."""
    try:
        for name, expected in _read_config(folder)["files"].items():
            _check_file(folder, name, expected)
    except (OSError, ValueError):
        return False
    return True
