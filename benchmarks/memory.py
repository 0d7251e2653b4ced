"""Resident memory of a training worker at ZeRO 0 to 3 beside what the theory says, in real processes on a CPU.

    python benchmarks/memory.py                               # ELF-B (105 M parameters), 2 workers, Muon: some minutes, 7 GB of memory
    python benchmarks/memory.py --optimiser adamw --explain   # also every tensor of 1 MB or more that is held between steps
    python benchmarks/memory.py --hidden 256 --depth 4 --stages 2

Each stage trains a few steps of short rows over the product's own engine in ``--workers`` processes joined by gloo; the plain engine
trains the same in one process, for scale. All figures are GB (1e9 bytes) of the worker that holds most, above what the same process
held with its libraries loaded and its group joined, before the network was built; pages of library code are left out.

theory   what the preflight check counts (elf_platform.train.preflight): float32 weights, master copy, optimiser state and moving
         average make up `state`; the gradients come on top in `total`. The stage divides a part of them by the workers.
state    resident between two steps: gradients cleared, the allocator's free pages given back to the system. Stage 3 keeps the buffer of
         its gradients' partition, so compare it with `theory total`.
reserved bytes of all tensors alive at that moment. More than `state` where a buffer is allocated but not all of it was ever
         written: on a CPU such pages cost nothing, on a GPU they do.
forward  what a forward pass leaves for the backward pass: activations, and whatever the stage gathers.
peak     highest resident memory of a step, in its forward and backward passes and in its update: state, gradients, activations,
         the update's temporaries and the buffers of communication. building: highest while the network and the engine were built.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist

import elf_platform  # noqa: F401  sets what the libraries read when they are imported
from elf.batch import Batch
from elf.draws import Draws
from elf_platform.cli import run_main
from elf_platform.config import DataConfig, EngineConfig, RunConfig
from elf_platform.recipes import owt_elf_b
from elf_platform.sizes import expected_sizes, shape_network
from elf_platform.train.context import WorkerContext
from elf_platform.train.engine import Engine, build_engine
from elf_platform.train.module import ProcessModule
from elf_platform.train.preflight import memory_per_worker

GB = 1e9
SHOWN = 1_000_000  # bytes of the smallest tensor that --explain names


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line of the table; ``stage`` None is the plain engine in one process."""

    stage: int | None
    workers: int
    optimiser: Literal["muon", "adamw"]
    hidden: int
    depth: int
    length: int
    rows: int
    steps: int

    vocab_size: int = 0  # 0: the published one

    def sizes(self) -> tuple[int, int]:
        """Vocabulary and channels."""
        vocab_size, channels = expected_sizes(self.config())
        return self.vocab_size or vocab_size, channels

    def config(self) -> RunConfig:
        """ELF-B as published but for its sizes, its rows and its placement."""
        base = owt_elf_b()
        network = replace(base.network, hidden=self.hidden, depth=self.depth, heads=max(1, self.hidden // 64))
        optim = replace(base.optim, name=self.optimiser, warmup_steps=0)
        batch = self.rows * self.workers
        train = replace(base.train, steps=self.steps, global_batch=batch, micro_batch=0, workers=self.workers, gpu="off", precision="fp32")
        engine = EngineConfig(kind="plain") if self.stage is None else EngineConfig(kind="deepspeed", zero=self.stage)
        data = DataConfig(paths=base.data.paths, tokenizer=base.data.tokenizer, length=self.length)
        return replace(base, data=data, network=network, optim=optim, train=train, engine=engine)


def resident() -> dict[str, float]:
    """Bytes of this process now: all of it, private memory, files mapped (library code), and the highest since ``forget_peak``."""
    fields = {"VmRSS": "all", "RssAnon": "private", "RssFile": "files", "VmHWM": "highest"}
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {ours: float(lines[theirs].split()[0]) * 1024 for theirs, ours in fields.items()}


def forget_peak() -> None:
    """Start the highest resident memory anew from what is resident now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def settled() -> float:
    """Private bytes once what is free has been given back to the system."""
    gc.collect()
    with suppress(OSError, AttributeError):  # malloc_trim is glibc's
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return resident()["private"]


def train_steps(case: Case, engine: Engine, context: WorkerContext) -> Iterator[str]:
    """The steps of one worker on random rows and states; yields after each part of the work what was done."""
    config, (vocab_size, channels) = case.config(), case.sizes()
    generator = torch.Generator().manual_seed(1 + context.rank)
    for step in range(case.steps):
        batch = Batch.of_ids(torch.randint(0, vocab_size, (case.rows, case.length), generator=generator))
        state_BLC = torch.randn(case.rows, case.length, channels, generator=generator)
        rows = np.arange(case.rows, dtype=np.int64) + context.rank * case.rows
        draws = Draws(seed=0, step=step, rows=rows, total=case.rows * context.world_size, device=context.device)
        drawn = config.process.draw(draws, batch, channels)
        total = engine.forward(batch, state_BLC, drawn)[0]
        yield "forward"
        engine.backward(total / 1e4, last=True)
        yield "backward"
        engine.step(step)
        del total, drawn, state_BLC
        yield "update"


def build(case: Case, context: WorkerContext) -> Engine:
    """The product's engine around a seeded network."""
    torch.manual_seed(0)
    config, (vocab_size, channels) = case.config(), case.sizes()
    network = config.process.build_network(config.network, vocab_size=vocab_size, channels=channels, length=case.length)
    module = ProcessModule(config.process, network)
    return build_engine(config.engine_kind, module, config.optim, config.engine, context, total_steps=case.steps, accumulation=1)


def worker(case: Case, rank: int, folder: Path) -> dict[str, Any]:
    """Figures of one process, in bytes above its baseline."""
    torch.set_num_threads(1)
    os.environ.update(DS_ACCELERATOR="cpu", RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(case.workers))
    context = WorkerContext(rank=rank, world_size=case.workers, local_rank=rank, run_folder=folder)
    if case.stage is not None:
        dist.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=case.workers)
    # A tiny network is trained and dropped first: what libraries load or keep at their first use (0.1 GB) belongs to the baseline.
    tiny = replace(case, hidden=64, depth=1, length=8, steps=1, vocab_size=64)
    for _ in train_steps(tiny, build(tiny, context), context):
        pass
    base_private, base = settled(), resident()
    forget_peak()

    def peak() -> float:
        now = resident()
        return now["highest"] - base["all"] - (now["files"] - base["files"])

    earlier = {tensor.untyped_storage().data_ptr() for tensor in alive()}
    engine = build(case, context)
    figures: dict[str, Any] = {"building": peak()}
    before = settled()
    forget_peak()
    for done in train_steps(case, engine, context):
        if done == "forward":
            figures["forward"] = settled() - before
            continue
        figures[f"peak {done}"] = max(peak(), figures.get(f"peak {done}", 0.0))
        if done == "update":
            before = settled()
            figures["state"] = before - base_private
        forget_peak()
    held = storages(engine, earlier)
    figures["reserved"], figures["held"] = float(sum(held.values())), held
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
    return figures


def alive() -> Iterator[torch.Tensor]:
    """Every tensor that Python knows."""
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor) and thing.device.type == "cpu":  # isinstance would set off others' deprecation warnings
            yield thing


