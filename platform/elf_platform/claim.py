"""Whose a run folder is: which run a configuration means, whether it may have the folder, and the claim that it leaves there.

Examining changes nothing. A claim is written when everything that can be refused was checked and the first step is next, so that a start
that fails leaves a name free.
"""

import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elf.artefact import is_whole
from elf.files import write_text
from elf_platform.config import RunConfig
from elf_platform.config_io import read_config, read_history, write_config
from elf_platform.extend import course_notes, extend_command, newest_step, show_command
from elf_platform.identity import Difference, afterwards_hash, compare, is_automatic
from elf_platform.tracking import book_event, read_metrics
from elf_platform.version import code_version

CONFIG, SUMMARY = "config.json", "summary.json"
DATA, CODEC = "data.sha256", "codec.sha256"
_OF_A_START = (
    CONFIG, DATA, CODEC, "events.jsonl", "metrics.jsonl", "uploads.jsonl", "tracking.json", "tracking.cursor", "skipped.jsonl",
    "control.json", "control.done.json",
)
"""What a start leaves before its first step is kept; it goes when other settings take the name."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a configuration may do with its run folder. Made by ``examine``; ``take`` writes it down."""

    config: RunConfig
    recipe: str
    folder: Path
    fresh: bool
    """Nothing was trained here yet."""
    others: bool = False
    """Other settings have had this name, and did no step."""
    changes: tuple[Difference, ...] = ()
    """Settings that the run goes on with instead of its earlier ones."""
    step: int = 0
    """Of the newest checkpoint."""
    finished: bool = False
    """All is there that this configuration asks for."""
    notes: tuple[str, ...] = ()
    """What the user should know before anything starts."""

    @property
    def anew(self) -> bool:
        """Trained to the end: only what is made of the weights is wanted anew, under other settings."""
        return self.step >= self.config.train.steps and {change.role for change in self.changes} == {"afterwards"}

    @property
    def begun_on(self) -> str:
        """Content hash of the data that the run was trained on; empty where nothing was trained, and where another corpus is named now."""
        path = self.folder / DATA
        named = any(change.role == "corpus" for change in self.changes)
        return path.read_text().strip() if path.is_file() and not (self.fresh or named) else ""

    def check(self, *, data: str, codec: str = "") -> None:
        """Raises ValueError when the run would go on with other data, or another codec, than it was trained with."""
        for name, found, what, why in (
            (DATA, data, "data", "the corpus has changed"),
            (CODEC, codec, "codec", "it was trained or fetched again with another outcome"),
        ):
            path = self.folder / name
            known = path.read_text().strip() if path.is_file() else found
            if found and known != found and not self.fresh:
                raise ValueError(
                    f"the run in {self.folder} was started on {what} {known[:12]}, but the same settings now give {found[:12]}: {why}. "
                    "Give the run another --name, or put the old one back"
                )

    def take(self, *, data: str, codec: str) -> None:
        """The folder is this configuration's from here on: ``check``, config.json with its history, and the fingerprints."""
        self.check(data=data, codec=codec)
        self.folder.mkdir(parents=True, exist_ok=True)
        history: list[dict[str, Any]] = []
        if self.others:
            self.release()
        if not self.fresh:
            history = read_history(self.folder / CONFIG)
        if self.changes:
            changed = {change.path: [change.old, change.new] for change in self.changes}
            history.append({"time": time.strftime("%Y-%m-%d %H:%M:%S"), "step": self.step, "changed": changed})
        write_config(self.folder / CONFIG, self.config, recipe=self.recipe, code_version=code_version(), history=history)
        for name, found in ((DATA, data), (CODEC, codec)):
            if found:
                write_text(self.folder / name, found + "\n")
        if self.changes:
            kind = "extend" if any(change.role == "steps" for change in self.changes) else "settings"
            book_event(self.folder, self.step, kind, "; ".join(map(str, self.changes)))

    def release(self) -> None:
        """Take back what a start that did no step left; anything that is not ours stays."""
        assert self.fresh
        for name in _OF_A_START:
            (self.folder / name).unlink(missing_ok=True)


