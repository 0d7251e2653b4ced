"""What a word on the command line names: a path, or a run by its name. One function finds the artefact, the prepared data or the run there,
and what is said of a place that has none is true."""

import difflib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from elf.artefact import CONFIG, TOKENIZER, WEIGHTS
from elf.files import read_object
from elf_platform.commands import job_command
from elf_platform.config_io import default_storage
from elf_platform.data.manifest import FILE as MANIFEST
from elf_platform.lock import is_held
from elf_platform.tracking.journal import METRICS_FILE
from elf_platform.tracking.listing import read_run

Wanted = Literal["artefact", "data", "run"]

ARTEFACT, RUNS, DATA, JUDGES, DATA_HASH = "artefact", "runs", "data", "judges", "data.sha256"
_GIVE = {
    "artefact": "give a finished run by its name or folder, an artefact folder (RUN/artefact), or what jobs/import_elf.py wrote",
    "data": "give a folder data/KEY of the storage, or the name or folder of a run that was trained on the data; python jobs/prepare.py "
    "prepares some",
    "run": "give a run by its name or its folder",
}
_SHOWN = 6


def resolve(place: Path | str, wanted: Wanted, *, storage: Path | None = None) -> Path:
    """The folder of what is ``wanted`` at ``place``: a path, or the name of a run (of prepared data: or its KEY) in ``storage``.

    A run stands for its artefact and for the data it was trained on, an artefact for its data. storage: None for $ELF_HOME, or ~/elf-runs.
    Raises FileNotFoundError that says what lies there instead, and what to do."""
    storage = storage.expanduser().absolute() if storage is not None and storage != Path("") else default_storage()
    path = Path(place).expanduser().absolute()
    for folder in _places(place, wanted, storage):
        if (found := _FIND[wanted](folder, storage)) is not None:
            return found
    raise FileNotFoundError(_nothing(str(place), path, wanted, storage))


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's, from its first moment on, be its files damaged."""
    if {"process", "train"} <= read_object(folder / CONFIG).keys() or (folder.parent.name == RUNS and is_held(folder)):
        return True
    marked = (folder / METRICS_FILE).is_file() or (folder.parent.name == RUNS and (folder / CONFIG).is_file())
    return marked and not is_artefact(folder)


def is_artefact(folder: Path) -> bool:
    """Whether a folder holds an artefact of ours, be it damaged: its config.json names a process and files; a run's names no files."""
    config = read_object(folder / CONFIG)
    return {"process", "files"} <= config.keys() or (
        not config and all((folder / name).is_file() for name in (CONFIG, WEIGHTS, TOKENIZER))
    )


def is_prepared(folder: Path) -> bool:
    """Whether a folder holds prepared data, be they damaged or not finished."""
    manifest = read_object(folder / MANIFEST)
    return "shards" in manifest or (not manifest and ((folder / MANIFEST).is_file() or (folder / "work").is_dir()))


def what_lies_at(path: Path) -> str:
    """A folder or file in words; empty where there is nothing."""
    if not path.exists():
        return ""
    if path.is_file():
        return "a file"
    config, manifest = read_object(path / CONFIG), read_object(path / MANIFEST)
    if is_artefact(path):
        return "the artefact of a model"
    if is_run(path):
        run = read_run(path)
        of = f" of {run.wanted:,}" if run.wanted is not None else ""
        return f"the folder of the run {path.name}, which is {run.state}, at step {run.steps:,}{of}"
    known = (
        (is_prepared(path), "prepared data"),
        ("jsonl" in manifest or (path / "parts").is_dir(), "a folder of samples"),
        ((path / "codec.json").is_file(), "an encoder"),
        ((path / "state.json").is_file() or any(path.glob("step-*")), "checkpoints of a run"),
        ("model_type" in config, "a model in the form of Hugging Face"),
        ((path / RUNS).is_dir(), f"a storage folder with {_list(_runs(path))}"),
        (bool(_names(path, is_run)), f"a folder of {_list(_names(path, is_run))}"),
    )
    for there, words in known:
        if there:
            return words
    names = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
    return f"a folder with {', '.join(names[:4])}{' and more' if names[4:] else ''}" if names else "an empty folder"


