"""Which optimiser rule each parameter gets. Adding an optimiser is one file with its rules and one line in ``OPTIMIZERS``."""

import math
from collections.abc import Mapping

from elf.optim.adam import ADAMW
from elf.optim.config import OptimConfig
from elf.optim.muon import MUON
from elf.optim.rules import Recipe

OPTIMIZERS: dict[str, Recipe] = {"muon": MUON, "adamw": ADAMW}


def assign_groups(named_shapes: Mapping[str, tuple[int, ...]], config: OptimConfig) -> dict[str, str]:
    """Group of every parameter, by its name and whole shape: a function of nothing else, so that all ranks agree."""
    assign = OPTIMIZERS[config.name].assign
    return {name: assign(name, tuple(shape)) for name, shape in named_shapes.items()}


def orthogonalised(named_shapes: Mapping[str, tuple[int, ...]], config: OptimConfig) -> dict[str, tuple[int, int]]:
    """Shapes of the parameters whose rule needs whole matrices."""
    groups, rules = assign_groups(named_shapes, config), OPTIMIZERS[config.name].rules
    return {name: (shape[0], shape[1]) for name, shape in named_shapes.items() if rules[groups[name]].whole_matrices}


def describe_groups(named_shapes: Mapping[str, tuple[int, ...]], config: OptimConfig) -> str:
    """Table of tensor, shape, group and update scale, one line per parameter, then tensors and values per group."""
    groups, rules = assign_groups(named_shapes, config), OPTIMIZERS[config.name].rules
    rows = [("tensor", "shape", "group", "factor")]
    for name, shape in named_shapes.items():
        factor = rules[groups[name]].factor(tuple(shape))
        rows.append((name, " x ".join(map(str, shape)), groups[name], f"{factor:.3f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for group in rules:
        members = [name for name in named_shapes if groups[name] == group]
        values = sum(math.prod(named_shapes[name]) for name in members)
        lines.append(f"{group}: {len(members)} tensors, {values:,} values")
    return "\n".join(lines)

