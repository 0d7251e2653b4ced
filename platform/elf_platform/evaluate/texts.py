"""What is scored: texts from a folder of samples, from prepared data, or from files, with the facts that a record needs about them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from elf.processes import Autoregressive
from elf_platform.data.aligned import Wanted, as_references, as_text, paragraphs_of, read_aligned, values_of
from elf_platform.data.files import FoundFile
from elf_platform.data.manifest import FILE as MANIFEST
from elf_platform.data.manifest import Manifest
from elf_platform.data.reader import RowReader
from elf_platform.data.selection import left_out_line, select, select_one
from elf_platform.evaluate.record import GIVEN_TEXT, REQUIRED, Facts
from elf_platform.sampling.sources import digest
from elf_platform.terminal import say

Unit = Literal["paragraph", "line"]

_WANTED = Wanted(what="texts", setting="the file to score", column_setting="--text_column", defaults=("text",), lists=False)
_REFERENCES = Wanted(
    what="references", setting="--references", column_setting="--references_column", defaults=("text", "target", "reference"), lists=True
)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Texts in order, those without a character included."""

    kind: str
    path: str
    form: str
    """What one text is."""
    texts: list[str]
    ids: list[list[int]] | None = None
    """The sampled token ids of each text, where it was sampled."""
    sampling: Facts = field(default_factory=dict)
    per_source: int = 1
    """Texts in a row that were made from one source."""
    room: int = 0
    """Tokens that an answer of a conditional model may have; 0 where texts fill their rows by nature, or nothing is known."""
    target_column: str = ""
    """What the right answers were called in the pairs that the model learned from."""

    def first(self, count: int) -> "Texts":
        """At most ``count`` of them (0: all)."""
        if not count or count >= len(self.texts):
            return self
        return replace(self, texts=self.texts[:count], ids=self.ids[:count] if self.ids is not None else None)

    @property
    def unended(self) -> int:
        """Answers that fill all their room: they may have been cut off there."""
        return sum(len(ids) >= self.room for ids in self.ids or []) if self.room else 0

    @property
    def kept(self) -> list[int]:
        """Places of the texts that are not empty."""
        return [i for i, text in enumerate(self.texts) if text.strip()]

    @property
    def sha256(self) -> str:
        """Of the texts alone, wherever they lie."""
        return digest(self.texts)


def given(value: str = GIVEN_TEXT) -> Facts:
    """Facts of sampling of what was not sampled."""
    return dict.fromkeys(REQUIRED["sampling"], value)


def read_texts(path: Path, *, unit: Unit = "paragraph", column: str = "") -> Texts:
    """The texts at ``path``: a folder of samples, a folder of prepared data (its validation rows), or a file, or folder of files, in any of
    the formats that data are prepared from: paragraphs or lines of .txt, else ``column`` (empty for "text").

    Raises FileNotFoundError or ValueError for what is missing, half-written or without text."""
    path = path.expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {path} to score; give a folder of samples, prepared data, or a file of text")
    if not path.is_dir():
        found = _from_files([select_one(str(path), what=_WANTED.what, setting=_WANTED.setting)], path, unit, column)
    else:
        found = _from_folder(path, unit, column)
    if not found.texts:
        raise ValueError(f"{path} holds no text; there is nothing to score")
    return found


def read_references(path: Path, column: str = "", *, remembered: str = "") -> list[list[str]]:
    """The references of each text or source: one, or those of a list; an empty line and null are an empty one. remembered: the column that
    is taken where none is named and the file has it. Raises as ``read_texts``."""
    return [as_references(value) for value in read_aligned(path, column, replace(_REFERENCES, remembered=remembered))]


def _from_folder(path: Path, unit: Unit, column: str) -> Texts:
    if (path / MANIFEST).is_file() and "shards" in _keys(path / MANIFEST):
        return prepared_texts(path)
    if any((path / name).exists() for name in ("run.json", MANIFEST, "parts")) or not any(path.iterdir()):
        return _sampled(path)
    selection = select([str(path)], setting="the folder to score")
    if selection.left_out:
        say(f"{path}: {left_out_line(selection.left_out)}")
    return _from_files(selection.files, path, unit, column)


