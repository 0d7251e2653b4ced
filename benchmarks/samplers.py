"""Generative perplexity and entropy of every sampler and grid at equal NFE: mean and spread over seeds, as a table and as figures.

    python benchmarks/samplers.py RUN/artefact --judge JUDGE --data data/KEY --out samplers
    python benchmarks/samplers.py RUN/artefact --judge JUDGE --nfe 9 --seeds 2 --count 16      # a first look

A seed decides the noise of the samples and, of the grid `logit-normal`, the times: the official sampler draws new ones for each batch. So
the spread over seeds is what somebody sees who samples twice. NFE counts the decoding pass; heun, with two evaluations a step, takes half
the steps. Every point is appended to points.jsonl in the folder --out as soon as it is there; the same command goes on after the last one,
and draws table and figures anew.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from elf.artefact import CONFIG, load_artefact
from elf.files import sha256_of, write_text
from elf.metrics.perplexity import PROTOCOLS
from elf.sampling.config import SampleConfig
from elf_platform.cli import run_main
from elf_platform.evaluate.controls import shuffled, unigram
from elf_platform.evaluate.judge import Judge, load_judge
from elf_platform.evaluate.metrics import Resampling, judged_scores
from elf_platform.evaluate.scoring import score_sets
from elf_platform.evaluate.texts import prepared_texts
from elf_platform.report.charts import Chart, Series, standalone
from elf_platform.sampling.rows import Sampler, draw_rows, fix_arithmetic

SAMPLERS = ("sde", "ode", "sde-matched", "heun", "dpmpp-2m", "ancestral")
GRIDS = ("logit-normal", "logit-normal-quantile", "uniform")
DETERMINISTIC = ("ode", "heun", "dpmpp-2m")
COLOURS = dict(zip(SAMPLERS, ("s2", "s1", "s4", "s3", "q4", "q0"), strict=True))
TIMES = {"logit-normal": "random", "logit-normal-quantile": "quantile", "uniform": "even"}
NFE_AXIS: Any = {"x_label": "NFE", "x_name": "NFE", "size": (640, 320)}

Point = dict[str, Any]
"""Sampler, grid, NFE, seed and the figures measured there."""
Spreads = dict[str, tuple[float, float]]
"""Mean and standard deviation over seeds of each figure."""


@dataclass(frozen=True)
class Setting:
    """What a row of the table is of."""

    sampler: str
    grid: str
    nfe: int

    def config(self, own: argparse.Namespace, seed: int) -> SampleConfig:
        steps = max(1, self.nfe // 2) if self.sampler == "heun" else self.nfe - 1
        noisy = {"gamma": own.gamma} if self.sampler in ("sde", "sde-matched") else {}
        return SampleConfig(sampler=self.sampler, grid=self.grid, steps=steps, guidance=own.guidance, count=own.count, seed=seed, **noisy)


def measure(sampler: Sampler, judge: Judge, batch: int) -> dict[str, float]:
    """Samples of one setting and seed, judged."""
    count, texts, nfe = sampler.config.count, list[str](), 0
    for start in range(0, count, batch):
        samples = draw_rows(sampler, range(start, min(start + batch, count)), ())
        texts += [sampler.artefact.tokenizer.decode(row) for row in samples.ids_BL.tolist()]
        nfe = samples.nfe
    return {"nfe": nfe, **judged(judge, texts)}


def judged(judge: Judge, texts: list[str]) -> dict[str, float]:
    """Perplexity and entropy under the default protocol; empty texts are dropped and counted."""
    ids = [row for row in judge.encode(texts) if row]
    if not ids:
        return {"texts": 0}
    scores = judged_scores(score_sets(judge, [ids], PROTOCOLS["elf"])[0], PROTOCOLS["elf"], Resampling(resamples=0))
    return {name: estimate.value for name, estimate in scores.scores.items()} | {"texts": len(ids)}


def collect(own: argparse.Namespace, judge: Judge, path: Path, header: dict[str, object]) -> list[Point]:
    """All points, those that ``path`` holds already and the missing ones, which are measured and appended."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    if lines and lines[0] != header:
        raise ValueError(f"{path} holds points of other settings ({json.dumps(lines[0])}); give another --out")
    if not lines:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(header) + "\n")
    known = {(p["sampler"], p["grid"], p["nfe_wanted"], p["seed"]) for p in lines[1:]}
    wanted = [(*key, seed) for *key, seed in product(own.samplers, own.grids, own.nfe, range(own.seeds))]
    missing = [key for key in wanted if key not in known]
    points = lines[1:]
    if missing:
        device = torch.device(own.device)
        artefact = load_artefact(Path(own.artefact), device=device, precision=own.precision)
        with path.open("a") as out:
            # Seed by seed, so that what an interrupted run leaves is a whole table of fewer seeds.
            for name, grid, nfe, seed in track(sorted(missing, key=lambda key: key[-1]), "sampling", console=Console(stderr=True)):
                config = Setting(name, grid, nfe).config(own, seed)
                sampler = Sampler(
                    artefact=artefact, network=artefact.network, config=config, target_length=artefact.sizes.length, device=device
                )
                point = {"sampler": name, "grid": grid, "nfe_wanted": nfe, "seed": seed, **measure(sampler, judge, own.batch)}
                points.append(point)
                out.write(json.dumps(point) + "\n")
                out.flush()
    order = {key: place for place, key in enumerate(wanted)}
    chosen = [p for p in points if (p["sampler"], p["grid"], p["nfe_wanted"], p["seed"]) in order]
    return sorted(chosen, key=lambda p: order[p["sampler"], p["grid"], p["nfe_wanted"], p["seed"]])


