"""Checkpoints: any layout to any layout, and nothing broken is ever read."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elf.optim import ParamSlice
from elf_platform.train.checkpoint import (
    CheckpointReader,
    commit,
    latest,
    prepare_folder,
    problem_with,
    prune,
    write_rank_file,
)

SHAPES = {"a.weight": (5, 3), "a.bias": (5,), "b": (1, 2, 4)}


def values(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {f"{kind}/{name}": torch.randn(shape, generator=generator) for kind in ("weight", "ema") for name, shape in SHAPES.items()}


def layout(cuts: dict[str, list[int]], ranks: int) -> list[list[tuple[str, int, int]]]:
    """Pieces of each rank from the points at which each tensor is cut."""
    pieces: list[list[tuple[str, int, int]]] = [[] for _ in range(ranks)]
    for name, shape in SHAPES.items():
        size = torch.Size(shape).numel()
        points = [0, *sorted(min(c, size) for c in cuts[name]), size]
        for rank in range(ranks):
            pieces[rank].append((name, points[rank], points[rank + 1]))
    return pieces


def write(root: Path, step: int, pieces: list[list[tuple[str, int, int]]]) -> Path:
    data, folder, files = values(step), prepare_folder(root, step), []
    for rank, held in enumerate(pieces):
        flat = torch.cat([data[f"weight/{n}"].flatten()[a:b] for n, a, b in held])  # as ZeRO holds them: views of one buffer
        slices, state, offset = [], {}, 0
        for name, start, stop in held:
            view = flat[offset : offset + stop - start]
            offset += stop - start
            slices.append(ParamSlice(name=name, shape=SHAPES[name], start=start, stop=stop, value=view))
            state[f"weight/{name}"], state[f"ema/{name}"] = view, data[f"ema/{name}"].flatten()[start:stop]
        files.append(write_rank_file(folder, rank, slices, state))
    return commit(root, folder, step, {"counters": {"step": step}, "time_counts": []}, files)


CUTS = st.fixed_dictionaries({name: st.lists(st.integers(0, 15), min_size=2, max_size=2) for name in SHAPES})


@settings(max_examples=25, deadline=None)
@given(CUTS, CUTS)
def test_any_layout_loads_into_any_other(tmp_path_factory: pytest.TempPathFactory, old: dict, new: dict) -> None:
    root = tmp_path_factory.mktemp("checkpoints")
    write(root, 3, layout(old, 3))
    reader = CheckpointReader(latest(root))
    expected = values(3)
    for held in layout(new, 3):
        slices = [ParamSlice(name=n, shape=SHAPES[n], start=a, stop=b, value=torch.zeros(b - a)) for n, a, b in held]
        state = {f"weight/{s.name}": s.value for s in slices} | {f"ema/{s.name}": torch.zeros(s.stop - s.start) for s in slices}
        reader.restore(slices, state)
        for s in slices:
            for kind in ("weight", "ema"):
                assert torch.equal(state[f"{kind}/{s.name}"], expected[f"{kind}/{s.name}"].flatten()[s.start : s.stop])
    assert all(torch.equal(reader.whole("ema")[n], expected[f"ema/{n}"]) for n in SHAPES)


def damage(folder: Path, how: str) -> None:
    weights = folder / "rank-00000.safetensors"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-7])
    elif how == "bit flipped":
        data = bytearray(weights.read_bytes())
        data[-5] ^= 1
        weights.write_bytes(data)
    elif how == "no marker":
        (folder / "COMMITTED").unlink()
    elif how == "half a marker":
        (folder / "COMMITTED").write_text((folder / "COMMITTED").read_text()[:20])
    elif how == "a file gone":
        weights.unlink()
    elif how == "another format":
        state = json.loads((folder / "state.json").read_text()) | {"format": 99}
        (folder / "state.json").write_text(json.dumps(state))


@pytest.mark.parametrize("how", ["truncated", "bit flipped", "no marker", "half a marker", "a file gone", "another format"])
def test_a_damaged_checkpoint_is_passed_over_for_the_last_good_one_and_said_so(tmp_path: Path, how: str) -> None:
    whole = layout({name: [99, 99] for name in SHAPES}, 1)
    for step in (10, 20):
        write(tmp_path, step, whole)
    damage(tmp_path / "step-00000020", how)
    said: list[str] = []
    found = latest(tmp_path, said.append)
    assert found is not None and found.step == 10
    assert len(said) == 1 and "step-00000020" in said[0] and "Passing over" in said[0]


def test_nothing_valid_is_none(tmp_path: Path) -> None:
    assert latest(tmp_path / "missing") is None
    (tmp_path / "step-00000001").mkdir()
    assert latest(tmp_path, lambda _: None) is None
    assert "marker" in (problem_with(tmp_path / "step-00000001") or "")


def test_an_interrupted_save_leaves_nothing_that_counts(tmp_path: Path) -> None:
    whole = layout({name: [99, 99] for name in SHAPES}, 1)
    write(tmp_path, 5, whole)
    prepare_folder(tmp_path, 6)
    assert latest(tmp_path).step == 5
    write(tmp_path, 6, whole)
    assert latest(tmp_path).step == 6


def test_pruning_keeps_the_newest(tmp_path: Path) -> None:
    whole = layout({name: [99, 99] for name in SHAPES}, 1)
    for step in (1, 2, 3, 4):
        write(tmp_path, step, whole)
    prune(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 1, layout({name: [99, 99] for name in SHAPES}, 1))
    reader = CheckpointReader(latest(tmp_path))
    with pytest.raises(ValueError, match="another network"):
        reader.read("weight", "c.weight", 0, 4)
    with pytest.raises(ValueError, match="no momentum of b"):
        reader.read("momentum", "b", 0, 4)