def _places(place: Path | str, wanted: Wanted, storage: Path) -> Iterator[Path]:
    yield Path(place).expanduser().absolute()
    name = str(place).rstrip("/")
    if name and "/" not in name and name not in (".", ".."):
        yield storage / RUNS / name
        if wanted == "data":
            yield storage / DATA / name
        if wanted == "artefact":
            yield storage / JUDGES / name


def _artefact(folder: Path, storage: Path) -> Path | None:
    return next((place for place in (folder, folder / ARTEFACT) if is_artefact(place)), None)


def _run(folder: Path, storage: Path) -> Path | None:
    return folder if is_run(folder) else None


def _data(folder: Path, storage: Path) -> Path | None:
    if is_prepared(folder):
        return folder
    artefact = _artefact(folder, storage)
    content = (folder / DATA_HASH).read_text().strip() if (folder / DATA_HASH).is_file() else ""
    content = content or (str(read_object(artefact / CONFIG).get("lineage", {}).get("data_sha256") or "") if artefact else "")
    if not content:
        return None
    # The storage that a run lies in has its data too, whatever is the storage of this machine.
    for root in dict.fromkeys((storage, *folder.parents[:3])):
        for manifest in sorted((root / DATA).glob(f"*/{MANIFEST}")):
            if read_object(manifest).get("content_hash") == content:
                return manifest.parent
    return None


_FIND: dict[Wanted, Callable[[Path, Path], Path | None]] = {"artefact": _artefact, "data": _data, "run": _run}


def _nothing(place: str, path: Path, wanted: Wanted, storage: Path) -> str:
    noun = {"artefact": "no artefact", "data": "no prepared data", "run": "no run"}[wanted]
    there = next((p for p in _places(place, wanted, storage) if p.exists() and is_run(p)), path)
    lies = what_lies_at(there)
    if not lies:
        return f"there is {noun} at {path}: no such folder, and {_no_such_run(place, storage)}; {_GIVE[wanted]}"
    if is_run(there):
        return f"there is {noun} at {there}: it is {lies}{_of_run(there, wanted)}"
    unless = f"; nor is there a run of that name in {storage / RUNS}" if "/" not in place else ""
    return f"there is {noun} at {path}: it is {lies}{unless}; {_GIVE[wanted]}"


def _of_run(folder: Path, wanted: Wanted) -> str:
    run = read_run(folder)
    on = "Go on with it:\n    " + job_command("pretrain", "--extend", folder)
    if wanted == "data":
        if not (folder / DATA_HASH).is_file():
            return f". It has not got as far as its data. {on}"
        return ", but its data are not in the storage any more; prepare them again:\n    " + job_command("prepare", "--config", folder)
    if run.state in ("running", "starting"):
        return "; the artefact is written at the end of training"
    if run.state == "finished":
        return ", but its artefact is not there any more: put it back"
    return f"; the artefact is written at the end of training. {on}"


def _no_such_run(place: str, storage: Path) -> str:
    name, known = place.rstrip("/").rsplit("/", 1)[-1], _runs(storage)
    if not known:
        return f"there are no runs in {storage / RUNS}"
    near = difflib.get_close_matches(name, known, n=1)
    return f"no run of that name in {storage / RUNS}" + (f" (did you mean {near[0]}?)" if near else f", which has {_list(known)}")


def _runs(storage: Path) -> list[str]:
    return _names(storage / RUNS, is_run)


def _names(folder: Path, kind: Callable[[Path], bool]) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and kind(p)) if folder.is_dir() else []


def _list(runs: list[str]) -> str:
    if not runs:
        return "no runs"
    return f"the run{'s' if runs[1:] else ''} {', '.join(runs[:_SHOWN])}{' and more' if runs[_SHOWN:] else ''}"
