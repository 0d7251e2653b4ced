"""A run name belongs to one configuration and one data set, from its first step on; a start that fails claims nothing."""

import fcntl
import json
import os
import shlex
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_artefact import small_artefact

from elf.optim import learning_rate
from elf.optim.config import OptimConfig
from elf_platform import pretrain as job
from elf_platform.claim import examine, find_run
from elf_platform.cli import parse_run_config
from elf_platform.config import RunConfig
from elf_platform.config_io import read_config, read_history
from elf_platform.extend import course_notes
from elf_platform.identity import afterwards_hash, resolve
from elf_platform.lock import exclusive, is_held
from elf_platform.recipes import tiny
from elf_platform.tracking import read_events

A, B = "a" * 64, "b" * 64


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setenv("ELF_HOME", str(tmp_path))
    return resolve(replace(tiny(), name="mine"), "tiny")


def sampled(config: RunConfig, **settings: Any) -> RunConfig:
    return replace(config, sample=replace(config.sample, **settings))


def trained(config: RunConfig, **settings: Any) -> RunConfig:
    return replace(config, train=replace(config.train, **settings))


def start(config: RunConfig, **asked: Any) -> Path:
    """A claim as the job makes it, up to the first step."""
    claim = examine(config, "tiny", **asked)
    claim.take(data=A, codec=B)
    return claim.folder


def train(config: RunConfig, step: int) -> Path:
    """A run with a checkpoint."""
    folder = start(config)
    (folder / f"checkpoints/step-{step:08d}").mkdir(parents=True)
    return folder


def finish(config: RunConfig, **asked: Any) -> Path:
    """A run that was trained to its end and left its results."""
    folder = start(config, **asked)
    (folder / f"checkpoints/step-{config.train.steps:08d}").mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps({"steps": float(config.train.steps), "made_with": afterwards_hash(config)}))
    return folder


def test_the_same_settings_find_the_same_run(config: RunConfig) -> None:
    folder = train(config, 80)
    claim = examine(config, "tiny")
    assert (claim.folder, claim.fresh, claim.finished, claim.step, claim.notes) == (folder, False, False, 80, ())
    assert read_config(folder / "config.json")[0] == config


def test_a_taken_name_is_refused_naming_what_differs(config: RunConfig) -> None:
    folder = train(config, 80)
    before = (folder / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"name mine is taken .*optim\.lr: \S+ -> 0\.5.*--name"):
        examine(replace(config, optim=replace(config.optim, lr=0.5)), "tiny")
    assert (folder / "config.json").read_bytes() == before, "a refused command changes nothing"


def test_examining_changes_nothing(config: RunConfig) -> None:
    examine(config, "tiny")
    assert list(config.storage.iterdir()) == []


@pytest.mark.parametrize("left", ["nothing", "a start", "validation before the first step"])
def test_a_name_without_a_step_is_claimed_again_by_other_settings(left: str, config: RunConfig) -> None:
    folder = config.storage / "runs/mine"
    other = replace(config, optim=replace(config.optim, lr=0.5))
    if left != "nothing":
        start(config)
        (folder / "notes.txt").write_text("the user's own")
        (folder / "events.jsonl").write_text('{"step": 0, "time": 1.0, "kind": "attempt", "text": "1 worker"}\n')
    if left == "validation before the first step":
        (folder / "metrics.jsonl").write_text('{"step": 0, "time": 1.0, "metrics": {"valid/loss": 3.0}}\n')
    claim = examine(other, "tiny")
    assert claim.fresh and bool(claim.notes) == (left != "nothing")
    if left != "nothing":
        assert "never did a step (optim.lr: 0.008 -> 0.5)" in claim.notes[0]
    claim.take(data=B, codec="")  # other data, and no codec
    assert read_config(folder)[0] == other and (folder / "data.sha256").read_text().strip() == B
    assert not (folder / "metrics.jsonl").exists() and not (folder / "events.jsonl").exists() and not (folder / "codec.sha256").exists()
    assert left == "nothing" or (folder / "notes.txt").is_file()