def storages(engine: Engine, earlier: set[int]) -> dict[str, int]:
    """Bytes of the tensors that are alive, each memory counted once, by the first place that reaches it from the engine; without the
    memory at the addresses ``earlier``."""
    state = engine.updater.state()
    known = {kind: [t for key, t in state.items() if key.split("/", 1)[0] == kind] for kind in {key.split("/", 1)[0] for key in state}}
    known["master weights"] = known.pop("weight")
    found: dict[int, tuple[str, int]] = {}

    def note(tensor: torch.Tensor, place: str) -> None:
        memory = tensor.untyped_storage()
        if memory.nbytes() and memory.data_ptr() not in earlier:
            found.setdefault(memory.data_ptr(), (place, memory.nbytes()))

    for place, tensors in known.items():
        for tensor in tensors:
            note(tensor, place)
    for place, tensor in reachable(engine):
        note(tensor, place)
    for tensor in alive():
        note(tensor, "elsewhere")
    sums: dict[str, int] = {}
    for place, size in found.values():
        sums[place] = sums.get(place, 0) + size
    return sums


def reachable(root: object) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors in attributes and containers, nearest first, each with the attributes that lead there."""
    queue: deque[tuple[str, Any]] = deque([("", root)])
    seen: set[int] = set()
    while queue:
        place, thing = queue.popleft()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            yield place, thing
            if thing.grad is not None:
                queue.append((f"{place}.grad", thing.grad))
        if isinstance(thing, dict):
            queue.extend((place, value) for value in list(thing.values()))
        elif isinstance(thing, list | tuple | set | deque):
            queue.extend((place, value) for value in list(thing))
        if hasattr(thing, "__dict__") and not isinstance(thing, type) and not callable(getattr(thing, "__code__", None)):
            mine = type(thing).__module__.split(".")[0] in ("elf", "elf_platform", "deepspeed", "torch")
            queue.extend((f"{place}.{name}".lstrip("."), value) for name, value in list(vars(thing).items()) if mine)


def run_case(case: Case) -> dict[str, Any]:
    """The highest of each figure over the workers of a case, each a process of its own."""
    with tempfile.TemporaryDirectory(prefix="elf-memory-") as folder:
        started = []
        for rank in range(case.workers):
            command = [sys.executable, __file__, "--worker", json.dumps({"case": asdict(case), "rank": rank, "folder": folder})]
            with open(Path(folder) / f"{rank}.err", "w") as errors:
                started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True))
        outputs = [process.communicate()[0] for process in started]
        for rank, process in enumerate(started):
            if process.returncode:
                raise RuntimeError(f"worker {rank} of {case} failed:\n{(Path(folder) / f'{rank}.err').read_text()[-3000:]}")
    everyone = [json.loads(output.splitlines()[-1]) for output in outputs]
    highest: dict[str, Any] = {name: max(figures[name] for figures in everyone) for name in everyone[0] if name != "held"}
    highest["held"] = max((figures["held"] for figures in everyone), key=lambda held: sum(held.values()))
    return highest


def theory(case: Case) -> tuple[float, float, str]:
    """Bytes of the state between steps and of state and gradients together, and the preflight's sum in words; parameters first."""
    config, (vocab_size, channels) = case.config(), case.sizes()
    parameters = sum(p.numel() for p in shape_network(config, vocab_size=vocab_size, channels=channels).parameters())
    total, words = memory_per_worker(parameters, config)
    gradients = 4.0 * parameters / (case.workers if case.stage is not None and case.stage >= 2 else 1)
    return total - gradients, total, f"{parameters:,} parameters: {words}"