def find_run(config: RunConfig, recipe: str) -> RunConfig:
    """The configuration with the name of the run that it means: one that an earlier version named by another hash is found by its settings.
    A name that was given stays."""
    if not is_automatic(config.name, recipe) or (_folder(config) / CONFIG).is_file():
        return config
    same = [
        (len(differing), -newest_step(folder), folder.name) for folder, _, extended, differing in _relatives(config, recipe)
        if is_automatic(folder.name, recipe) and not extended and all(found.role == "afterwards" for found in differing)
    ]
    return dataclasses.replace(config, name=min(same)[2]) if same else config


def examine(config: RunConfig, recipe: str, *, extend: bool = False, based_on: str = "") -> Claim:
    """What ``config`` may do with its run folder, which stays as it is. extend: more steps than the run had are meant. based_on: the run
    whose settings these are.

    Raises ValueError when the folder holds the training of other settings, or of other steps, with the way out."""
    folder = _folder(config)
    held = _held(folder)
    known: RunConfig | None = None
    try:
        known, _ = read_config(folder)
    except (FileNotFoundError, ValueError) as error:
        if held:
            raise ValueError(
                f"{folder} holds {held}, but does not say of which settings: {error}. Put its config.json back, or give this run another "
                "--name"
            ) from error
    differing = [found for found in compare(known, config) if found.role != "free"] if known else []
    if known is None or not held:
        notes = _notes_of_a_start(config, recipe, based_on)
        if differing:
            notes.insert(0, f"the name {config.name} was taken by settings that never did a step ({_list(differing)}); these take it over")
        return Claim(config=config, recipe=recipe, folder=folder, fresh=True, others=bool(differing), notes=tuple(notes))
    known = dataclasses.replace(known, name=config.name, storage=config.storage)  # where it lies now
    others = [found for found in differing if found.role == "training"]
    if others:
        raise ValueError(
            f"the run name {config.name} is taken by a run with other settings ({_list(others)}); give this one another --name, or go back "
            f"to the settings of {folder / CONFIG}"
        )
    _check_steps(known, config, extend=extend, extended=_extended(folder))
    step = newest_step(folder)
    claim = Claim(
        config=config, recipe=recipe, folder=folder, fresh=False, changes=tuple(differing), step=step,
        finished=_finished(folder, config, bool(differing)),
    )
    return dataclasses.replace(claim, notes=tuple(_notes_of_changes(claim, known)))


def _check_steps(known: RunConfig, config: RunConfig, *, extend: bool, extended: bool) -> None:
    """Raises ValueError when the run that is there has other steps and extending it was not asked for."""
    old, new = known.train.steps, config.train.steps
    anew = f"To train {new:,} steps from the start, give this run another --name"
    if new < old:
        was = "was extended to" if extended else "is one of"
        raise ValueError(
            f"the run {config.name} {was} {old:,} steps, and this asks for {new:,} of them. {anew}. The run that is there is shown, or "
            f"gone on with, by:\n    {show_command(known)}"
        )
    if new > old and not extend:
        raise ValueError(
            f"the run {config.name} is one of {old:,} steps, and this asks for {new:,} with the same settings. {anew}. To train the one "
            f"that is there on to {new:,} steps:\n    {extend_command(known, config)}"
        )


def _notes_of_changes(claim: Claim, known: RunConfig) -> list[str]:
    """What the settings that changed do to the run."""
    config, notes = claim.config, []
    before, steps = known.train.steps, config.train.steps
    if steps > before:
        notes.append(f"the run {config.name} goes on from step {claim.step:,} to {steps:,} (it was to end at {before:,})")
        notes += course_notes(config, before=before, at=claim.step)
    rest = [change for change in claim.changes if change.role == "afterwards"]
    if rest and claim.anew:
        notes.append(
            f"the run {config.name} is trained to the end; its artefact, samples and score are made anew with {_list(rest)}. (To leave "
            "them and draw other samples beside them, use jobs/sample.py.)"
        )
    elif rest:
        notes.append(f"the run {config.name} goes on with {_list(rest)}, which trains nothing differently")
    if any(change.role == "corpus" for change in claim.changes):
        notes.append(f"{_list([c for c in claim.changes if c.role == 'corpus'])}: the run goes on if the text is the same")
    return notes


