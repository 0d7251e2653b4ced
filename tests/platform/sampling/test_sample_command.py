"""What a command line asks of an artefact, and what it is refused for; samples do not know each other."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from sample_folders import fill, task_of
from small_artefact import edit_config, small_artefact

from elf.artefact import load_artefact
from elf.processes import Autoregressive, EmbeddedFlow
from elf_platform.capacity import Cluster, Node, growth_of
from elf_platform.cli import parse_settings
from elf_platform.lock import exclusive
from elf_platform.sampling.command import SampleCommand, Task
from elf_platform.sampling.folder import read_samples
from elf_platform.sampling.job import fill_folder, print_samples
from elf_platform.sampling.pool import Pool, plan_pool, sampling_device
from elf_platform.sampling.rows import load_sampler, sample_batch


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("artefacts")
    conditional = EmbeddedFlow(loss_on_padding=True, decoder_noise_scale=1.0)
    return {
        "elf": small_artefact(root / "elf"),
        "conditional": small_artefact(root / "conditional", conditional, source_length=6),
        "autoregressive": small_artefact(root / "autoregressive", Autoregressive()),
    }


@pytest.fixture(autouse=True)
def settings_of_torch() -> Iterator[None]:
    """Sampling fixes them for its process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def rows_of(task: Task) -> list[dict[str, Any]]:
    sampler = load_sampler(task)
    return [row for part, keep in enumerate(task.sizes) for row in sample_batch(sampler, task.ids(part), task.sources_of(part), keep)]


def parse(*words: str) -> SampleCommand:
    return parse_settings(SampleCommand, words, prog="sample")


def test_a_sample_depends_on_seed_and_id_alone(models: dict[str, Path]) -> None:
    """At other compute batches only roundings may differ; these samples are small enough for none to matter."""
    for kind in ("elf", "autoregressive"):
        whole = rows_of(task_of(models[kind], count=12, compute_batch=12))
        for batch in (5, 1):
            rows = rows_of(task_of(models[kind], count=12, compute_batch=batch))
            equal = sum(a["tokens"] == b["tokens"] for a, b in zip(whole, rows, strict=True))
            assert equal == 12, (kind, batch)
        assert rows_of(task_of(models[kind], count=7, compute_batch=12)) == whole[:7], "the count cuts, and changes nothing else"
        other = rows_of(task_of(models[kind], count=12, compute_batch=12, seed=1))
        assert all(a["tokens"] != b["tokens"] for a, b in zip(whole, other, strict=True) if a["tokens"])


def test_bfloat16_is_repeatable_and_another_run(models: dict[str, Path]) -> None:
    task = task_of(models["elf"], count=12, compute_batch=12, precision="bf16")
    rows = rows_of(task)
    assert rows == rows_of(task) and task.run.precision == "bf16"
    fp32 = rows_of(task_of(models["elf"], count=12, compute_batch=12))
    assert [row["tokens"] for row in rows] != [row["tokens"] for row in fp32], "or the trunk did not run in bfloat16"


