"""How fast text becomes shards: the tokenising phase of a preparation against the bare `tokenizers` library on the same cores.

    python benchmarks/prepare.py [--paths FILE ...] [--workers N] [--repeats N] [--vocab-size N] [--shard-mb MB]

Each repeat prepares the corpus anew on Ray Data and then encodes the same documents with `tokenizers` alone, with as many threads
as there were tasks. The tokenising phase reads the stored text, encodes, packs, writes and hashes the shards; starting and
following the tasks counts as well, about 0.4 s in all, so judge on 50 MB of text or more. Exit status 1 when the median ratio of
tokens per second is below 0.9; the ratio per second of CPU time, which other work on the machine hardly moves, stands beside it.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import tokenizers

from elf.data.tokenizer import normalise
from elf_platform.cli import run_main
from elf_platform.config import DataConfig, TokenizerConfig
from elf_platform.runtime import local_cluster, usable_cpus

DEMANDED = 0.9
BATCH = 1000  # documents a call: enough for all threads, as a user of the library would do it


@dataclass
class Measured:
    """Of each repeat: tokens per second and per second of CPU time, ours and the library's, and the seconds of each phase."""

    corpus: str = ""
    ours: list[tuple[float, float]] = field(default_factory=list)
    bare: list[tuple[float, float]] = field(default_factory=list)
    phases: list[dict[str, float]] = field(default_factory=list)


def measure(config: DataConfig, place: Path, repeats: int) -> Measured:
    """Paired repeats, after one that is thrown away because it starts the workers' processes."""
    from elf_platform.data.corpora import resolve
    from elf_platform.data.prepare import prepare
    from elf_platform.data.readers import ReadCounts, read_documents

    parts = resolve(config).parts
    texts = [normalise(text) for part in parts for text in read_documents(part, strict=False, counts=ReadCounts())]
    texts = list(dict.fromkeys(texts))
    measured = Measured()
    for repeat in range(repeats + 1):
        data = prepare(config, place, progress=False)  # on all CPUs of the cluster, which has as many as are measured
        tokens = data.manifest.train.tokens + data.manifest.valid.tokens
        measured.corpus = f"{data.manifest.name}: {data.manifest.read.bytes / 1e6:.1f} MB, {tokens:,} tokens, {len(parts)} parts"
        if repeat:
            statements = [json.loads(path.read_text()) for path in data.folder.glob("part-*.json")]
            cpu_seconds = sum(statement["seconds"]["cpu"] for statement in statements)
            measured.ours.append((tokens / data.seconds["pack"], tokens / cpu_seconds))
            measured.bare.append(bare_rates(texts, data.folder / "tokenizer.json"))
            measured.phases.append(data.seconds)
        shutil.rmtree(data.folder)
    return measured


def bare_rates(texts: list[str], path: Path) -> tuple[float, float]:
    """Tokens per second, and per second of CPU time, of the library alone."""
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    began, cpu_began, tokens = time.perf_counter(), time.process_time(), 0
    for start in range(0, len(texts), BATCH):
        tokens += sum(len(of.ids) for of in tokenizer.encode_batch_fast(texts[start : start + BATCH], add_special_tokens=False))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return tokens / seconds, tokens / cpu_seconds


def report(measured: Measured) -> float:
    """Prints the tables; returns the median ratio of tokens per second."""
    print(f"{measured.corpus}\n{'median tokens':16} {'this phase':>12} {'tokenizers':>12} {'ratio':>7}   lowest to highest")
    medians = []
    for place, clock in enumerate(("per second", "per CPU second")):
        ratios = [a[place] / b[place] for a, b in zip(measured.ours, measured.bare, strict=True)]
        ours, bare = (statistics.median(of[place] for of in rates) for rates in (measured.ours, measured.bare))
        medians.append(statistics.median(ratios))
        print(f"{clock:16} {ours:12,.0f} {bare:12,.0f} {medians[-1]:7.3f}   {min(ratios):.3f} to {max(ratios):.3f}")
    whole = statistics.median(sum(seconds.values()) for seconds in measured.phases)
    for phase in measured.phases[0]:
        seconds = statistics.median(of[phase] for of in measured.phases)
        print(f"{phase:16} {seconds:10.2f} s {seconds / whole:12.1%}")
    return medians[0]


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--paths", nargs="*", default=[], help="the corpus; the built-in one without")
    options.add_argument("--workers", type=int, default=usable_cpus())
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--vocab-size", type=int, default=4096)
    options.add_argument("--shard-mb", type=float, default=8.0, help="text of a task, which should take seconds")
    own = options.parse_args(argv)
    os.environ["RAYON_NUM_THREADS"] = str(own.workers)  # read once, at the library's first parallel call
    config = DataConfig(paths=tuple(own.paths), tokenizer=TokenizerConfig(vocab_size=own.vocab_size), shard_mb=own.shard_mb)
    with tempfile.TemporaryDirectory(prefix="elf-bench-") as place, local_cluster(own.workers):
        measured = measure(config, Path(place), own.repeats)
    ratio = report(measured)
    print(f"at least {DEMANDED} per second demanded: {'reached' if ratio >= DEMANDED else 'missed'}")
    return 0 if ratio >= DEMANDED else 1


if __name__ == "__main__":
    run_main(main)
