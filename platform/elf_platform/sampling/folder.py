"""A folder of samples: begun under one run's settings, filled part by part, and finished by its manifest.

    manifest.json              the run's settings, counts, and the SHA-256 of every file; written last
    samples.jsonl              one sample a line, in the order of their ids
    parts/part-00000.parquet   the same samples, one compute batch a part
    records/00000.json         hash of each part, for a run that goes on
    run.json                   the settings again, written first: whose folder this is
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from elf.artefact import Columns
from elf.files import TEMPORARY, clear_leftovers, committing, inside, sha256_of, sync, write_text
from elf_platform.lock import LOCK
from elf_platform.sampling.parts import COLUMNS, PARTS, RECORDS, read_part, read_record
from elf_platform.sampling.run import SampleRun, run_differences

FORMAT = 1
"""Version of the folder's layout."""
MANIFEST, JSONL, RUN = "manifest.json", "samples.jsonl", "run.json"

AGAIN = "run the same jobs/sample.py command again: whole parts are kept"


def check_ours(folder: Path) -> None:
    """Raises ValueError, and touches nothing, when ``folder`` holds something else than samples."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, but samples are a folder; give another --out")
    if not (folder / RUN).is_file():
        others = [p.name for p in folder.iterdir() if p.name != LOCK and not p.name.startswith(TEMPORARY)] if folder.is_dir() else []
        if others:
            raise ValueError(
                f"{folder} holds {min(others)!r} and was not begun by jobs/sample.py, so it was left as it is; give another --out"
            )


def check_run(folder: Path, run: SampleRun, count: int) -> None:
    """Raises ValueError, and touches nothing, when ``folder`` holds samples of another run, or more than ``count`` of this one.

    A run that made nothing yet may be replaced."""
    path = folder / RUN
    if not path.is_file():
        return
    begun = _read_json(path)
    found, wanted = begun.get("run"), run.to_dict()
    if begun.get("format") != FORMAT or not isinstance(found, dict) or not isinstance(begun.get("count"), int):
        raise ValueError(f"{path} is of another version of the code, or was edited; give another --out")
    if not any((folder / PARTS).glob("part-*.parquet")) and not any((folder / name).exists() for name in (JSONL, MANIFEST)):
        return
    if differ := run_differences(found, wanted):
        raise ValueError(
            f"{folder} holds samples of another run, which were left as they are; they differ in {'; '.join(differ)}. "
            "Give another --out, or the settings of the samples that are there"
        )
    if begun["count"] > count:
        raise ValueError(
            f"{folder} holds, or was to hold, {begun['count']} samples of this run, but --count is {count}: nothing is thrown away. "
            f"Give --count {begun['count']} or more, or another --out"
        )


def begin(folder: Path, run: SampleRun, count: int) -> None:
    """Claim a folder: the run's settings on disk, which say whose it is, and then its subfolders. Raises as the checks do."""
    check_ours(folder)
    check_run(folder, run, count)
    folder.mkdir(parents=True, exist_ok=True)
    path, begun = folder / RUN, {"format": FORMAT, "count": count, "run": run.to_dict()}
    if not path.is_file() or _read_json(path) != begun:
        unfinish(folder)
        write_text(path, json.dumps(begun, indent=1) + "\n")
    for place in (folder, folder / PARTS, folder / RECORDS):
        place.mkdir(exist_ok=True)
        clear_leftovers(place)


def unfinish(folder: Path) -> None:
    """Take the manifest away, because parts are about to be made: a folder without one is not finished."""
    if (folder / MANIFEST).is_file():
        (folder / MANIFEST).unlink()
        sync(folder)


def missing_parts(folder: Path, sizes: Sequence[int]) -> list[int]:
    """Indices of the parts that are not there whole; sizes: samples of each part."""
    return [index for index, rows in enumerate(sizes) if read_record(folder, index, rows) is None]


