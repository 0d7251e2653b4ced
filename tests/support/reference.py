"""Recorded numbers of the official PyTorch implementation and the network they belong to."""

import json
import struct
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from elf.nn.config import NetworkConfig
from elf.nn.denoiser import Denoiser
from elf.processes import EmbeddedFlow

FOLDER = Path(__file__).parents[1] / "golden"
RENAMED = {
    "text_proj.proj1": "text_proj.0", "text_proj.proj2": "text_proj.1", "t_emb_tokens": "time_tokens",
    "self_cond_cfg_tokens": "scale_tokens", "t_embedder.mlp_0": "time_embed.0", "t_embedder.mlp_2": "time_embed.2",
    "self_cond_cfg_embedder.mlp_0": "scale_embed.0", "self_cond_cfg_embedder.mlp_2": "scale_embed.2", "blocks.": "trunk.blocks.",
    "final_layer.norm_final": "x_head.norm", "final_layer.linear": "x_head.linear", "proj_kernel": "token_head.proj.weight",
    "proj_bias": "token_head.proj.bias", "unembed_kernel": "token_head.unembed.weight", "unembed_bias": "token_head.unembed.bias",
}


def load(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of one recorded file."""
    path = FOLDER / f"{name}.safetensors"
    with path.open("rb") as handle:
        size = struct.unpack("<Q", handle.read(8))[0]
        header = json.loads(handle.read(size))
    return load_file(path), header["__metadata__"]


def ours(name: str, value: Tensor) -> tuple[str, Tensor]:
    """A recorded parameter or gradient under our name and layout: the token head's matrices are stored (in, out) there."""
    for old, new in RENAMED.items():
        if name.startswith(old):
            return name.replace(old, new, 1), value.T if old.endswith("_kernel") else value
    return name, value


def renamed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """All tensors under ``prefix`` by our names."""
    return dict(ours(key.removeprefix(prefix), value) for key, value in tensors.items() if key.startswith(prefix))


def network(tensors: dict[str, Tensor], meta: dict[str, str]) -> Denoiser:
    """Our network with the recorded weights."""
    config = NetworkConfig(
        hidden=int(meta["hidden"]), depth=int(meta["depth"]), heads=int(meta["heads"]), bottleneck=int(meta["bottleneck"]),
        prefix_tokens=int(meta["time_tokens"]),
    )
    net = Denoiser(config, channels=int(meta["channels"]), vocab_size=int(meta["vocab"]), length=int(meta["length"]))
    net.load_state_dict(renamed(tensors, "param."))
    return net


def process(meta: dict[str, str]) -> EmbeddedFlow:
    """Our process with the recorded settings."""
    return EmbeddedFlow(
        noise_scale=float(meta["noise_scale"]), t_eps=float(meta["t_eps"]), time_mean=float(meta["p_mean"]),
        time_std=float(meta["p_std"]), decoder_level_mean=float(meta["decoder_p_mean"]),
        decoder_level_std=float(meta["decoder_p_std"]), decoder_noise_scale=float(meta.get("decoder_noise_scale", 5.0)),
        self_cond_prob=float(meta["self_cond_prob"]), guidance_min=float(meta["sc_min"]), guidance_max=float(meta["sc_max"]),
    )


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected magnitude."""
    return float((found - expected).detach().abs().max() / expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny))