def _keys(path: Path) -> set[str]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return set()
    return set(plain) if isinstance(plain, dict) else set()


def prepared_texts(folder: Path, *, count: int = 0, split: Literal["train", "valid"] = "valid") -> Texts:
    """Rows of prepared data as their tokenizer decodes them, conditions left out; evenly spread where ``count`` is fewer than all."""
    reader = RowReader(folder, split)
    if not len(reader):
        raise ValueError(f"{folder} holds no rows of the split {split}; prepare it with data.valid_fraction above 0")
    chosen = np.arange(len(reader)) if not count else np.unique(np.linspace(0, len(reader) - 1, min(count, len(reader))).astype(np.int64))
    rows: list[list[int]] = []
    for start in range(0, len(chosen), 256):
        batch = reader.read(chosen[start : start + 256])
        target_BL = batch.valid_BL & ~batch.condition_BL
        rows += [ids[mask].tolist() for ids, mask in zip(batch.ids_BL, target_BL, strict=True)]
    texts = [reader.tokenizer.decode(row) for row in rows]
    form = f"{split} rows of {reader.length} tokens ({Manifest.load(folder).name})"
    return Texts(kind="text", path=str(folder.absolute()), form=form, texts=texts, ids=rows, sampling=given())


def _from_files(files: Sequence[FoundFile], path: Path, unit: Unit, column: str) -> Texts:
    """The texts of every file, in the order of their names. White space within a paragraph is one space: its lines are wrapped."""
    texts: list[str] = []
    forms = set()
    for file in files:
        if file.format == "txt" and not column and unit == "paragraph":
            texts += [" ".join(text.split()) for text in paragraphs_of(file, _WANTED)]
            forms.add("paragraphs of text files")
        elif file.format == "txt" and not column:
            texts += [as_text(value) for value in values_of(file, "", _WANTED)]
            forms.add("lines of text files")
        else:
            texts += [as_text(value) for value in values_of(file, column, _WANTED)]
            forms.add(f"column {column or 'text'} of {file.format} files")
    return Texts(kind="text", path=str(path.absolute()), form=", ".join(sorted(forms)), texts=texts, sampling=given())


def _sampled(folder: Path) -> Texts:
    from elf_platform.sampling.folder import read_samples

    manifest, rows = read_samples(folder)
    sources, per_source = manifest["sources"]["lines"], manifest["sources"]["per_source"]
    return Texts(
        kind="samples", path=str(folder.absolute()), texts=[row["text"] for row in rows], ids=[list(row["tokens"]) for row in rows],
        form=f"samples of at most {manifest['target_length']} tokens" + (f", {per_source} a source" if sources else ""),
        sampling=sampling_facts(manifest), per_source=per_source, room=manifest["target_length"] if sources else 0,
        target_column=manifest.get("columns", {}).get("text", ""),
    )


def sampler_facts(process: str, settings: dict[str, Any]) -> Facts:
    """Sampler, grid, steps and guidance; an autoregressive process has none of these, whatever its settings say."""
    names = ("sampler", "grid", "steps", "guidance")
    if process == Autoregressive.kind:
        return dict.fromkeys(names, "left to right")
    return {name: settings[name] for name in names}


def sampling_facts(manifest: dict[str, Any]) -> Facts:
    """The record's facts of sampling from the manifest of a sample folder."""
    settings, lineage = manifest["settings"], manifest.get("lineage", {})
    return {
        "process": manifest["process"],
        "weights": manifest["weights"],
        **sampler_facts(manifest["process"], settings),
        "settings": settings,
        "nfe": manifest["nfe"],
        "seed": manifest["seed"],
        "precision": manifest["precision"],
        "compute_batch": manifest["compute_batch"],
        "artefact": manifest["artefact"],
        "tokenizer": manifest["tokenizer"],
        # An imported model knows no prepared data; its lineage names where it comes from.
        "data": lineage.get("data_sha256") or lineage.get("run") or "unknown",
        "code_version": manifest["code_version"],
        "sources": manifest["sources"] if manifest["sources"]["lines"] else "none",
        "samples_sha256": manifest["jsonl"]["sha256"],
    }


