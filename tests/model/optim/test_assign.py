"""Groups of the published networks, and the table that shows them."""

import pytest
import torch

from elf.nn.config import NetworkConfig
from elf.nn.denoiser import Denoiser
from elf.optim import OptimConfig, assign_groups, describe_groups


@pytest.mark.parametrize(
    ("hidden", "depth", "heads", "matrices", "others"),
    [(768, 12, 12, 58, 109), (1056, 24, 16, 106, 205), (1280, 32, 16, 138, 269)],
    ids=["B", "M", "L"],
)
def test_elf_presets_have_the_published_groups(hidden: int, depth: int, heads: int, matrices: int, others: int) -> None:
    """Counts of elf.md B; built without memory."""
    with torch.device("meta"):
        network = Denoiser(NetworkConfig(hidden=hidden, depth=depth, heads=heads), channels=512, vocab_size=32100, length=16)
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
    groups = list(assign_groups(shapes, OptimConfig(name="muon")).values())
    assert (groups.count("muon"), groups.count("adam")) == (matrices, others)
    assert set(assign_groups(shapes, OptimConfig(name="adamw")).values()) == {"adamw"}


def test_lookup_tables_are_not_orthogonalised() -> None:
    shapes = {"token_embedding.weight": (9, 4), "start_embedding": (1, 4), "time_embed.weight": (9, 4), "unembed.weight": (9, 4)}
    assert assign_groups(shapes, OptimConfig(name="muon")) == {
        "token_embedding.weight": "adam", "start_embedding": "adam", "time_embed.weight": "muon", "unembed.weight": "muon",
    }


def test_the_table_shows_every_tensor_and_the_totals() -> None:
    shapes = {"proj.weight": (12, 3), "proj.bias": (12,), "tokens": (1, 4, 3)}
    lines = describe_groups(shapes, OptimConfig(name="muon")).splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["tensor", "shape", "group", "factor"],
        ["proj.weight", "12", "x", "3", "muon", "2.000"],
        ["proj.bias", "12", "adam", "1.000"],
        ["tokens", "1", "x", "4", "x", "3", "adam", "1.000"],
    ]
    assert lines[4:] == ["muon: 1 tensors, 36 values", "adam: 2 tensors, 24 values"]