def _notes_of_a_start(config: RunConfig, recipe: str, based_on: str) -> list[str]:
    """Runs that the user may have meant to go on with."""
    relatives = [
        (known.train.steps, dataclasses.replace(known, name=folder.name, storage=config.storage), {found.role for found in differing})
        for folder, known, _, differing in _relatives(config, recipe)
        if folder != _folder(config) and known.train.steps <= config.train.steps and newest_step(folder)
    ]
    automatic = is_automatic(config.name, recipe)
    notes = []
    same = [(steps, known) for steps, known, roles in relatives if "corpus" not in roles and (automatic or steps < config.train.steps)]
    if same:
        steps, known = max(same, key=lambda found: (found[0], found[1].name))
        way, command = f"to see {known.name} instead", show_command(known)
        if steps < config.train.steps:
            way, command = f"to train {known.name} on to {config.train.steps:,} steps instead", extend_command(known, config)
        notes.append(
            f"the run {known.name} has these settings and {steps:,} steps. This one, {config.name}, starts from step 0; {way}:\n    "
            f"{command}"
        )
    moved = [known for steps, known, roles in relatives if roles == {"corpus"}]
    if moved and automatic and not same:
        notes.append(
            f"the run {moved[-1].name} differs from this one only in where the text lies, "
            f"{', '.join(moved[-1].data.paths) or 'the built-in text'}. If it is the same text, this goes on with that run:\n    "
            f"{extend_command(moved[-1], config)}"
        )
    if based_on:
        on = f"{show_command(config, based_on)} --train.steps {2 * config.train.steps}"
        way = "" if notes else f". To train that run on instead, for example to twice the steps:\n    {on}"
        notes.insert(0, f"--config takes the settings of {based_on}; the weights start anew{way}")
    return notes


def _relatives(config: RunConfig, recipe: str) -> Iterator[tuple[Path, RunConfig, bool, list[Difference]]]:
    """Runs of the recipe in the storage that train the same network the same way: folder, settings, whether extended, differences.
    What cannot be read is none of them."""
    for path in sorted((config.storage / "runs").glob(f"*/{CONFIG}")):
        try:
            known, of = read_config(path)
            extended = _extended(path.parent)
        except (OSError, ValueError):
            continue
        differing = [found for found in compare(known, config) if found.role != "free"] if of == recipe else []
        if of == recipe and all(found.role != "training" for found in differing):
            yield path.parent, known, extended, differing


def _folder(config: RunConfig) -> Path:
    return config.storage / "runs" / config.name


def _extended(folder: Path) -> bool:
    return any("train.steps" in entry.get("changed", {}) for entry in read_history(folder))


def _held(folder: Path) -> str:
    """What a run folder holds that was trained, in words; empty when nothing was."""
    if step := newest_step(folder):
        return f"checkpoints up to step {step:,}"
    if (folder / SUMMARY).is_file() or (folder / "artefact").is_dir():
        return "the results of a finished run"
    steps = [step for step, _ in read_metrics(folder / "metrics.jsonl") if step > 0]
    return f"figures up to step {steps[-1]:,}" if steps else ""


def _finished(folder: Path, config: RunConfig, changed: bool) -> bool:
    """Whether the summary is that of all the steps, made with these settings."""
    try:
        figures = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        done = float(figures["steps"]) >= config.train.steps
        made_with = figures.get("made_with")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return False
    artefact = folder / "artefact"
    if artefact.is_dir() and newest_step(folder) >= config.train.steps and not is_whole(artefact):
        return False  # damaged since: it is made again from the checkpoint
    if made_with is None:  # by a version that could not change a setting afterwards
        return done and not changed and not read_history(folder)
    return done and made_with == afterwards_hash(config)


def _list(differing: list[Difference]) -> str:
    return "; ".join(map(str, differing))