def scale(own: argparse.Namespace, judge: Judge) -> dict[str, dict[str, float]]:
    """Real, shuffled and unigram text by the same judge."""
    texts = prepared_texts(Path(own.data), count=own.count).texts
    return {"real": judged(judge, texts), "shuffled": judged(judge, shuffled(texts)), "unigram": judged(judge, unigram(texts))}


def table(points: list[Point]) -> dict[Setting, Spreads]:
    """Mean and standard deviation over seeds of each setting, printed."""
    rows: dict[Setting, Spreads] = {}
    print("| sampler | grid | NFE | Gen. PPL | sd | entropy | sd |\n|---|---|---:|---:|---:|---:|---:|")
    for key in dict.fromkeys((p["sampler"], p["grid"], p["nfe_wanted"]) for p in points):
        group = [p for p in points if (p["sampler"], p["grid"], p["nfe_wanted"]) == key and "gen_ppl" in p]
        if not group:
            continue
        rows[Setting(*key)] = figures = {name: spread([p[name] for p in group]) for name in ("gen_ppl", "entropy")}
        (ppl, ppl_sd), (entropy, entropy_sd) = figures["gen_ppl"], figures["entropy"]
        print(f"| {key[0]} | {key[1]} | {group[0]['nfe']} | {ppl:.1f} | {ppl_sd:.1f} | {entropy:.3f} | {entropy_sd:.3f} |")
    return rows


def spread(values: list[float]) -> tuple[float, float]:
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def figures(points: list[Point], rows: dict[Setting, Spreads], beside: dict[str, dict[str, float]]) -> list[Chart]:
    """Perplexity and entropy against NFE of all samplers on each grid; and each deterministic sampler on its grids beside the official SDE
    on random times, with the lowest and highest seed as faint lines."""
    charts = []
    for metric, words in (("gen_ppl", "Gen. PPL"), ("entropy", "entropy, nats")):
        for grid in dict.fromkeys(setting.grid for setting in rows):
            series = [
                Series(name=name, colour=COLOURS[name], points=line)
                for name in SAMPLERS
                if (line := [(s.nfe, row[metric][0]) for s, row in rows.items() if (s.sampler, s.grid) == (name, grid)])
            ]
            if real := beside.get("real"):
                low, high = min(s.nfe for s in rows), max(s.nfe for s in rows)
                series.append(Series(name="real text", colour="s0", form="rule", points=[(low, real[metric]), (high, real[metric])]))
            unit = f"{words}, mean over seeds"
            charts.append(Chart(slug=f"{metric}-{grid}", title=f"Samplers, {TIMES[grid]} times", unit=unit, series=series, **NFE_AXIS))
    for name in DETERMINISTIC:
        compared = [(name, grid, colour) for grid, colour in zip(GRIDS, ("s4", "s1", "s3"), strict=True)]
        series = []
        for sampler, grid, colour in [("sde", "logit-normal", "s2"), *compared]:
            group = [p for p in points if (p["sampler"], p["grid"]) == (sampler, grid) and "gen_ppl" in p]
            lines = [(n, [p["gen_ppl"] for p in group if p["nfe_wanted"] == n]) for n in sorted({p["nfe_wanted"] for p in group})]
            label = f"{sampler}, {TIMES[grid]}"
            if lines:
                series.append(Series(name=label, colour=colour, points=[(n, statistics.mean(ys)) for n, ys in lines]))
                series += [Series(name=label, colour=colour, form="faint", points=[(n, end(ys)) for n, ys in lines]) for end in (min, max)]
        if any(of.name.startswith(f"{name},") for of in series):
            title = f"{name} beside the official SDE: mean and range of seeds"
            charts.append(Chart(slug=f"grids-{name}", title=title, unit="Gen. PPL", series=series, **NFE_AXIS))
    return charts


def main(argv: list[str]) -> None:
    """Measure what is missing, print the table, draw the figures."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("artefact")
    options.add_argument("--judge", required=True, help="as for jobs/evaluate.py")
    options.add_argument("--data", help="prepared data: real, shuffled and unigram text are scored beside the samples")
    options.add_argument("--out", default="samplers", help="folder for points and figures")
    options.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=SAMPLERS)
    options.add_argument("--grids", nargs="+", default=list(GRIDS), choices=GRIDS)
    options.add_argument("--nfe", nargs="+", type=int, default=[5, 9, 17, 33, 65])
    options.add_argument("--seeds", type=int, default=6)
    options.add_argument("--count", type=int, default=64, help="samples of each setting and seed")
    options.add_argument("--batch", type=int, default=64, help="samples computed together")
    options.add_argument("--guidance", type=float, default=SampleConfig.guidance)
    options.add_argument("--gamma", type=float, default=SampleConfig.gamma, help="of sde and sde-matched")
    options.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    own = options.parse_args(argv)
    fix_arithmetic(own.threads)
    out = Path(own.out)
    judge = load_judge(own.judge, device=own.device)
    header = {name: getattr(own, name) for name in ("count", "batch", "guidance", "gamma", "precision", "device")}
    header |= {"artefact": sha256_of(Path(own.artefact) / CONFIG), "judge": asdict(judge.card)}
    points = collect(own, judge, out / "points.jsonl", header)
    beside = scale(own, judge) if own.data else {}
    rows = table(points)
    for name, scores in beside.items():
        print(f"| {name} text | | | {scores['gen_ppl']:.1f} | | {scores['entropy']:.3f} | |")
    for chart in figures(points, rows, beside):
        write_text(out / f"{chart.slug}.svg", standalone(chart).decode())
    sys.stdout.write(f"\npoints and figures in {out}\n")


if __name__ == "__main__":
    run_main(main)
