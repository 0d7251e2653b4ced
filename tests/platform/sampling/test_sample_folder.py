"""Sample folders: the same bytes however they were filled, exact counts, and nothing that is taken for what it is not."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from sample_folders import bytes_of, fill, task_of
from small_artefact import small_artefact

import elf_platform.sampling.folder as folder_module
from elf.artefact import load_artefact
from elf_platform.sampling.folder import begin, check_run, finish, missing_parts, read_samples
from elf_platform.sampling.parts import METADATA, part_name


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_artefact(tmp_path_factory.mktemp("artefacts") / "elf")


@pytest.fixture(autouse=True)
def settings_of_torch() -> Iterator[None]:
    """Sampling fixes them for its process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def test_what_is_read_is_what_was_sampled(elf: Path, tmp_path: Path) -> None:
    task = task_of(elf, count=10, compute_batch=4, seed=5)
    written = fill(task, tmp_path / "out")
    manifest, rows = read_samples(tmp_path / "out")
    assert manifest == written
    assert [row["id"] for row in rows] == list(range(10)), "exactly as many as were asked for, though the last batch was filled up"
    artefact = load_artefact(elf)
    for row in rows:
        assert row["text"] == artefact.tokenizer.decode(row["tokens"]) and artefact.tokenizer.pad_id not in row["tokens"]
        assert (row["source"], row["truncated"], row["seed"], row["nfe"]) == ("", False, 5, 4)
    assert len({row["text"] for row in rows}) > 5
    lines = [json.loads(line) for line in (tmp_path / "out/samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [{key: line[key] for key in rows[0]} for line in lines] == rows
    assert all(line["settings"]["steps"] == 3 and line["settings"]["seed"] == 5 for line in lines)
    assert manifest["count"] == 10 and manifest["nfe"] == 4 and manifest["seed"] == 5 and manifest["compute_batch"] == 4
    assert manifest["tokenizer"] == artefact.tokenizer.fingerprint and manifest["weights"] == "ema" and manifest["process"] == "elf"
    assert manifest["sources"]["truncated"] == manifest["sources"]["empty"] == 0
    assert [part["rows"] for part in manifest["parts"]] == [4, 4, 2]
    run = json.loads(pq.read_schema(tmp_path / "out" / part_name(0)).metadata[METADATA])
    assert run == task.run.to_dict()
    assert pq.read_table(tmp_path / "out/parts").num_rows == 10, "readable as one data set by any tool"


def test_the_bytes_do_not_depend_on_the_order_or_on_a_damaged_past(elf: Path, tmp_path: Path) -> None:
    task = task_of(elf, count=10, compute_batch=4)
    fill(task, tmp_path / "whole")
    expected = bytes_of(tmp_path / "whole")
    fill(task, tmp_path / "backwards", order=lambda parts: parts[::-1])
    assert bytes_of(tmp_path / "backwards") == expected

    def damage(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-3])

    def remove(path: Path) -> None:
        path.unlink()

    harms: list[tuple[Callable[[Path], None], str, list[int]]] = [
        (damage, part_name(1), [1]), (remove, part_name(0), [0]), (remove, "records/00002.json", [2]), (damage, "records/00001.json", [1]),
        (remove, "samples.jsonl", []), (damage, "samples.jsonl", []), (remove, "manifest.json", []),
    ]
    for harm, name, again in harms:
        harm(tmp_path / "whole" / name)
        assert missing_parts(tmp_path / "whole", task.sizes) == again
        fill(task, tmp_path / "whole")
        assert bytes_of(tmp_path / "whole") == expected, name


def test_a_finished_folder_is_left_alone(elf: Path, tmp_path: Path) -> None:
    task = task_of(elf, count=6, compute_batch=4)
    fill(task, tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    fill(task, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == stamps


def test_more_samples_extend_a_folder_and_give_the_bytes_of_all_at_once(elf: Path, tmp_path: Path) -> None:
    fill(task_of(elf, count=6, compute_batch=4), tmp_path / "grown")
    stamp = (tmp_path / "grown" / part_name(0)).stat().st_mtime_ns
    more = task_of(elf, count=11, compute_batch=4)
    assert missing_parts(tmp_path / "grown", more.sizes) == [1, 2], "the last part was shorter"
    fill(more, tmp_path / "grown")
    assert (tmp_path / "grown" / part_name(0)).stat().st_mtime_ns == stamp
    fill(more, tmp_path / "at once")
    assert bytes_of(tmp_path / "grown") == bytes_of(tmp_path / "at once")
    with pytest.raises(ValueError, match=r"holds, or was to hold, 11 samples .* Give --count 11 or more"):
        check_run(tmp_path / "grown", more.run, 6)


def test_a_folder_of_another_run_is_refused_by_what_differs(elf: Path, tmp_path: Path) -> None:
    task = task_of(elf, count=6, compute_batch=4)
    fill(task, tmp_path / "out")
    before = bytes_of(tmp_path / "out")
    other = small_artefact(tmp_path / "other", seed=1)
    for changed, said in (
        (task_of(elf, count=6, compute_batch=3), "compute_batch: 4 -> 3"),
        (task_of(elf, count=6, compute_batch=4, seed=2, steps=5), "settings.steps: 3 -> 5; settings.seed: 0 -> 2"),
        (task_of(elf, count=6, compute_batch=4, precision="bf16"), "precision: fp32 -> bf16"),
        (task_of(other, count=6, compute_batch=4), "differ in artefact: "),
    ):
        with pytest.raises(ValueError, match="samples of another run") as raised:
            begin(tmp_path / "out", changed.run, 6)
        assert said in str(raised.value)
    assert bytes_of(tmp_path / "out") == before


def test_a_run_that_made_nothing_yet_may_be_replaced(elf: Path, tmp_path: Path) -> None:
    fill(task_of(elf, count=6, seed=1), tmp_path / "out", stop_after=0)
    task = task_of(elf, count=4, seed=2)
    fill(task, tmp_path / "out")
    fill(task, tmp_path / "fresh")
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "fresh")


def test_a_kill_while_a_folder_is_claimed_costs_nothing(elf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    task = task_of(elf, count=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(folder_module, "write_text", killed)
        begin(tmp_path / "out", task.run, 2)
    assert fill(task, tmp_path / "out")["count"] == 2


def test_a_finished_run_whose_parts_are_gone_is_not_replaced_by_another(elf: Path, tmp_path: Path) -> None:
    task = task_of(elf, count=2)
    fill(task, tmp_path / "out")
    (tmp_path / "out" / part_name(0)).unlink()
    for name in ("manifest.json", "samples.jsonl"):
        with pytest.raises(ValueError, match="samples of another run"):
            begin(tmp_path / "out", task_of(elf, count=2, seed=1).run, 2)
        (tmp_path / "out" / name).unlink()
    begin(tmp_path / "out", task_of(elf, count=2, seed=1).run, 2)


def test_foreign_folders_and_files_are_left_alone(elf: Path, tmp_path: Path) -> None:
    task = task_of(elf, count=6)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds 'thesis\.txt' and was not begun by"):
        begin(tmp_path, task.run, 6)
    with pytest.raises(ValueError, match="is a file, but samples are a folder"):
        begin(tmp_path / "thesis.txt", task.run, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="of another version of the code, or was edited"):
        begin(tmp_path, task.run, 6)


def test_half_written_and_altered_folders_are_not_read(elf: Path, tmp_path: Path) -> None:
    task = task_of(elf, count=6, compute_batch=4)
    with pytest.raises(FileNotFoundError, match="there are no samples at"):
        read_samples(tmp_path / "out")
    fill(task, tmp_path / "out", stop_after=1)
    with pytest.raises(ValueError, match=r"is half-written: 1 parts of 6 samples .* run the same"):
        read_samples(tmp_path / "out")
    with pytest.raises(ValueError, match="part 1 of .* was changed or removed"):
        finish(tmp_path / "out", task.run, task.sizes, {})
    manifest = fill(task, tmp_path / "out")
    for name, match in (("parts/part-00001.parquet", "altered or damaged"), ("samples.jsonl", "altered or damaged")):
        path = tmp_path / "out" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(ValueError, match=match):
            read_samples(tmp_path / "out")
        path.unlink()
        with pytest.raises(ValueError, match="is missing"):
            read_samples(tmp_path / "out")
        path.write_bytes(whole)
    for change, match in (
        ({"format": 2}, "has format 2, but this code reads format 1"), ({"count": 7}, "counts 7 samples, but the parts hold 6"),
        ({"parts": None}, "lacks parts of a sample manifest"),
    ):
        edited = {key: value for key, value in (manifest | change).items() if value is not None}
        (tmp_path / "out/manifest.json").write_text(json.dumps(edited))
        with pytest.raises(ValueError, match=match):
            read_samples(tmp_path / "out")
    (tmp_path / "out/manifest.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        read_samples(tmp_path / "out")


def test_an_artefact_that_was_replaced_meanwhile_is_noticed(elf: Path, tmp_path: Path) -> None:
    task = task_of(elf, count=2)
    gone = replace(task, artefact=small_artefact(tmp_path / "new", seed=1))
    with pytest.raises(ValueError, match="was replaced while samples were made of it"):
        fill(gone, tmp_path / "out")
