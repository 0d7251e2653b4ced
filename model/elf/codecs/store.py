"""How a codec lies on disk: codec.json (kind, settings, digest) beside codec.safetensors (weights). No pickle."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elf.files import committing_folder, sha256_of

FORMAT = 1
WEIGHTS, HEADER = "codec.safetensors", "codec.json"


@dataclass(frozen=True, kw_only=True)
class SavedCodec:
    """What a codec is made of: enough to build it again, with nothing from outside."""

    kind: str
    settings: dict[str, Any]  # plain JSON values
    tensors: dict[str, Tensor]  # on the CPU


def digest_of(saved: SavedCodec) -> str:
    """SHA-256 over kind, settings and weights; the device and the order of the tensors do not enter."""
    digest = hashlib.sha256(json.dumps([FORMAT, saved.kind, saved.settings], sort_keys=True).encode())
    for name in sorted(saved.tensors):
        tensor = saved.tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class DamagedCodec(ValueError):
    """A codec folder that is not as it was written."""


def write_codec(folder: Path, saved: SavedCodec) -> None:
    """Write a codec's folder, whole or not at all; one that is there is replaced.

    Raises ValueError, and touches nothing, when ``folder`` holds something else."""
    from safetensors.torch import save_file

    others = [path.name for path in folder.iterdir() if path.name not in (WEIGHTS, HEADER)] if folder.is_dir() else []
    if others:
        raise ValueError(f"{folder} holds {min(others)!r}, which is no part of a codec, so nothing was written there; give another folder")
    with committing_folder(folder) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in saved.tensors.items()}, temporary / WEIGHTS)
        record = {
            "format": FORMAT, "kind": saved.kind, "settings": saved.settings,
            "sha256": sha256_of(temporary / WEIGHTS), "fingerprint": digest_of(saved),
        }
        (temporary / HEADER).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def read_codec(folder: Path) -> SavedCodec:
    """Read what ``write_codec`` wrote.

    Raises FileNotFoundError when a file is missing, DamagedCodec when one was altered, ValueError when it is of another format."""
    from safetensors.torch import load_file

    weights, header = folder / WEIGHTS, folder / HEADER
    for path in (header, weights):
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} holds no whole codec: {path.name} is missing. A codec folder has {HEADER} and {WEIGHTS}, as a "
                "finished run leaves under its artefact's codec/; check the path, or train or save the codec again"
            )
    try:
        record = json.loads(header.read_text(encoding="utf-8"))
        kind, settings, version = record["kind"], record["settings"], record["format"]
        sha256, fingerprint = record["sha256"], record["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedCodec(
            f"{header} is not the header of a codec ({type(error).__name__}: {error}); expected JSON with format, kind, "
            "settings, sha256 and fingerprint. It was cut short or edited: copy the folder again from where it was written"
        ) from error
    if version != FORMAT:
        raise ValueError(f"{header} has format {version}, but {FORMAT} is read here; load it with the version that wrote it")
    found = sha256_of(weights)
    if found != sha256:
        raise DamagedCodec(
            f"{weights} has SHA-256 {found[:16]}..., but {HEADER} recorded {str(sha256)[:16]}... when it was written: the file "
            "was altered or damaged. Copy the folder again from where it was written, or train or save the codec again"
        )
    saved = SavedCodec(kind=str(kind), settings=settings, tensors=load_file(weights))
    if digest_of(saved) != fingerprint:
        raise DamagedCodec(
            f"the kind or the settings in {header} are not those that it was written with, so its states would be others. Copy "
            "the folder again from where it was written, or train or save the codec again"
        )
    return saved
