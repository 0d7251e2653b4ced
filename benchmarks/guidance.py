"""BLEU and ROUGE of a conditional model against the scale of classifier-free guidance, on held-out pairs, beside plain baselines.

    python benchmarks/guidance.py RUN/artefact --data data/KEY --out guidance
    python benchmarks/guidance.py RUN/artefact --data data/KEY --scales 1 2 --steps 8 --count 32     # a first look

The pairs are those that preparation held out, as their rows hold them (cut to the model's lengths; the table says how many were). Every
scale draws the same noise. Baselines: the source itself (copy), its first sentence (lead), and words drawn from the frequencies of the
targets, as many as the reference has (unigram). Intervals are 95 % bootstrap intervals over the pairs.
"""

import argparse
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from elf.artefact import CONFIG, load_artefact
from elf.files import sha256_of, write_text
from elf.metrics.bootstrap import Estimate
from elf.metrics.overlap import bleu_tokens_for
from elf.sampling.config import SampleConfig
from elf_platform.cli import run_main
from elf_platform.data.manifest import Manifest
from elf_platform.data.pairs import held_out_pairs
from elf_platform.evaluate.controls import unigram
from elf_platform.evaluate.metrics import Resampling, overlap_scores
from elf_platform.report.charts import Chart, Series, standalone
from elf_platform.sampling.rows import Sampler, draw_rows, fix_arithmetic
from elf_platform.sampling.sources import encode_sources

METRICS = ("bleu", "rouge1", "rouge2", "rougeL")


def generate(own: argparse.Namespace, sources: list[str], scales: list[float]) -> dict[float, tuple[list[str], int]]:
    """Texts and NFE of each scale."""
    device = torch.device(own.device)
    artefact = load_artefact(Path(own.artefact), device=device, precision=own.precision)
    sizes, tokenizer = artefact.sizes, artefact.tokenizer
    encoded = encode_sources(sources, tokenizer, limit=sizes.source_length, strict=False, where=own.data)
    made: dict[float, tuple[list[str], int]] = {scale: ([], 0) for scale in scales}
    starts = range(0, len(encoded), own.batch)
    work = [(scale, start) for scale in scales for start in starts]
    for scale, start in track(work, description="sampling", console=Console(stderr=True)):
        chosen = encoded[start : start + own.batch]
        config = SampleConfig(
            sampler=own.sampler, grid=own.grid, steps=own.steps, guidance=own.guidance, cfg=scale, count=len(encoded), seed=own.seed
        )
        sampler = Sampler(artefact=artefact, network=artefact.network, config=config, target_length=sizes.target_length, device=device)
        samples = draw_rows(sampler, range(start, start + len(chosen)), chosen)
        texts = made[scale][0] + [tokenizer.decode([i for i in row if i != tokenizer.pad_id]) for row in samples.ids_BL.tolist()]
        made[scale] = (texts, samples.nfe)
    return made


def first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]


def shown(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def main(argv: list[str]) -> None:
    """Sample at every scale, score, print the table, draw the figures, keep texts and figures."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("artefact")
    options.add_argument("--data", required=True, help="prepared data with pairs, whose held-out rows are translated or summarised")
    options.add_argument("--out", default="guidance", help="folder for figures and texts")
    options.add_argument("--scales", nargs="+", type=float, default=[0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0], help="of classifier-free guidance")
    options.add_argument("--count", type=int, default=0, help="pairs at most, evenly from all of them; 0 for all")
    options.add_argument("--batch", type=int, default=64, help="rows computed together")
    options.add_argument("--sampler", default="ode")
    options.add_argument("--grid", default=SampleConfig.grid)
    options.add_argument("--steps", type=int, default=64)
    options.add_argument("--guidance", type=float, default=1.0, help="of self-conditioning")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    own = options.parse_args(argv)
    fix_arithmetic(own.threads)
    pairs = held_out_pairs(Path(own.data))
    if own.count and own.count < len(pairs):  # evenly, since corpora may be sorted
        pairs = [pairs[i * len(pairs) // own.count] for i in range(own.count)]
    sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
    cut = Manifest.load(Path(own.data)).valid
    print(f"{len(pairs)} held-out pairs; of all {cut.rows}, {cut.sources_cut} sources and {cut.targets_cut} targets were cut")
    texts: dict[str, tuple[list[str], int]] = {
        "copy": (sources, 0), "lead": ([first_sentence(source) for source in sources], 0), "unigram": (unigram(targets), 0),
    }
    scales = sorted(own.scales)
    texts |= {f"cfg {scale:g}": made for scale, made in generate(own, sources, scales).items()}
    out = Path(own.out)
    out.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"source": source, "target": target} | {name: texts[name][0][i] for name in texts if name != "copy"}, ensure_ascii=False)
        for i, (source, target) in enumerate(pairs)
    ]
    write_text(out / "texts.jsonl", "\n".join(lines) + "\n")
    tokenize, references = bleu_tokens_for(targets), [[target] for target in targets]
    scores = {
        name: overlap_scores(made, references, Resampling(seed=own.seed), tokenize)[0].scores for name, (made, _) in texts.items()
    }
    print(f"| texts | NFE | {' | '.join(METRICS)} |\n|---|---:|{'---:|' * len(METRICS)}")
    for name, row in scores.items():
        print(f"| {name} | {texts[name][1]} | {' | '.join(shown(row[metric]) for metric in METRICS)} |")
    settings = {name: getattr(own, name) for name in ("sampler", "grid", "steps", "guidance", "seed", "precision", "batch", "device")}
    record = {
        "artefact": sha256_of(Path(own.artefact) / CONFIG), "pairs": len(pairs), "settings": settings,
        "scores": {name: {metric: asdict(value) for metric, value in row.items()} for name, row in scores.items()},
    }
    write_text(out / "scores.json", json.dumps(record, indent=1) + "\n")
    for metric, words, baseline in (("bleu", "BLEU", "copy"), ("rougeL", "ROUGE-L", "lead")):
        values = {scale: scores[f"cfg {scale:g}"][metric] for scale in scales}
        flat = scores[baseline][metric].value
        chart = Chart(
            slug=f"{metric}-cfg", title="Classifier-free guidance", unit=f"{words} on {len(pairs)} held-out pairs, 95 % intervals",
            x_name="scale", x_label="scale of classifier-free guidance (1 is off)", from_zero=True, size=(640, 320),
            series=[
                Series(name="model", colour="s1", points=[(scale, value.value) for scale, value in values.items()]),
                *(
                    Series(name="interval", colour="s1", form="faint", points=[(scale, getattr(of, end)) for scale, of in values.items()])
                    for end in ("low", "high")
                ),
                Series(name=f"{baseline} of the source", colour="s0", form="rule", points=[(scales[0], flat), (scales[-1], flat)]),
            ],
        )
        write_text(out / f"{chart.slug}.svg", standalone(chart).decode())
    sys.stdout.write(f"\nfigures and texts in {out}\n")


if __name__ == "__main__":
    run_main(main)
