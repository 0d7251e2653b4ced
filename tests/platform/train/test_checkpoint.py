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
    Retention,
    clear_unfinished,
    commit,
    latest,
    pieces_of,
    problem_with,
    prune,
    write_rank_file,
    writing_folder,
)
from elf_platform.train.saver import Saver, Saving

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


def write(root: Path, step: int, pieces: list[list[tuple[str, int, int]]], seed: int | None = None, **state_json: object) -> Path:
    data, folder, files = values(step if seed is None else seed), writing_folder(root, step, "test"), []
    folder.mkdir(parents=True)
    for rank, held in enumerate(pieces):
        flat = torch.cat([data[f"weight/{n}"].flatten()[a:b] for n, a, b in held])  # as ZeRO holds them: views of one buffer
        slices, state, offset = [], {}, 0
        for name, start, stop in held:
            view = flat[offset : offset + stop - start]
            offset += stop - start
            slices.append(ParamSlice(name=name, shape=SHAPES[name], start=start, stop=stop, value=view))
            state[f"weight/{name}"], state[f"ema/{name}"] = view, data[f"ema/{name}"].flatten()[start:stop]
        copies = {key: value.clone() for key, value in state.items() if value.numel()}
        files.append(write_rank_file(folder, rank, copies, pieces_of(slices)))
    return commit(root, folder, step, {"counters": {"step": step}, "time_counts": [], **state_json}, files)


WHOLE = layout({name: [99, 99] for name in SHAPES}, 1)


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
    for step in (10, 20):
        write(tmp_path, step, WHOLE)
    damage(tmp_path / "step-00000020", how)
    said: list[str] = []
    found = latest(tmp_path, said.append)
    assert found is not None and found.step == 10
    assert len(said) == 1 and "step-00000020" in said[0] and "Passing over" in said[0]


def test_a_run_without_checkpoints_starts_and_one_with_damaged_ones_does_not(tmp_path: Path) -> None:
    assert latest(tmp_path / "missing") is None and latest(tmp_path) is None
    for step in (1, 2):
        damage(write(tmp_path, step, WHOLE), "bit flipped")
    with pytest.raises(ValueError, match="none that can be resumed from") as error:
        latest(tmp_path, lambda _: None)
    assert "step-00000001" in str(error.value) and "step-00000002" in str(error.value) and "--name" in str(error.value)


def test_an_interrupted_save_leaves_nothing_that_counts(tmp_path: Path) -> None:
    write(tmp_path, 5, WHOLE)
    unfinished = writing_folder(tmp_path, 6, "killed")
    unfinished.mkdir()
    (unfinished / "rank-00000.safetensors").write_bytes(b"half")
    assert latest(tmp_path).step == 5
    write(tmp_path, 6, WHOLE)
    assert latest(tmp_path).step == 6
    clear_unfinished(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000005", "step-00000006"]


def test_a_valid_checkpoint_is_never_replaced_and_a_damaged_one_is(tmp_path: Path) -> None:
    first = write(tmp_path, 5, WHOLE)
    before = (first / "COMMITTED").read_text()
    assert write(tmp_path, 5, WHOLE, seed=77) == first and (first / "COMMITTED").read_text() == before
    damage(first, "bit flipped")
    write(tmp_path, 5, WHOLE, seed=77)
    assert problem_with(first) is None and (first / "COMMITTED").read_text() != before
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005"]


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (Retention(last=2), [5, 6]),
        (Retention(last=1, best=True), [2, 6]),
        (Retention(last=1, every=3), [3, 6]),
        (Retention(last=2, best=True, every=4), [2, 4, 5, 6]),
    ],
)
def test_pruning_keeps_the_newest_the_best_and_every_so_many(tmp_path: Path, keep: Retention, left: list[int]) -> None:
    for step, loss in zip(range(1, 7), (3.0, 1.0, None, 2.0, None, 1.5), strict=True):
        write(tmp_path, step, WHOLE, valid_loss=loss)
    prune(tmp_path, keep, newest=6)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"step-{step:08d}" for step in left]


def test_pruning_spares_what_was_just_committed_and_bears_with_what_is_broken(tmp_path: Path) -> None:
    """A damaged newer one takes no place; a loss that is not a number is no best; an unreadable state is no reason to stop."""
    for step, loss in ((1, float("nan")), (2, 1.0), (3, 2.0), (9, 0.5)):
        write(tmp_path, step, WHOLE, valid_loss=loss)
    damage(tmp_path / "step-00000009", "bit flipped")
    (tmp_path / "step-00000001/state.json").write_text("{")
    (tmp_path / "step-00000002.bak").mkdir()
    write(tmp_path, 4, WHOLE)
    prune(tmp_path, Retention(last=1, best=True, every=100), newest=4)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["step-00000002", "step-00000002.bak", "step-00000004", "step-00000009"]
    assert latest(tmp_path, lambda _: None).step == 4


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 1, WHOLE)
    reader = CheckpointReader(latest(tmp_path))
    with pytest.raises(ValueError, match="another network"):
        reader.read("weight", "c.weight", 0, 4)
    with pytest.raises(ValueError, match="no momentum of b"):
        reader.read("momentum", "b", 0, 4)


def test_a_save_clears_what_failed_before_it_and_never_what_others_write_after_it(tmp_path: Path) -> None:
    """The main rank's thread may begin late, when another rank is at the next save already."""
    problems: list[str] = []
    saving = Saving(root=tmp_path, token="t1", rank=0, writers=1, keep=Retention(), patience_s=5.0)
    saver = Saver(saving, on_problem=lambda step, problem: problems.append(problem))
    failed, of_another_attempt = writing_folder(tmp_path, 10, "t1"), writing_folder(tmp_path, 10, "t2")
    ahead = writing_folder(tmp_path, 30, "t1")
    for folder in (failed, of_another_attempt, ahead):
        folder.mkdir()
        (folder / "rank-00001.safetensors").write_bytes(b"of rank 1")
    value = torch.ones(4)
    saver.save(20, [ParamSlice(name="a", shape=(4,), start=0, stop=4, value=value)], {"weight/a": value}, {})
    assert saver.wait() is None and problems == []
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["step-00000020", of_another_attempt.name, ahead.name])
    assert (ahead / "rank-00001.safetensors").read_bytes() == b"of rank 1"
