"""Sampling speed of ELF-B against a plain loop over the same step, paired in one run; and of autoregressive decoding with its cache.

The plain loop is the official SDE step spelled out (tests/golden holds it to recorded numbers) with noise drawn beforehand; both give the
same tokens from the same noise. Ours draws its noise row by row, counts evaluations, and serves every sampler and guidance.

    python benchmarks/sample.py                     # on a CPU: L = 128, fp32 and bf16; on a GPU: L = 1024, compiled and not
    python benchmarks/sample.py --small             # seconds; for trying out the script
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from elf.draws import Draws
from elf.nn.config import NetworkConfig
from elf.nn.token_model import TokenModel
from elf.processes import Autoregressive, EmbeddedFlow
from elf.sampling.config import SampleConfig
from elf.sampling.decoding import draw_tokens, fine_uniform
from elf.sampling.grids import GRIDS

Mark = float | torch.cuda.Event
VOCAB, CHANNELS = 32_100, 512
FLOW = EmbeddedFlow()


def sizes(args: argparse.Namespace) -> NetworkConfig:
    return NetworkConfig(hidden=64, depth=2, heads=2) if args.small else NetworkConfig()


class Clock(nn.Module):
    """The network, marking when each call begins and ends: on a GPU in its own queue, which goes on without waiting."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network, self.device = network, device
        self.marks: list[tuple[Mark, Mark]] = []

    def forward(self, *args: Tensor, **kwargs: bool) -> object:
        started = mark(self.device)
        out = self.network(*args, **kwargs)
        self.marks.append((started, mark(self.device)))
        return out

    def seconds(self) -> float:
        """Time inside the network, once all queued work is done."""
        now(self.device)
        return sum(begin.elapsed_time(end) / 1e3 if isinstance(begin, torch.cuda.Event) else end - begin for begin, end in self.marks)


def mark(device: torch.device) -> Mark:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


@torch.no_grad()
def plain_loop(network: nn.Module, noises: list[Tensor], times: list[float], config: SampleConfig) -> Tensor:
    """Token ids by the official SDE sampler written as one loop; noises: of the start, then of each step."""
    scale, rows = FLOW.noise_scale, len(noises[0])
    ones_B, zeros_B = torch.ones(rows, device=noises[0].device), torch.zeros(rows, device=noises[0].device)
    w_B = ones_B * config.guidance
    z, x_hat = scale * noises[0], torch.zeros_like(noises[0])
    for (t, t_next), eps in zip(pairwise(times), noises[1:], strict=True):
        back = min(max(1 - config.gamma * (t_next - t), 0.0), 1.0) if t_next < 1 else 1.0
        z = back * z + (1 - back) * scale * eps
        x_hat = network(z, x_hat, ones_B * (back * t), w_B, zeros_B)[0]
        z = z + (t_next - back * t) * (x_hat - z) / max(1 - back * t, FLOW.t_eps)
    return network(z, torch.zeros_like(z), ones_B, w_B, ones_B, want_x=False, want_tokens=True)[1].argmax(-1)


def measure(args: argparse.Namespace, kind: str) -> dict[str, object]:
    """Seconds of both loops in turn, share of time outside the network, peak memory, and whether the tokens are the same."""
    precision, *compiled = kind.split("-")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else "highest")
    torch.manual_seed(0)
    network = FLOW.build_network(sizes(args), vocab_size=VOCAB, channels=CHANNELS, length=args.length, precision=precision).to(device)
    nn.init.normal_(network.x_head.linear.weight, std=0.02)
    network.eval()
    if compiled:
        network.trunk.compile()
    config = SampleConfig(steps=args.steps)
    draws = Draws(seed=0, step=0, rows=np.arange(args.batch), total=args.batch, device=device)
    times = GRIDS[config.grid](config.steps, seed=0, mean=FLOW.time_mean, std=FLOW.time_std, density=()).tolist()
    noises = [draws.normal(name, args.length, CHANNELS) for name in ("start", *(f"step {i}" for i in range(args.steps)))]

    def ours(net: nn.Module) -> Tensor:
        return FLOW.sample(net, draws, length=args.length, channels=CHANNELS, config=config).ids_BL

    clock = Clock(network, device)
    runs = {"ours": lambda: ours(clock), "plain": lambda: plain_loop(network, noises, times, config)}
    timed: dict[str, list[float]] = {name: [] for name in runs}
    made: dict[str, Tensor] = {}
    plain_loop(network, noises[:3], [0.0, 0.5, 1.0], config)  # warm up: allocator, compilation
    for repeat in range(args.repeats):
        for name in ("ours", "plain") if repeat % 2 == 0 else ("plain", "ours"):
            started = now(device)
            made[name] = runs[name]()
            timed[name].append(now(device) - started)
    outside = 1 - clock.seconds() / sum(timed["ours"])
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    same = float((made["ours"] == made["plain"]).float().mean())
    return {**timed, "outside": outside, "peak_gb": peak / 1e9, "same": same}


