"""How fast text becomes shards: the tokenising phase of a preparation against the bare `tokenizers` library on the same cores.

    python benchmarks/prepare.py [--paths FILE ...] [--workers N] [--repeats N] [--vocab-size N]

Each repeat prepares the corpus anew on Ray Data and then encodes the same documents with `tokenizers` alone, with as many threads
as there were tasks. The tokenising phase reads the stored text, encodes, packs, writes and hashes the shards; starting the tasks
counts as well. Exit status 1 when the median of the ratios is below 0.9.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import tokenizers

from elf.data.tokenizer import normalise
from elf_platform.cli import run_main
from elf_platform.config import DataConfig, TokenizerConfig
from elf_platform.runtime import local_cluster, usable_cpus

DEMANDED = 0.9
BATCH = 1000  # documents a call: enough for all threads, as a user of the library would do it


def bare_rate(texts: list[str], path: Path) -> float:
    """Tokens per second of the library alone."""
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    began, tokens = time.perf_counter(), 0
    for start in range(0, len(texts), BATCH):
        tokens += sum(len(of.ids) for of in tokenizer.encode_batch_fast(texts[start : start + BATCH], add_special_tokens=False))
    seconds = time.perf_counter() - began
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return tokens / seconds


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--paths", nargs="*", default=[], help="the corpus; the built-in one without")
    options.add_argument("--workers", type=int, default=usable_cpus())
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--vocab-size", type=int, default=4096)
    options.add_argument("--shard-mb", type=float, default=4.0, help="small, so that a small corpus keeps all workers busy")
    own = options.parse_args(argv)
    os.environ["RAYON_NUM_THREADS"] = str(own.workers)  # read once, at the library's first parallel call
    config = DataConfig(paths=tuple(own.paths), tokenizer=TokenizerConfig(vocab_size=own.vocab_size), shard_mb=own.shard_mb)

    with tempfile.TemporaryDirectory(prefix="elf-bench-") as place, local_cluster(own.workers):
        from elf_platform.data.corpora import resolve
        from elf_platform.data.prepare import prepare
        from elf_platform.data.readers import ReadCounts, read_documents

        texts = [
            normalise(text)
            for part in resolve(config).parts
            for text in read_documents(part, strict=False, counts=ReadCounts())
        ]
        texts = list(dict.fromkeys(texts))
        ours, bare, phases = [], [], []
        for _ in range(own.repeats + 1):
            data = prepare(config, Path(place), workers=own.workers, progress=False)
            tokens = data.manifest.train.tokens + data.manifest.valid.tokens
            ours.append(tokens / data.seconds["pack"])
            bare.append(bare_rate(texts, data.folder / "tokenizer.json"))
            phases.append(data.seconds)
            shutil.rmtree(data.folder)
    ours, bare, phases = ours[1:], bare[1:], phases[1:]  # the first one started the workers' processes
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    ratio = statistics.median(ratios)

    print(f"{data.manifest.name}: {data.manifest.read.bytes / 1e6:.1f} MB, {tokens:,} tokens, {own.workers} workers, {own.repeats} repeats")
    print(f"tokenising phase   {statistics.median(ours):12,.0f} tokens/s")
    print(f"tokenizers alone   {statistics.median(bare):12,.0f} tokens/s, {own.workers} threads")
    print(f"ratio              {ratio:12.3f} (lowest {min(ratios):.3f}, highest {max(ratios):.3f}; at least {DEMANDED} demanded)")
    whole = statistics.median(sum(seconds.values()) for seconds in phases)
    for phase in phases[0]:
        seconds = statistics.median(of[phase] for of in phases)
        print(f"{phase:12} {seconds:8.2f} s {seconds / whole:6.1%}")
    return 0 if ratio >= DEMANDED else 1


if __name__ == "__main__":
    run_main(main)
