"""Six steps of the official optimiser on recorded gradients (tests/golden/muon.safetensors)."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from elf.optim import OptimConfig, Optimizer, ParamSlice

GOLDEN = Path(__file__).parent / "muon.safetensors"
TRANSPOSED = "unembed_kernel"  # stored (in, out) in the record, where our matrices are (out, in)


def test_weights_follow_the_official_optimiser() -> None:
    record = {
        name: value.T.contiguous() if name.endswith(TRANSPOSED) else value for name, value in load_file(GOLDEN).items()
    }
    names = [name.removeprefix("param0.") for name in record if name.startswith("param0.")]
    weights = {name: record[f"param0.{name}"].clone() for name in names}
    slices = [
        ParamSlice(name=n, shape=tuple(w.shape), start=0, stop=w.numel(), value=w.view(-1)) for n, w in weights.items()
    ]
    optimizer = Optimizer(slices, OptimConfig(name="muon", lr=0.02))
    assert optimizer.groups == {
        "a.weight": "muon", "b.weight": "muon", TRANSPOSED: "muon", "a.bias": "adam", "tok": "adam",
    }
    for step in range(6):
        optimizer.step([record[f"grad{step}.{name}"].reshape(-1) for name in names], lr=0.02)
        for name in names:
            torch.testing.assert_close(weights[name], record[f"param{step + 1}.{name}"], atol=1e-6, rtol=0)