def test_a_start_of_the_same_settings_keeps_its_record(config: RunConfig) -> None:
    folder = start(config)
    (folder / "tracking.json").write_text("{}")
    start(config)
    assert (folder / "tracking.json").is_file(), "the tracked run would be another one"


@pytest.mark.parametrize("held", ["checkpoint", "figures", "summary", "artefact"])
def test_what_was_trained_is_never_claimed_by_others(held: str, config: RunConfig) -> None:
    folder = start(config)
    if held == "figures":
        (folder / "metrics.jsonl").write_text('{"step": 5, "time": 1.0, "metrics": {"train/loss": 3.0}}\n')
    elif held == "summary":
        (folder / "summary.json").write_text("{}")
    else:
        (folder / ("artefact" if held == "artefact" else "checkpoints/step-00000080")).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"taken by a run with other settings \(seed: 0 -> 1\)"):
        examine(replace(config, seed=1), "tiny")
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="does not say of which settings.*Put its config.json back"):
        examine(config, "tiny")


def test_a_torn_config_of_a_start_is_no_claim(config: RunConfig) -> None:
    (start(config) / "config.json").write_text("{")
    assert examine(config, "tiny").fresh


@pytest.mark.parametrize("fails", ["paths", "preflight", "codec"])
def test_a_start_that_fails_claims_nothing(fails: str, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job itself, on Ray or before it: no folder is left, and other settings take the name."""

    class Local:
        """In place of a cluster: what fails here fails before any task is placed."""

        def __enter__(self) -> "Local":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        cpus, gpus, nodes, local = 2.0, 0.0, 1, True

    monkeypatch.setattr(job, "connect", Local)
    monkeypatch.setattr(job, "preflight", lambda config, cluster: (None, SimpleNamespace(line="", sums="")))
    if fails == "paths":
        config = replace(config, data=replace(config.data, paths=(str(config.storage / "no/such/*.txt"),)))
    elif fails == "preflight":
        def refuse(config: RunConfig, cluster: Local) -> None:
            raise ValueError("no such machine")

        monkeypatch.setattr(job, "preflight", refuse)
    else:
        config = replace(config, codec=replace(config.codec, global_batch=1), train=replace(config.train, workers=2))
    with pytest.raises((ValueError, OSError), match=r"no/such|no such machine|has not a row"):
        job.pretrain(config, "tiny")
    assert not (config.storage / "runs/mine").exists()
    other = replace(config, seed=1, data=tiny().data, codec=tiny().codec)
    assert examine(other, "tiny").fresh


def test_a_tracking_refusal_takes_the_claim_back(config: RunConfig) -> None:
    claim = examine(config, "tiny")
    with exclusive(claim.folder, "it"):
        claim.take(data=A, codec="")
        claim.release()
    assert not claim.folder.exists()


def test_other_workers_may_continue_a_run(config: RunConfig) -> None:
    folder = train(config, 80)
    start(trained(config, workers=2))
    assert read_config(folder / "config.json")[0].train.workers == 2 and read_history(folder) == []


def test_a_finished_run_is_finished_until_its_samples_are_to_be_others(config: RunConfig) -> None:
    folder = finish(config)
    assert examine(config, "tiny").finished and examine(trained(config, workers=2), "tiny").finished
    claim = examine(sampled(config, steps=4, guidance=2.0), "tiny")
    assert not claim.finished and claim.anew
    assert "made anew with sample.steps: 32 -> 4; sample.guidance: 1.5 -> 2.0" in claim.notes[0]
    claim.take(data=A, codec=B)
    assert read_config(folder)[0] == claim.config
    assert read_history(folder)[0]["changed"] == {"sample.steps": [32, 4], "sample.guidance": [1.5, 2.0]}
    (event,) = read_events(folder)
    assert (event.kind, event.step, event.text) == ("settings", 320, "sample.steps: 32 -> 4; sample.guidance: 1.5 -> 2.0")
    again = examine(claim.config, "tiny")
    assert not again.finished, "the summary is still that of the earlier samples"
    finish(claim.config)
    assert examine(claim.config, "tiny").finished


def test_a_damaged_artefact_is_made_again_from_its_checkpoint(config: RunConfig) -> None:
    folder = finish(config)
    small_artefact(folder / "artefact")
    assert examine(config, "tiny").finished
    weights = folder / "artefact/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert not examine(config, "tiny").finished
    (folder / f"checkpoints/step-{config.train.steps:08d}").rmdir()
    assert examine(config, "tiny").finished, "there is nothing to make it from, and training it anew would take the rest away too"


def test_a_judge_that_was_missing_is_given_later(config: RunConfig) -> None:
    finish(trained(config, judge="none"))
    claim = examine(trained(config, judge="tiny"), "tiny")
    assert claim.anew and not claim.finished


def test_a_summary_of_an_earlier_version_counts_until_something_changes(config: RunConfig) -> None:
    folder = finish(config)
    (folder / "summary.json").write_text(json.dumps({"steps": 320.0}))
    assert examine(config, "tiny").finished
    assert not examine(sampled(config, seed=1), "tiny").finished
    start(sampled(config, seed=1))
    assert not examine(sampled(config, seed=1), "tiny").finished
    (folder / "summary.json").write_text("{")
    assert not examine(config, "tiny").finished


def test_an_automatic_name_keeps_a_run_whose_samples_change(config: RunConfig) -> None:
    config = resolve(replace(config, name=""), "tiny")
    finish(config)
    other = resolve(replace(sampled(config, steps=4), name=""), "tiny")
    assert other.name == config.name and examine(other, "tiny").anew


def test_more_steps_are_refused_with_the_command_that_extends(config: RunConfig) -> None:
    folder = finish(config)
    longer = sampled(trained(config, steps=640), seed=7)
    with pytest.raises(ValueError, match="one of 320 steps, and this asks for 640 with the same settings") as refused:
        examine(longer, "tiny")
    line = str(refused.value).splitlines()[-1].strip()
    assert line == "python jobs/pretrain.py --extend mine --train.steps 640 --sample.seed 7"
    pasted = parse_run_config(shlex.split(line)[2:])
    assert pasted.config == longer and pasted.extend and pasted.recipe == "tiny"
    assert read_config(folder)[0] == config


def test_extending_keeps_what_was_until_the_new_is_there(config: RunConfig) -> None:
    folder = finish(config)
    longer = trained(config, steps=640)
    claim = examine(longer, "tiny", extend=True)
    assert not claim.finished and not claim.anew and claim.step == 320
    assert "goes on from step 320 to 640 (it was to end at 320)" in claim.notes[0]
    claim.take(data=A, codec=B)
    assert (folder / "summary.json").is_file() and read_config(folder)[0] == longer
    assert [entry["changed"] for entry in read_history(folder)] == [{"train.steps": [320, 640]}]
    assert [(event.kind, event.step, event.text) for event in read_events(folder)] == [("extend", 320, "train.steps: 320 -> 640")]
    assert not examine(longer, "tiny").finished, "the summary is that of 320 steps; the same command resumes"
    assert finish(longer, extend=True) == folder and examine(longer, "tiny").finished
    with pytest.raises(ValueError, match="was extended to 640 steps, and this asks for 320") as refused:
        examine(config, "tiny")
    assert str(refused.value).splitlines()[-1].strip() == "python jobs/pretrain.py --extend mine"
    with pytest.raises(ValueError, match="was extended to 640 steps"):
        examine(trained(config, steps=100), "tiny", extend=True)


def test_an_automatic_name_says_which_run_could_be_extended(config: RunConfig) -> None:
    short = resolve(replace(config, name=""), "tiny")
    finish(short)
    longer = resolve(replace(trained(config, steps=640), name=""), "tiny")
    claim = examine(longer, "tiny")
    assert claim.fresh and longer.name != short.name
    (note,) = claim.notes
    assert f"the run {short.name} has these settings and 320 steps. This one, {longer.name}, starts from step 0" in note
    assert note.splitlines()[-1].strip() == f"python jobs/pretrain.py --extend {short.name} --train.steps 640"
    finish(trained(short, steps=640), extend=True)
    assert find_run(longer, "tiny") == longer, "an extended run is not the one that was trained so from the start"
    (note,) = examine(longer, "tiny").notes
    assert note.splitlines()[-1].strip() == f"python jobs/pretrain.py --extend {short.name}"
    assert examine(replace(longer, seed=3), "tiny").notes == ()
    again = parse_run_config(["--config", str(config.storage / "runs" / short.name), "--train.workers", "2"])
    assert again.config.name == short.name and examine(again.config, "tiny").finished


def test_config_says_that_weights_start_anew(config: RunConfig) -> None:
    folder = finish(config)
    parsed = parse_run_config(["--config", str(folder), "--optim.lr", "0.5", "--name", "other"])
    assert parsed.based_on == str(folder)
    (note,) = examine(parsed.config, parsed.recipe, based_on=parsed.based_on).notes
    assert "takes the settings of" in note and "the weights start anew" in note
    assert note.splitlines()[-1].strip() == f"python jobs/pretrain.py --extend {folder} --train.steps {2 * config.train.steps}"
    parsed = parse_run_config(["--config", str(folder / "config.json"), "--train.steps", "640", "--name", "other"])
    first, second = examine(parsed.config, parsed.recipe, based_on=parsed.based_on).notes
    assert "the weights start anew" in first and second.endswith("python jobs/pretrain.py --extend mine --train.steps 640")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--extend mine --optim.lr 1", "would make it another one (optim.lr: 0.008 -> 1.0)"),
        ("--extend mine --name other", 'would make it another one (name: "mine" -> "other")'),
        ("tiny --extend mine", "leave a recipe away"),
        ("--extend mine --config x", "leave --config away"),
        ("--extend mine --codec table", "leave --codec away"),
        ("--extend mien", "did you mean mine?"),
        ("--extend", "--extend needs a value"),
    ],
)
def test_only_continuation_settings_go_with_extend(line: str, says: str, config: RunConfig) -> None:
    finish(config)
    with pytest.raises((ValueError, OSError)) as refused:
        parse_run_config(line.split())
    assert says in str(refused.value)


def test_a_run_is_extended_by_name_folder_or_file_and_where_it_was_moved(config: RunConfig, tmp_path: Path) -> None:
    folder = finish(config)
    for run in ("mine", str(folder), str(folder / "config.json")):
        parsed = parse_run_config(["--extend", run, "--train.steps", "640", "--train.workers", "2", "--tracking.kind", "null"])
        assert parsed.config.name == "mine" and parsed.config.storage == tmp_path and parsed.config.train.workers == 2
    moved = tmp_path / "else where" / "runs" / "mine"
    moved.parent.mkdir(parents=True)
    folder.rename(moved)
    parsed = parse_run_config(["--extend", "mine", "--storage", str(tmp_path / "else where")])
    assert (parsed.config.name, parsed.config.storage) == ("mine", tmp_path / "else where")
    with pytest.raises(ValueError) as refused:
        examine(trained(parsed.config, steps=640), "tiny")
    pasted = parse_run_config(shlex.split(str(refused.value).splitlines()[-1])[2:])
    assert pasted.config == trained(parsed.config, steps=640)
    moved.rename(moved.with_name("renamed"))
    parsed = parse_run_config(["--extend", str(moved.with_name("renamed"))])
    assert parsed.config.name == "renamed" and examine(parsed.config, "tiny", extend=True).finished


def test_the_schedule_of_an_extended_run_in_numbers(config: RunConfig) -> None:
    cosine = OptimConfig(lr=8e-3, warmup_steps=30, decay="cosine", final_lr_ratio=0.1, ema_decay=0.98)
    rate, average = course_notes(replace(trained(config, steps=640), optim=cosine), before=320, at=320)
    was, there = learning_rate(319, cosine, 320), learning_rate(320, cosine, 640)
    assert f"rises from {was:.4g} to {there:.4g} at step 320" in rate and "ends at 0.0008" in rate and was == pytest.approx(8e-4)
    assert "(cosine) is that of 640 steps now" in rate and "the run is not the one" in rate
    assert "of what it held at step 320, 0.2% are left in it at step 640" in average
    rate, _ = course_notes(replace(trained(config, steps=80), optim=OptimConfig(lr=8e-3, warmup_steps=30)), before=40, at=40)
    assert rate == "learning rate: goes on at 0.008; the run is the one that 80 steps from the start would have given"
    rate, _ = course_notes(replace(trained(config, steps=640), optim=cosine), before=320, at=10)
    assert "is that of 640 steps now" in rate, "still warming up, but the rest is another"


def test_a_moved_corpus_is_the_same_when_its_text_is(config: RunConfig) -> None:
    folder = train(config, 80)
    moved = replace(config, data=replace(config.data, paths=("/else/where.txt",)))
    claim = examine(moved, "tiny")
    assert not claim.fresh and "goes on if the text is the same" in claim.notes[0]
    assert claim.begun_on == "" and examine(config, "tiny").begun_on == A
    with pytest.raises(ValueError, match="the corpus has changed"):
        claim.take(data=B, codec=B)
    assert read_config(folder)[0] == config
    claim.take(data=A, codec=B)
    assert read_config(folder)[0] == moved
    automatic = resolve(replace(config, name=""), "tiny")
    (note,) = examine(automatic, "tiny").notes
    assert "the run mine differs from this one only in where the text lies, /else/where.txt" in note
    assert note.splitlines()[-1].strip() == "python jobs/pretrain.py --extend mine --data.paths builtin"


def test_a_run_does_not_go_on_with_other_data(config: RunConfig) -> None:
    train(config, 80)
    examine(config, "tiny").check(data=A, codec=B)
    with pytest.raises(ValueError, match="the corpus has changed"):
        examine(config, "tiny").check(data=B, codec=B)
    with pytest.raises(ValueError, match="with another outcome"):
        examine(config, "tiny").check(data=A, codec=A)


def test_a_start_may_have_its_corpus_changed(config: RunConfig) -> None:
    folder = start(config)
    assert examine(config, "tiny").begun_on == ""
    examine(config, "tiny").take(data=B, codec=A)
    assert (folder / "data.sha256").read_text().strip() == B


OLD = """{"format": 1, "recipe": "tiny", "code_version": "0.1.0", "name": "tiny-aa7c6d04", "storage": "/home/someone/elf-runs", "seed": 0,
"data": {"paths": [], "text_column": "text", "source_column": "", "source_length": 0, "split_by": "target", "tokenizer": {"source": "bpe",
"vocab_size": 4096, "sample_mb": 4.0}, "length": 64, "packing": "concat", "valid_fraction": 0.01, "strict": false, "shard_mb": 64.0},
"codec": {"kind": "own", "path": "", "channels": 256, "network": {"hidden": 128, "depth": 2, "heads": 4, "bottleneck": 128,
"prefix_tokens": 4, "dropout": 0.0, "rope_theta": 10000.0}, "steps": 240, "global_batch": 32, "lr": 0.008, "corrupt_prob": 0.25,
"random_share": 0.2, "seed": 0, "precision": "fp32"}, "process": {"kind": "elf", "noise_scale": 2.0, "time_mean": -1.5, "time_std": 0.8,
"t_eps": 0.05, "decoder_prob": 0.2, "decoder_level_mean": 0.8, "decoder_level_std": 0.8, "decoder_noise_scale": 5.0,
"self_cond_prob": 0.5, "guidance_min": 0.5, "guidance_max": 5.0, "condition_drop_prob": 0.1, "loss_on_padding": false,
"decoder_keeps_condition": false, "tokens_from": "trunk"}, "network": {"hidden": 128, "depth": 4, "heads": 4, "bottleneck": 128,
"prefix_tokens": 2, "dropout": 0.0, "rope_theta": 10000.0}, "optim": {"name": "muon", "lr": 0.008, "momentum": 0.95, "betas": [0.9,
0.999], "eps": 1e-08, "weight_decay": 0.0, "clip_norm": 1.0, "warmup_steps": 30, "decay": "cosine", "final_lr_ratio": 0.1,
"ema_decay": 0.98}, "train": {"steps": 320, "global_batch": 64, "micro_batch": 0, "workers": 1, "min_workers": 0, "resize_every_s": 60.0,
"gpu": "auto", "threads": 0, "precision": "fp32", "activation_checkpointing": false, "log_every": 5, "valid_every": 40,
"valid_rows": 256, "sample_every": 80, "judge": "tiny", "checkpoint_every": 80, "keep": 3, "keep_best": false, "keep_every": 0,
"max_failures": 3, "stop_within_s": 120.0, "record_rows": false}, "engine": {"kind": "auto", "zero": 0}, "health": {"on_bad_step": "skip",
"spike_factor": 0.0, "window": 64, "max_bad_steps": 10, "replicas_every": 500, "stall_s": 600.0, "timeout_s": 1800.0},
"sample": {"sampler": "sde", "steps": 32, "gamma": 1.0, "grid": "logit-normal", "grid_density": [], "guidance": 1.5, "cfg": 1.0,
"cfg_rule": "code", "guidance_from": 0.0, "guidance_to": 1.0, "sde_update": "renoised", "temperature": 1.0, "top_p": 1.0, "count": 8,
"seed": 0}, "tracking": {"kind": "mlflow", "uri": "", "experiment": "elf"}}"""
"""config.json of the default command as the first format was written, under a name that was another hash."""


@pytest.fixture
def old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ELF_HOME", str(tmp_path))
    folder = tmp_path / "runs/tiny-aa7c6d04"
    (folder / "checkpoints/step-00000320").mkdir(parents=True)
    (folder / "config.json").write_text(OLD)
    (folder / "data.sha256").write_text(A)
    (folder / "summary.json").write_text('{"run": "tiny-aa7c6d04", "steps": 320.0}')
    return folder


@pytest.mark.parametrize("line", ["", "tiny", "--config {folder}", "--config {folder}/config.json", "tiny --train.workers 2"])
def test_a_run_of_an_earlier_version_is_found_by_the_same_command(line: str, old_run: Path) -> None:
    parsed = parse_run_config(line.format(folder=old_run).split())
    found = find_run(parsed.config, parsed.recipe)
    assert found.name == old_run.name
    claim = examine(found, parsed.recipe, based_on=parsed.based_on)
    assert claim.finished and claim.folder == old_run and claim.notes == ()


def test_other_settings_do_not_find_the_earlier_run(old_run: Path) -> None:
    for line in ("tiny --seed 1", "tiny --train.steps 321", "ar-tiny", "tiny --name mine", "tiny --data.paths a.txt"):
        parsed = parse_run_config(line.split())
        assert find_run(parsed.config, parsed.recipe).name == parsed.config.name != old_run.name


def test_of_two_earlier_runs_the_one_with_the_same_samples_is_found(old_run: Path) -> None:
    parsed = parse_run_config(["tiny"])
    other = old_run.with_name("tiny-00000000")
    other.mkdir()
    plain = json.loads(OLD)
    plain["sample"]["steps"] = 8
    (other / "config.json").write_text(json.dumps(plain))
    assert find_run(parsed.config, "tiny").name == old_run.name
    assert find_run(sampled(parsed.config, steps=8), "tiny").name == other.name


def test_an_earlier_run_is_extended(old_run: Path) -> None:
    parsed = parse_run_config(["--extend", old_run.name, "--train.steps", "640"])
    claim = examine(parsed.config, parsed.recipe, extend=True)
    assert claim.step == 320 and not claim.finished
    claim.take(data=A, codec=B)
    assert json.loads((old_run / "config.json").read_text())["format"] == 2


def test_foreign_files_among_the_runs_are_passed_over(config: RunConfig) -> None:
    for name, text in (("tiny-00000001", "{"), ("tiny-00000002", '{"format": 99, "process": {}}'), ("other", "[]")):
        (config.storage / "runs" / name).mkdir(parents=True)
        (config.storage / "runs" / name / "config.json").write_text(text)
    automatic = resolve(replace(config, name=""), "tiny")
    assert find_run(automatic, "tiny") == automatic and examine(automatic, "tiny").fresh


def test_a_run_in_use_is_refused_naming_who_holds_it(config: RunConfig) -> None:
    folder = start(config)
    in_use = pytest.raises(ValueError, match=f"the run mine is in use by process {os.getpid()} on .*--name")
    with exclusive(folder, "the run mine"), in_use, exclusive(folder, "the run mine"):
        pass
    with exclusive(folder, "the run mine"):
        pass
    assert (folder / "config.json").is_file()


def test_who_looks_whether_a_run_is_held_keeps_nobody_from_it(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """To look, ``is_held`` takes the lock for a moment."""
    folder = start(config)
    with exclusive(folder, "the run mine"):
        assert is_held(folder)
    assert not is_held(folder)
    monkeypatch.setattr("elf_platform.lock.GLANCE_S", 1.0)
    looking = (folder / "lock").open("r+")
    fcntl.flock(looking, fcntl.LOCK_EX)
    threading.Timer(0.05, looking.close).start()
    with exclusive(folder, "the run mine"):
        pass


def test_a_link_to_nowhere_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "it").symlink_to(tmp_path / "gone")
    with pytest.raises(FileExistsError), exclusive(tmp_path / "it", "it"):
        pass


def test_a_second_one_can_wait(tmp_path: Path) -> None:
    """Also when the first leaves nothing, so that the folder in which the second waits is removed under it."""
    told: list[str] = []
    order: list[str] = []
    folder = tmp_path / "it"

    def second() -> None:
        with exclusive(folder, "it", wait=told.append):
            order.append("second")
            assert (folder / "lock").is_file()
            with pytest.raises(ValueError, match="in use"), exclusive(folder, "it"):
                pass

    thread = threading.Thread(target=second)
    with exclusive(folder, "it"):
        thread.start()
        while not told:
            time.sleep(0.01)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"] and len(told) == 1 and "waiting" in told[0]
    assert not folder.exists()


def test_many_take_turns_in_a_folder_that_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elf_platform.lock.WAIT_S", 0.001)
    inside, most, turns = [0], [0], 40

    def take_turns() -> None:
        for _ in range(turns):
            with exclusive(tmp_path / "it", "it", wait=lambda said: None):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.0005)
                inside[0] -= 1

    threads = [threading.Thread(target=take_turns) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] and not any(thread.is_alive() for thread in threads)


def test_a_run_goes_on_with_its_data_unless_another_corpus_is_named(config: RunConfig) -> None:
    assert examine(config, "tiny").begun_on == ""
    start(config)
    assert examine(config, "tiny").begun_on == "", "nothing was trained on them"
    train(config, 80)
    assert examine(config, "tiny").begun_on == A
    moved = replace(config, data=replace(config.data, paths=("/else/where.txt",)))
    assert examine(moved, "tiny").begun_on == ""
