"""From a checkpoint of the authors' PyTorch code to an artefact that every job here reads."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from elf.artefact import Sizes, save_artefact
from elf.codecs import T5Config
from elf.codecs.hub import hub_folder, is_hub
from elf.data.tokenizer import load_tokenizer
from elf.official import OfficialSizes, from_official, load_official, official_sizes
from elf.processes import EmbeddedFlow
from elf.settings import Bounds, Settings
from elf_platform.recipes import RECIPES
from elf_platform.version import code_version

_CONDITIONAL = EmbeddedFlow(decoder_noise_scale=1.0, loss_on_padding=True)
_TASKS = {"owt": (EmbeddedFlow(), 1024, 0), "de-en": (_CONDITIONAL, 128, 64), "xsum": (_CONDITIONAL, 1088, 1024)}
"""Process, row length and source length of the published models (elf.md A, B)."""
_RECIPES = {"owt": "owt-elf-b", "de-en": "wmt14-de-en", "xsum": "xsum"}
"""The recipe of each task, whose sampler the published figures were made with (elf.md C.2)."""


@dataclass(frozen=True, kw_only=True)
class ImportConfig(Settings):
    """What to import, and what a checkpoint of the authors' code does not say itself."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """A checkpoint file of the authors' PyTorch code (checkpoint_N), a .safetensors file with its parameter names, or a folder
    with either; hub:NAME fetches one from the Hugging Face hub, such as hub:embedded-language-flows/ELF-B-owt-torch."""
    out: Path
    """Folder of the artefact."""
    task: Literal["owt", "de-en", "xsum"] = "owt"
    """Published task whose settings and row length it was trained with."""
    length: Annotated[int, Bounds(least=0, most=2**31 - 1)] = 0
    """Tokens per row where the model was trained with another number than the task's; 0 for that of the task."""
    preset: Literal["any", "B", "M", "L"] = "any"
    """Refuse weights that are not of this size; any takes all sizes. Sizes are read off the weights in either case."""
    weights: Literal["ema", "raw"] = "ema"
    """Averaged weights, which all published numbers use, or those of the last step."""
    tokenizer: str = "hub:google-t5/t5-small"
    """tokenizer.json, the folder that holds one, or hub:NAME."""
    codec: str = "hub:google-t5/t5-small"
    """T5 encoder that goes into the artefact: a folder or hub:NAME. none leaves it out; unconditional sampling does without."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length and self.length <= (source_length := _TASKS[self.task][2]):
            raise ValueError(
                f"length is {self.length}, which leaves no target: the task {self.task} gives the first {source_length} tokens of a row to "
                "the source; give a greater length, or 0 for that of the task"
            )


def import_official(config: ImportConfig) -> tuple[Path, OfficialSizes]:
    """Writes the artefact; returns its folder and the sizes found.

    Raises FileNotFoundError or ValueError when the source is missing, unsafe to read, or not what the settings say."""
    params, step = load_official(_source_path(config.source), config.weights)
    found = official_sizes(params)
    if config.preset != "any":
        _check_preset(found, config.preset)
    process, length, source_length = _TASKS[config.task]
    tokenizer = load_tokenizer(config.tokenizer)
    codec = None if config.codec == "none" else T5Config(source=config.codec).build(vocab_size=tokenizer.vocab_size)
    lineage = {
        "run": f"import of {config.source}",
        "step": step,
        "weights": config.weights,
        "code_version": code_version(),
        "data_sha256": None,
        "tokenizer_sha256": tokenizer.fingerprint,
    }
    folder = save_artefact(
        config.out,
        process=process,
        network_config=found.network,
        network_state=from_official(params),
        sizes=Sizes(
            vocab_size=found.vocab_size, channels=found.channels, length=config.length or length, source_length=source_length
        ),
        tokenizer=tokenizer,
        codec=codec,
        lineage=lineage,
        sample=RECIPES[_RECIPES[config.task]]().sample,
    )
    return folder, found


def _source_path(source: str) -> Path:
    if not is_hub(source):
        return Path(source).expanduser()
    return hub_folder(
        source,
        setting="the source",
        way_out="fetch its checkpoint_N elsewhere and give the path of that file",
        files=("checkpoint_*", "*.safetensors"),
        is_whole=lambda folder: any(folder.glob("checkpoint_*")) or any(folder.glob("*.safetensors")),
    )


def _check_preset(found: OfficialSizes, preset: str) -> None:
    expected = RECIPES[f"owt-elf-{preset.lower()}"]().network
    if replace(found.network, dropout=expected.dropout) != expected:
        raise ValueError(
            f"these weights are of a network with hidden {found.network.hidden}, depth {found.network.depth} and heads "
            f"{found.network.heads}, but preset {preset} has {expected.hidden}, {expected.depth} and {expected.heads}; give the "
            "right preset, or leave it out"
        )