def finish(
    folder: Path, run: SampleRun, sizes: Sequence[int], lineage: dict[str, Any], columns: Columns | None = None
) -> dict[str, Any]:
    """Write samples.jsonl and, last, the manifest, which is returned; all parts must be there. columns: of the model's pairs.

    Without any change when the folder is finished already. Raises ValueError for a part that was changed meanwhile."""
    if (folder / MANIFEST).is_file():
        manifest = _read_json(folder / MANIFEST)
        jsonl = folder / JSONL
        if manifest.get("count") == sum(sizes) and jsonl.is_file() and sha256_of(jsonl) == manifest["jsonl"]["sha256"]:
            return manifest
        unfinish(folder)
    records = []
    with committing(folder / JSONL) as temporary, temporary.open("w", encoding="utf-8") as lines:
        for index, rows in enumerate(sizes):
            record = read_record(folder, index, rows)
            if record is None:
                raise ValueError(f"part {index} of {folder} was changed or removed while the samples were gathered; {AGAIN}")
            records.append(record)
            for row in read_part(inside(folder, record["file"])):
                lines.write(json.dumps(row | {"settings": run.settings}, ensure_ascii=False) + "\n")
    manifest = {
        "format": FORMAT,
        "count": sum(sizes),
        "seed": run.settings["seed"],
        "nfe": max(record["nfe"] for record in records),
        **run.to_dict(),
        "devices": sorted({record["device"] for record in records}),
        "lineage": lineage,
        **({"columns": asdict(columns)} if columns is not None else {}),
        "jsonl": {"file": JSONL, "sha256": sha256_of(folder / JSONL)},
        "parts": [{key: record[key] for key in ("file", "rows", "sha256")} for record in records],
    }
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return manifest


def read_samples(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The manifest of a finished sample folder, and its samples in the order of their ids, with the columns of ``parts.COLUMNS``.

    Raises FileNotFoundError when there are no samples, ValueError when the folder is half-written, damaged or of another format."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    rows: list[dict[str, Any]] = []
    for part in manifest["parts"]:
        path = inside(folder, part["file"])
        _check_hash(path, part["sha256"])
        rows += read_part(path)
    _check_hash(inside(folder, manifest["jsonl"]["file"]), manifest["jsonl"]["sha256"])
    if [row["id"] for row in rows] != list(range(manifest["count"])):
        raise ValueError(
            f"{folder / MANIFEST} counts {manifest['count']} samples, but the parts hold {len(rows)}: it was edited; {AGAIN}"
        )
    assert not rows or list(rows[0]) == list(COLUMNS)
    return manifest, rows


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished sample folder; errors as in ``read_samples``."""
    path = folder / MANIFEST
    if not path.is_file():
        if not (folder / RUN).is_file():
            raise FileNotFoundError(f"there are no samples at {folder}: it has no {MANIFEST}; give the --out folder of jobs/sample.py")
        begun = _read_json(folder / RUN)
        parts = len(list((folder / PARTS).glob("part-*.parquet")))
        raise ValueError(
            f"{folder} is half-written: {parts} parts of {begun.get('count')} samples are there, and no {MANIFEST}, which is written "
            f"last. Its job was stopped or still runs; {AGAIN}"
        )
    manifest = _read_json(path)
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {manifest.get('format')}, but this code reads format {FORMAT}; sample again into another folder"
        )
    if not {"count", "parts", "jsonl", "settings", "artefact"} <= manifest.keys():
        raise ValueError(f"{path} lacks parts of a sample manifest: it was edited; {AGAIN}")
    return manifest


def _check_hash(path: Path, expected: str) -> None:
    if not path.is_file():
        raise ValueError(f"{path}, which {MANIFEST} lists, is missing; {AGAIN}")
    if (found := sha256_of(path)) != expected:
        raise ValueError(
            f"{path} has SHA-256 {found[:16]}..., but {MANIFEST} recorded {expected[:16]}...: it was altered or damaged; {AGAIN}"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): it was edited; give another --out, or copy the samples again") from error
    if not isinstance(plain, dict):
        raise ValueError(f"{path} is JSON, but no table: it was edited; give another --out, or copy the samples again")
    return plain