def main(argv: list[str]) -> None:
    """All cases in turn, then the table."""
    options = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--stages", type=int, nargs="*", default=[0, 1, 2, 3], choices=[0, 1, 2, 3], help="ZeRO stages")
    options.add_argument("--workers", type=int, default=2, help="processes of each stage")
    options.add_argument("--optimiser", default="muon", choices=["muon", "adamw"])
    options.add_argument("--hidden", type=int, default=768, help="width, a multiple of 64; 768 is ELF-B")
    options.add_argument("--depth", type=int, default=12, help="blocks; 12 is ELF-B")
    options.add_argument("--length", type=int, default=32, help="tokens per row: few, so that activations are small")
    options.add_argument("--rows", type=int, default=2, help="rows per worker")
    options.add_argument("--steps", type=int, default=3)
    options.add_argument("--explain", action="store_true", help="name the tensors that are held between steps")
    options.add_argument("--worker", help=argparse.SUPPRESS)
    own = options.parse_args(argv)
    if own.worker:
        job = json.loads(own.worker)
        print(json.dumps(worker(Case(**job["case"]), job["rank"], Path(job["folder"]))))
        return
    sizes = {name: getattr(own, name) for name in ("optimiser", "hidden", "depth", "length", "rows", "steps")}
    cases = [Case(stage=None, workers=1, **sizes), *(Case(stage=stage, workers=own.workers, **sizes) for stage in own.stages)]
    print(f"{own.workers} workers, {own.optimiser}, {own.rows} rows of {own.length} tokens each, fp32; {theory(cases[0])[2]}\n")
    columns = ("state", "reserved", "forward", "peak backward", "peak update", "building")
    print(f"| GB per worker | theory state | theory total | {' | '.join(columns)} | state / theory |\n|---|{'---:|' * 9}")
    held: dict[str, dict[str, int]] = {}
    for case in cases:
        state, total, _ = theory(case)
        figures = run_case(case)
        name = "plain, 1 process" if case.stage is None else f"ZeRO {case.stage}"
        measured = " | ".join(f"{figures[column] / GB:.2f}" for column in columns)
        print(f"| {name} | {state / GB:.2f} | {total / GB:.2f} | {measured} | {figures['state'] / state:.2f} |", flush=True)
        held[name] = figures["held"]
    for name, sums in held.items() if own.explain else ():
        print(f"\n{name}: tensors alive between steps, GB reserved")
        for place, size in sorted(sums.items(), key=lambda item: -item[1]):
            if size >= SHOWN:
                print(f"  {size / GB:7.3f}  {place}")


if __name__ == "__main__":
    run_main(main)
