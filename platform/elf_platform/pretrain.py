"""The main job: text in, a trained, sampled and tracked model out."""

import functools
import json
import time
from pathlib import Path

from elf.files import clear_leftovers
from elf_platform.check import check_run
from elf_platform.claim import Claim, examine, find_run
from elf_platform.codec import prepare_codec
from elf_platform.commands import as_typed
from elf_platform.config import RunConfig
from elf_platform.config_io import flatten
from elf_platform.data.prepare import PreparedData, corpus_line, prepare
from elf_platform.extend import show_command
from elf_platform.finish import finish
from elf_platform.headline import Figures, held_out_words
from elf_platform.lock import exclusive
from elf_platform.place import preflight, remotely
from elf_platform.report import render_figures, write_report
from elf_platform.runtime import Cluster, connect
from elf_platform.sizes import shape_network
from elf_platform.summary import print_summary
from elf_platform.terminal import say
from elf_platform.tracking import RunHandle, book_event, load_handle, newest, open_run, start_tracker, store_uri, trusted
from elf_platform.tracking import finish as end_tracking
from elf_platform.train.checkpoint import goes_on_from, intact
from elf_platform.train.preflight import Placement, average_note
from elf_platform.train.worker import Job
from elf_platform.version import code_version
from elf_platform.writable import check_place


def pretrain(config: RunConfig, recipe: str, *, extend: bool = False, based_on: str = "") -> Figures:
    """Run or resume ``config`` from text to report; a finished run is shown again. Returns the headline figures.

    extend: the run that is there goes on to the steps of ``config``. based_on: the run whose settings these are, to say what it is not."""
    began = time.time()
    given, config = config.name, find_run(config, recipe)
    if config.name != given:
        say(f"These settings are those of the run {config.name}, which an earlier version named.")
    run_folder = config.storage / "runs" / config.name
    check_place(run_folder, "storage")
    with exclusive(run_folder, f"the run {config.name}"):
        for place in (run_folder, run_folder / "texts", run_folder / "figures"):
            clear_leftovers(place)
        claim = examine(config, recipe, extend=extend, based_on=based_on)
        for note in claim.notes:
            say(as_typed(f"note: {note}"))
        if claim.finished:
            say(as_typed(
                f"Run {config.name} is finished already; this is what it left. Give it another --name to train it again, or train it "
                f"on, for example to twice its steps:\n    {show_command(config)} --train.steps {2 * config.train.steps}"
            ))
            figures = _complete(config, run_folder)
        else:
            check_run(config, begun=not claim.fresh)
            with connect() as cluster:
                placement, checked = preflight(config, cluster)
                say(f"preflight: {checked.line}")
                if note := average_note(config):
                    say(f"note: {note}")
                try:
                    data = prepare(config.data, config.storage, begun_on=claim.begun_on)
                    say(f"corpus: {corpus_line(data)}; held out: {held_out_words(data.manifest)}")
                    figures = _train(claim, cluster, placement, data, sums=checked.sums, began=began)
                except KeyboardInterrupt:
                    if not (run_folder / "config.json").is_file():
                        say(f"Run {config.name} stopped before its first step; the same command goes on with what was prepared and saved.")
                    raise
    print_summary(run_folder)
    return figures


def _complete(config: RunConfig, run_folder: Path) -> Figures:
    """The figures of a finished run; an interruption just after they were written may have left report and tracking undone."""
    figures: Figures = json.loads((run_folder / "summary.json").read_text())
    handle = load_handle(run_folder)
    if not (run_folder / "report.html").is_file() or (handle is not None and handle.end != "FINISHED"):
        if handle is not None and handle.kind == "mlflow":
            handle = trusted(handle, run_folder, store_uri(config.tracking.uri, config.storage))
        _track_results(handle or RunHandle(kind="null"), run_folder, write_report(run_folder), figures)
    return figures


def _train(claim: Claim, cluster: Cluster, placement: Placement, data: PreparedData, *, sums: str, began: float) -> Figures:
    """Codec, claim, training, artefact, report; the tracked run ends as what it came to."""
    config, run_folder = claim.config, claim.folder
    claim.check(data=data.manifest.content_hash)  # before an encoder is trained for other data
    from elf_platform.train.driver import launch  # imports Ray, which takes seconds, and a refusal needs none

    run = functools.partial(launch, use_gpu=placement.use_gpu)
    codec_folder, codec = prepare_codec(config, data, lambda job, title: run(job, title=title), threads=placement.threads, log=say)
    channels = codec.channels if codec else 0
    network = shape_network(config, vocab_size=data.tokenizer.vocab_size, channels=channels)
    say(
        f"{config.process.kind}: {sum(p.numel() for p in network.parameters()):,} parameters, "
        f"{data.manifest.train.rows:,} rows of {config.data.length} tokens, {config.train.steps:,} steps of "
        f"{config.train.global_batch} rows"
    )
    claim.take(data=data.manifest.content_hash, codec=codec.fingerprint if codec else "")
    book_event(run_folder, claim.step, "preflight", sums, at=began)  # with it the clock of the run starts
    handle = RunHandle(kind="null")
    try:
        handle = _open_tracking(claim, data)
        job = Job(
            config=config, run_folder=run_folder, data_folder=data.folder, data_fingerprint=data.manifest.content_hash,
            codec_folder=codec_folder, channels=channels, threads=placement.threads, tracking=handle, code_version=code_version(),
        )
        if not (claim.anew and intact(run_folder / "checkpoints", claim.step)):
            run(job, title=config.process.kind)
        say("exporting the artefact, sampling and scoring ...")
        figures = remotely(finish, job, use_gpu=placement.use_gpu, cluster=cluster)
        report = write_report(run_folder)
    except BaseException as error:
        end_tracking(newest(handle, run_folder), run_folder, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        if (run_folder / "config.json").is_file():
            say(f"Run {config.name} stopped. What it committed is in {run_folder}; {goes_on_from(run_folder / 'checkpoints')}.")
        raise
    _track_results(handle, run_folder, report, figures)
    return figures


def _open_tracking(claim: Claim, data: PreparedData) -> RunHandle:
    """The tracked run. A refusal takes the claim back, when nothing was trained under it."""
    config = claim.config
    try:
        return open_run(
            config.tracking, storage=config.storage, run_folder=claim.folder, run_name=config.name,
            params={name: str(value) for name, value in flatten(config).items()},
            tags={"data_sha256": data.manifest.content_hash, "code_version": code_version()},
        )
    except BaseException:
        if claim.fresh:
            claim.release()
        raise


def _track_results(handle: RunHandle, run_folder: Path, report: Path, figures: Figures) -> None:
    artifacts = [run_folder / name for name in ("config.json", "summary.json", "samples.jsonl", "score.json", "artefact")]
    tracker = start_tracker(newest(handle, run_folder), run_folder)
    numbers = {name: value for name, value in figures.items() if name.startswith(("sample/", "score/")) and not isinstance(value, str)}
    tracker.log(int(figures.get("steps", 0)), numbers)
    tracker.close()
    end_tracking(handle, run_folder, "FINISHED", [report, *artifacts], render_figures(run_folder))