@torch.no_grad()
def measure_cache(args: argparse.Namespace) -> dict[str, float]:
    """Seconds for one batch of autoregressive rows with the cache, and with every row read anew for every token."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    process = Autoregressive()
    network = process.build_network(sizes(args), vocab_size=VOCAB, channels=0, length=args.length).to(device).eval()
    assert isinstance(network, TokenModel)
    draws = Draws(seed=0, step=0, rows=np.arange(args.batch), total=args.batch, device=device)
    started = now(device)
    cached_BL = process.sample(network, draws, length=args.length, channels=0, config=SampleConfig()).ids_BL
    cached = now(device) - started
    ids_BL, uniform_BL = torch.zeros_like(cached_BL), fine_uniform(draws, args.length)
    started = now(device)
    for i in range(args.length):
        states_BNC, _ = network(ids_BL[:, : i + 1], want_logits=False)
        ids_BL[:, i] = draw_tokens(network.unembed(states_BNC[:, -1]).float(), uniform_BL[:, i], temperature=1.0, top_p=1.0)
    return {"cached": cached, "anew": now(device) - started, "same": float((ids_BL == cached_BL).float().mean())}


def now(device: torch.device) -> float:
    """Wall clock after all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    """Each precision in a process of its own (for its peak memory); the two loops take turns inside it, so that drift hits both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gpu = torch.cuda.is_available()
    parser.add_argument("--length", type=int, default=1024 if gpu else 128, help="tokens per row")
    parser.add_argument("--batch", type=int, default=32 if gpu else 4, help="rows")
    parser.add_argument("--steps", type=int, default=32, help="denoising steps")
    parser.add_argument("--repeats", type=int, default=5 if gpu else 2, help="timed runs of each loop")
    parser.add_argument("--cache-length", type=int, default=1024 if gpu else 64, help="tokens per row of the autoregressive part")
    parser.add_argument("--small", action="store_true", help="tiny network, rows and steps: only whether the script runs")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.kind:
        print(json.dumps(measure_cache(args) if args.kind == "cache" else measure(args, args.kind)))
        return
    if args.small:
        args.length, args.batch, args.steps, args.cache_length = 16, 2, 3, 8

    def run(kind: str, length: int) -> dict[str, object]:
        command = [sys.executable, __file__, "--kind", kind, "--length", str(length), "--batch", str(args.batch)]
        command += ["--steps", str(args.steps), "--repeats", str(args.repeats)] + ["--small"] * args.small
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])

    device = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    name = "a tiny network" if args.small else "ELF-B"
    print(f"{name}, V {VOCAB:,}, d {CHANNELS}, B {args.batch}, L {args.length}, {args.steps} steps of the official SDE sampler, {device}")
    print(f"{'kind':16}{'samples/s':>11}{'plain loop':>12}{'ours/plain':>12}{'outside net':>13}{'peak GB':>9}{'same tokens':>13}")
    for kind in ("fp32", "bf16", "fp32-compiled", "bf16-compiled") if gpu else ("fp32", "bf16"):
        found = run(kind, args.length)
        ours, plain = np.array(found["ours"]), np.array(found["plain"])
        line = f"{kind:16}{args.batch / ours.min():11.3f}{args.batch / plain.min():12.3f}{np.median(ours / plain):12.4f}"
        print(line + f"{100 * found['outside']:12.2f}%{found['peak_gb']:9.2f}{100 * found['same']:12.2f}%", flush=True)
    found = run("cache", args.cache_length)
    cached, anew = (args.batch * args.cache_length / found[name] for name in ("cached", "anew"))
    print(f"\nAutoregressive, the same trunk, L {args.cache_length}, fp32: {cached:.1f} tokens/s with the cache, {anew:.1f} without it;")
    print(f"{100 * found['same']:.2f}% of the tokens are the same")


if __name__ == "__main__":
    main()
