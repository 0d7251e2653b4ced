"""Floating-point operations of a training step, for model FLOP utilisation.

Formula (docs/metrics.md): a matrix product with an [a, b] weight costs 2ab per token forward and 4ab backward; attention costs
4 N H per token and block forward, twice that backward. Embedding lookups, norms and the frozen codec are not counted, nor is anything
recomputed: utilisation is of the operations that the objective needs.
"""

import time

import torch
from torch import nn

from elf.nn.denoiser import Denoiser
from elf.nn.token_model import TokenModel
from elf.processes import EmbeddedFlow, Process

_PEAK_BF16 = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "A10G": 70e12, "L40S": 362e12, "L4": 121e12, "B200": 2250e12}
"""Dense bf16 tensor-core peak by part of the device name (vendor data sheets, no sparsity)."""


def _matrix_elements(module: nn.Module) -> int:
    return sum(m.in_features * m.out_features for m in module.modules() if isinstance(m, nn.Linear))


def flops_per_row(process: Process, network: nn.Module) -> float:
    """Forward and backward operations that one row of one step needs, averaged over the process's branches."""
    if isinstance(network, Denoiser):
        assert isinstance(process, EmbeddedFlow)
        config = network.config
        positions = network.length + 3 * config.prefix_tokens
        trunk = positions * (2 * _matrix_elements(network.trunk) + 4 * config.depth * positions * config.hidden)
        stem = network.length * 2 * (_matrix_elements(network.self_cond_proj) + _matrix_elements(network.text_proj))
        x_head = network.length * 2 * _matrix_elements(network.x_head)
        token_head = network.length * 2 * _matrix_elements(network.token_head)
        flow_share = 1 - process.decoder_prob
        first_pass = flow_share * process.self_cond_prob * (trunk + stem + x_head)
        return 3 * (trunk + stem + flow_share * x_head + process.decoder_prob * token_head) + first_pass
    assert isinstance(network, TokenModel)
    positions = network.length
    attention = 4 * network.config.depth * positions * network.config.hidden
    return 3.0 * positions * (2 * _matrix_elements(network) + attention)


def peak_flops(device: torch.device, precision: str = "fp32") -> float:
    """Peak operations per second of the device: the data sheet's for known GPUs (bf16), else measured with a matrix product.

    A measured peak makes utilisation comparable within a machine, not between machines."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for part, peak in _PEAK_BF16.items():
            if part in name:
                return peak
    return _measured_peak(device, torch.bfloat16 if precision == "bf16" else torch.float32)


def _measured_peak(device: torch.device, dtype: torch.dtype, size: int = 768, repeats: int = 8) -> float:
    a = torch.ones(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