def test_sources_stand_in_their_lines_and_empty_ones_stay_empty(models: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "sources.txt"
    path.write_text("the sun\n\nthe river and the road and the sun\nroad\n")
    for kind in ("conditional", "autoregressive"):
        task = task_of(models[kind], sources=path, compute_batch=3, per_source=2)
        manifest = fill(task, tmp_path / kind)
        rows = read_samples(tmp_path / kind)[1]
        assert [row["source"] for row in rows] == [line for line in path.read_text().splitlines() for _ in range(2)]
        assert [bool(row["tokens"]) for row in rows if not row["source"]] == [False, False]
        assert all(row["nfe"] == 0 and row["text"] == "" for row in rows[2:4])
        artefact = load_artefact(models[kind])
        room = artefact.sizes.length - (artefact.sizes.source_length or 1)
        assert task.run.target_length == room and all(len(row["tokens"]) <= room for row in rows)
        assert sum(bool(row["tokens"]) for row in rows) >= 4 and rows[0]["tokens"] != rows[1]["tokens"]
        cut = [row["truncated"] for row in rows]
        assert cut == [kind == "conditional" and k in (4, 5) for k in range(8)]
        facts = manifest["sources"]
        assert (facts["lines"], facts["per_source"], facts["empty"], facts["truncated"]) == (4, 2, 1, 1 if kind == "conditional" else 0)


def test_the_source_decides_the_sample(models: dict[str, Path]) -> None:
    """And a neighbour's source does not: alone or among others, one source gives one sample."""
    one = rows_of(task_of(models["conditional"], prompt="the sun", compute_batch=1, per_source=2))
    other = rows_of(task_of(models["conditional"], prompt="the river", compute_batch=1, per_source=2))
    assert one[0]["tokens"] != other[0]["tokens"]
    task = task_of(models["conditional"], prompt="the sun", compute_batch=4, per_source=2)
    sampler = load_sampler(task)
    strangers = task_of(models["conditional"], prompt="the river", compute_batch=4).sources_of(0)
    mixed = sample_batch(sampler, task.ids(0), [task.sources_of(0)[0], *strangers[1:]], 1)
    assert mixed[0]["tokens"] == one[0]["tokens"]


def test_a_part_whose_sources_are_all_empty_costs_nothing(models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    rows = rows_of(task_of(models["conditional"], sources=tmp_path / "empty.txt"))
    assert [(row["id"], row["text"], row["nfe"]) for row in rows] == [(0, "", 0), (1, "", 0)]


def test_printing_goes_through_the_same_function(models: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    printed = print_samples(parse(str(models["elf"]), "--count", "3", "--steps", "3", "--threads", "1", "--gpu", "off"))
    out, said = capsys.readouterr()
    assert printed == rows_of(task_of(models["elf"], count=3, compute_batch=3))
    assert all(f"[{k}] {row['text']}" in out for k, row in enumerate(printed)) and "4 network evaluations each (NFE)" in said
    (tmp_path / "s.txt").write_text("the river and the road and the sun\n\n")
    print_samples(parse(str(models["conditional"]), "--sources", str(tmp_path / "s.txt"), "--steps", "2", "--cfg", "2", "--gpu", "off"))
    out, said = capsys.readouterr()
    assert "[0] 'the river and the road and the sun' -> " in out and "2 samples of 2 sources, 1 cut to the model's length, 1 empty" in said


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--count", "0"], "--count is 0, but must be between 1 and 100000000"),
        (["--count", "-3"], "--count is -3, but must be between 1 and 100000000"),
        (["--steps", "0"], "--steps is 0, but must be between 1 and 1000000"),
        (["--sampler", "euler"], "'ode'.*'sde'.*'heun'"),
        (["--grid", "cosine"], "'logit-normal'.*'uniform'"),
        (["--compute_batch", "0"], "--compute_batch is 0, but must be at least 1"),
        (["--actors", "-1"], "--actors is -1, but must be between 0 and 100000"),
        (["--actors", "2"], "but the samples are to be printed; give --out"),
        (["--strict"], "are about sources, but none are given"),
        (["--prompt", "a", "--sources", "b.txt"], "give one of them"),
        (["--prompt", "a", "--count", "2"], "--count is given by the sources"),
        (["--stepps", "3"], "did you mean steps"),
    ],
)
def test_command_lines_that_are_refused(words: list[str], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        parse("artefact", *words)


@pytest.mark.parametrize(
    ("kind", "settings", "match"),
    [
        ("elf", {"cfg": 2.0}, "classifier-free guidance needs a conditional model"),
        ("elf", {"prompt": "the sun"}, "was trained without sources, and the process elf cannot continue a text"),
        ("elf", {"temperature": 0.5}, "has no effect with the elf process"),
        ("conditional", {}, r"is a conditional model: .* up to 6 tokens .* give --sources FILE"),
        ("conditional", {"prompt": "the river and the road and the sun", "strict": True}, "--prompt: source 1 has .* takes at most 6"),
        ("autoregressive", {"sampler": "heun"}, "draws token by token and has temperature"),
        ("autoregressive", {"steps": 8}, "--steps 8 has no effect with the process autoregressive"),
        ("autoregressive", {"guidance": 2.0}, "--guidance 2.0 has no effect with the process autoregressive"),
        ("autoregressive", {"compile": True}, "--compile does not pay for the process autoregressive"),
    ],
)
def test_what_an_artefact_cannot_do(models: dict[str, Path], kind: str, settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        task_of(models[kind], **settings)


def drop_codec(folder: Path) -> None:
    edit_config(folder, lambda c: c.update(files={name: sha for name, sha in c["files"].items() if not name.startswith("codec/")}))


def drop_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    del state["mode_tokens"]
    save_file(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit_config(folder, lambda c: c["files"].update({"model.safetensors": digest}))


def alter_tensor(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (drop_codec, "has no codec, which encodes the sources"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "is not whole: tokenizer.json"),
        (lambda folder: (folder / "codec/codec.safetensors").unlink(), "is not whole: codec/codec.safetensors"),
        (lambda folder: edit_config(folder, lambda c: c.update(format=9)), "has format 9, but this version reads format 1"),
        (drop_tensor, "1 missing .mode_tokens"),
        (alter_tensor, "altered or damaged"),
        (lambda folder: (folder / "config.json").unlink(), "there is no artefact at"),
    ],
)
def test_artefacts_that_are_not_whole_are_refused_before_any_work(harm: Callable[[Path], object], match: str, tmp_path: Path) -> None:
    """By both ways of the job, and before the folder or a cluster is made."""
    folder = small_artefact(tmp_path / "artefact", source_length=6)
    harm(folder)
    for out in ([], ["--out", str(tmp_path / "out")]):
        command = parse(str(folder), "--prompt", "the sun", "--gpu", "off", *out)
        with pytest.raises((ValueError, FileNotFoundError), match=match):
            fill_folder(command, command.out) if command.out else print_samples(command)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_another_process_fills_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    with (
        exclusive(tmp_path / "out", "it"),
        pytest.raises(ValueError, match=r"the sample folder .* is in use by process .* another --out"),
    ):
        fill_folder(parse(str(models["elf"]), "--count", "2"), tmp_path / "out")


def test_actors_take_what_there_is() -> None:
    here = Cluster(nodes=(Node(cpus=4.0, gpus=2.0),), local=True)
    assert plan_pool(here, actors=0, threads=1, device="cpu", parts=9) == Pool(actors=4, cpus=1, gpus=0)
    assert plan_pool(here, actors=0, threads=3, device="cpu", parts=9) == Pool(actors=1, cpus=3, gpus=0)
    assert plan_pool(here, actors=3, threads=1, device="cpu", parts=2) == Pool(actors=2, cpus=1, gpus=0), "no actor without a part"
    assert plan_pool(here, actors=0, threads=1, device="cuda", parts=9) == Pool(actors=2, cpus=1, gpus=1)
    for actors, threads, device in ((5, 1, "cpu"), (0, 5, "cpu"), (3, 1, "cuda")):
        with pytest.raises(ValueError, match="not fit: this machine has 4 CPUs and 2 GPUs, .* lower --actors or --threads"):
            plan_pool(here, actors=actors, threads=threads, device=device, parts=9)
    grows = Cluster(nodes=(Node(cpus=1.0),), local=False)
    assert plan_pool(grows, actors=8, threads=1, device="cpu", parts=9).actors == 8
    two = Cluster(nodes=(Node(cpus=4.0), Node(cpus=4.0)), local=False)
    assert plan_pool(two, actors=0, threads=3, device="cpu", parts=9).actors == 2, "one a node, not 8 // 3 with one of them nowhere"
    with pytest.raises(ValueError, match="1 actor with 8 CPU threads each does not fit: the cluster has 2 nodes of 4 CPUs"):
        plan_pool(two, actors=0, threads=8, device="cpu", parts=9)


def test_a_gpu_cluster_that_is_scaled_to_zero_samples_on_gpus() -> None:
    limits = growth_of(yaml.safe_load((Path(__file__).parents[3] / "cluster.yaml").read_text()))
    zero = Cluster(nodes=(Node(cpus=4),), local=False, growth=limits)
    device, note = sampling_device("auto", zero)
    assert device == "cuda" and "scales up" in note and "8 nodes of 8 CPUs and 1 GPU" in note
    assert plan_pool(zero, actors=0, threads=1, device=device, parts=99).actors == 8
    none = Cluster(nodes=(Node(cpus=4),), local=False)
    device, note = sampling_device("auto", none)
    assert device == "cpu" and "no GPU" in note, "never without a word"
    with pytest.raises(ValueError, match="--gpu is on, but there is no GPU"):
        sampling_device("on", none)
    assert sampling_device("off", zero) == ("cpu", "")
    assert sampling_device("auto", Cluster(nodes=(Node(cpus=4, gpus=1),), local=True)) == ("cuda", "")
