"""Weights of the authors' PyTorch code (github.com/lillian039/ELF, branch pytorch_elf): reading their files, renaming both ways.

The mathematics is the same, so that only names differ, and the two matrices of the token head, which they store (in, out).

Shapes: C latent channels, H width, V vocabulary, P prefix tokens of each kind.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from elf.nn.config import NetworkConfig

_RENAMED = {
    "self_cond_proj": "self_cond_proj",
    "text_proj.proj1": "text_proj.0",
    "text_proj.proj2": "text_proj.1",
    "t_emb_tokens": "time_tokens",
    "self_cond_cfg_tokens": "scale_tokens",
    "mode_tokens": "mode_tokens",
    "t_embedder.mlp_0": "time_embed.0",
    "t_embedder.mlp_2": "time_embed.2",
    "self_cond_cfg_embedder.mlp_0": "scale_embed.0",
    "self_cond_cfg_embedder.mlp_2": "scale_embed.2",
    "blocks": "trunk.blocks",
    "final_layer.norm_final": "x_head.norm",
    "final_layer.linear": "x_head.linear",
    "proj_kernel": "token_head.proj.weight",
    "proj_bias": "token_head.proj.bias",
    "unembed_kernel": "token_head.unembed.weight",
    "unembed_bias": "token_head.unembed.bias",
}
"""Their name, or a prefix of it that ends at a dot, to ours."""
_TRANSPOSED = ("proj_kernel", "unembed_kernel")
_TABLES = "feat_rope."  # rotary tables, a function of the sizes


@dataclass(frozen=True, kw_only=True)
class OfficialSizes:
    """What the shapes of a set of weights say about the network."""

    network: NetworkConfig
    channels: int
    vocab_size: int


def from_official(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State of our Denoiser from official parameters. Raises ValueError for a name that ELF's network does not have."""
    unknown, state = [], {}
    for name, value in params.items():
        ours = None if name.startswith(_TABLES) else _rename(name, _RENAMED)
        if ours is not None:
            state[ours] = value.T.contiguous() if name in _TRANSPOSED else value
        elif not name.startswith(_TABLES):
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"these weights have {len(unknown)} tensors that the network of ELF does not have ({_some(unknown)}); expected the "
            "weights of the authors' PyTorch code. If they come from a fork with another network, they cannot be imported"
        )
    return state


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``from_official``."""
    back = {ours: theirs for theirs, ours in _RENAMED.items()}
    params = {}
    for name, value in state.items():
        theirs = _rename(name, back)
        assert theirs is not None, f"{name} is not a parameter of the Denoiser"
        params[theirs] = value.T.contiguous() if theirs in _TRANSPOSED else value
    return params


def official_sizes(params: Mapping[str, Tensor]) -> OfficialSizes:
    """Sizes of the network that official parameters belong to.

    Raises ValueError when tensors needed for that are missing, or when they are of a network that ours cannot be."""
    needed = ("text_proj.proj1.weight", "t_emb_tokens", "self_cond_cfg_tokens", "mode_tokens", "unembed_kernel")
    missing = [name for name in (*needed, "blocks.0.attn.q_norm.weight") if name not in params]
    if missing:
        raise ValueError(
            f"these weights lack {_some(missing)}, so they are not a whole network of the authors' PyTorch code; give one of its "
            "checkpoints (checkpoint_N), or a .safetensors file with the same names"
        )
    bottleneck, channels = params["text_proj.proj1.weight"].shape
    counts = {name: params[name].shape[1] for name in ("t_emb_tokens", "self_cond_cfg_tokens", "mode_tokens")}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"these weights have different numbers of prefix tokens ({', '.join(f'{k} {v}' for k, v in counts.items())}), but "
            "our network has the same number of each, so they cannot be imported"
        )
    hidden, head_width = params["mode_tokens"].shape[2], params["blocks.0.attn.q_norm.weight"].shape[0]
    blocks = {int(match[1]) for name in params if (match := re.match(r"blocks\.(\d+)\.", name))}
    if blocks != set(range(len(blocks))):
        raise ValueError(f"these weights have the blocks {sorted(blocks)}, with a gap: the file is not whole; fetch it again")
    return OfficialSizes(
        network=NetworkConfig(
            hidden=hidden,
            depth=len(blocks),
            heads=hidden // head_width,
            bottleneck=bottleneck,
            prefix_tokens=counts["mode_tokens"],
        ),
        channels=channels,
        vocab_size=params["unembed_kernel"].shape[1],
    )


def load_official(path: Path, weights: Literal["ema", "raw"] = "ema") -> tuple[dict[str, Tensor], int | None]:
    """Official parameters on the CPU, float32, and the training step they are from (None where the file does not say).

    path: a checkpoint file of the authors' code, a .safetensors file, or a folder that holds either (the newest checkpoint_N).
    Only tensors and plain values are unpickled: a file that would run code is refused.
    Raises FileNotFoundError when there is nothing there, ValueError when it is something else."""
    path = _resolve(path)
    step: int | None = None
    if path.suffix == ".safetensors":
        if weights != "ema":
            raise ValueError(f"{path} holds one set of weights, so asking for the {weights} ones has no effect; drop that option")
        params: Any = _read_safetensors(path)
    else:
        content = _read_checkpoint(path)
        key = {"ema": "ema_params1", "raw": "params"}[weights]
        params = content.get(key) if isinstance(content, dict) else None
        if not isinstance(params, dict):
            found = ", ".join(map(str, list(content)[:8])) if isinstance(content, dict) else type(content).__name__
            raise ValueError(
                f"{path} has no {key!r}, where the authors' code keeps its {'averaged' if weights == 'ema' else 'raw'} weights "
                f"(found: {found}); give one of its checkpoints, or a .safetensors file of the weights"
            )
        step = content["step"] if isinstance(content.get("step"), int) else None
    bad = [str(name) for name, value in params.items() if not isinstance(value, Tensor)]
    if bad:
        raise ValueError(f"{path} has entries among its weights that are not tensors ({_some(bad)}): no checkpoint of ELF")
    return {str(name): value.float() for name, value in params.items()}, step


def _rename(name: str, table: Mapping[str, str]) -> str | None:
    """The other code's name: the longest prefix up to a dot that the table knows, replaced."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in table:
            return ".".join([table[prefix], *parts[length:]])
    return None


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _resolve(path: Path) -> Path:
    if path.is_dir():
        numbered = [(int(m[1]), p) for p in path.iterdir() if p.is_file() and (m := re.fullmatch(r"checkpoint_(\d+)", p.name))]
        tensors = sorted(path.glob("*.safetensors"))
        if not numbered and len(tensors) != 1:
            raise FileNotFoundError(
                f"the folder {path} has no file checkpoint_N and {len(tensors) or 'no'} .safetensors files, so it is not clear "
                "what to read; give the file itself"
            )
        return max(numbered)[1] if numbered else tensors[0]
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file or folder {path}. Give a checkpoint of the authors' PyTorch code or a .safetensors file; to "
            "fetch one from the Hugging Face hub write hub: before its name, such as "
            "hub:embedded-language-flows/ELF-B-owt-torch"
        )
    return path


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole .safetensors file ({error}); copy or fetch it again") from error


def _read_checkpoint(path: Path) -> Any:
    try:  # mapped, so that the optimiser state, twice the size of the weights, is never read
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{path} holds more than tensors and plain values, or is no PyTorch checkpoint, and was not loaded: reading such a "
            "file can run any code it carries. Checkpoints of the authors' code load without that; if you trust this one, "
            f"convert it to .safetensors where it was made. (PyTorch says: {' '.join(reason)[:200]})"
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is not a whole PyTorch checkpoint ({error}); copy or fetch it again") from error
