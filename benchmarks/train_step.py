"""Forward and backward of one ELF-B training step against a straightforward version of the same step, paired in one run.

The straightforward step runs every row through three full passes (without self-conditioning, with it for the guidance target, trained)
and computes token logits for every row; both give the same loss. The optimiser update is the same for both and timed by itself.

    python benchmarks/train_step.py                    # on a CPU: L = 128 and 256, fp32 and bf16; on a GPU: L = 1024
    python benchmarks/train_step.py --length 128 --batch 10 --repeats 5
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elf.batch import Batch
from elf.draws import Draws
from elf.nn.config import NetworkConfig
from elf.optim import OptimConfig
from elf.processes import EmbeddedFlow
from elf.processes.base import target_mask
from elf.processes.embedded_flow import FlowDraws
from elf_platform.train.engine import PlainEngine
from elf_platform.train.module import ProcessModule

VOCAB, CHANNELS = 32_100, 512


def straightforward(flow: EmbeddedFlow, network: nn.Module, batch: Batch, x_BLC: Tensor, drawn: FlowDraws) -> Tensor:
    """The loss sum with three passes over all rows and logits for all rows."""
    condition_BL1 = batch.condition_BL[..., None]
    z_BLC, half_BLC, t_B = flow._inputs(x_BLC, condition_BL1, drawn)
    gate_B, w_B = drawn.decode_B.float(), drawn.scale_B
    divisor_B11 = (1 - t_B).clamp_min(flow.t_eps)[:, None, None]
    with torch.no_grad():
        first_BLC, _ = network(z_BLC, half_BLC, t_B, w_B, gate_B)
        v0_BLC = (first_BLC - z_BLC) / divisor_B11
        self_BLC = torch.where(drawn.self_cond_B[:, None, None], torch.where(condition_BL1, x_BLC, first_BLC), half_BLC)
        second_BLC, _ = network(z_BLC, self_BLC, t_B, w_B, gate_B)
        vsc_BLC = (second_BLC - z_BLC) / divisor_B11
    x_hat_BLC, logits_BLV = network(z_BLC, self_BLC, t_B, w_B, gate_B, want_tokens=True)
    guided_BLC = (1 - 1 / w_B)[:, None, None] * (vsc_BLC - v0_BLC) * drawn.self_cond_B[:, None, None]
    target_BLC = (x_BLC - z_BLC) / divisor_B11 + guided_BLC
    l2_BL = ((x_hat_BLC - z_BLC) / divisor_B11 - target_BLC).square().mean(-1)
    ce_BL = F.cross_entropy(logits_BLV.float().flatten(0, 1), batch.ids_BL.flatten(), reduction="none").view_as(batch.ids_BL)
    return (torch.where(drawn.decode_B[:, None], ce_BL, l2_BL) * target_mask(batch, padding=False)).sum()


def measure(args: argparse.Namespace, kind: str) -> dict[str, float]:
    """Best and median seconds of a step of one kind ("straightforward-fp32", "ours-bf16", ...), and this process's peak memory."""
    version, precision, *compiled = kind.split("-")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else "highest")
    torch.manual_seed(0)
    flow = EmbeddedFlow()
    network = flow.build_network(NetworkConfig(), vocab_size=VOCAB, channels=CHANNELS, length=args.length, precision=precision).to(device)
    nn.init.normal_(network.x_head.linear.weight, std=0.02)
    if compiled:
        network.trunk.compile()
    batch = Batch.of_ids(torch.randint(0, VOCAB, (args.batch, args.length))).to(device)
    x_BLC = torch.randn(args.batch, args.length, CHANNELS, device=device)

    def step(number: int) -> float:
        draws = Draws(seed=0, step=number, rows=np.arange(args.batch), total=args.batch, device=device)
        drawn = flow.draw(draws, batch, CHANNELS)
        started = now(device)
        loss = flow.loss(network, batch, x_BLC, drawn).total if version == "ours" else straightforward(flow, network, batch, x_BLC, drawn)
        (loss / flow.count(batch).float()).backward()
        seconds = now(device) - started
        network.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        return seconds

    losses: list[float] = []
    times = [step(i) for i in range(args.warmup + args.repeats)][args.warmup :]
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"best": min(times), "median": float(np.median(times)), "peak_gb": peak / 1e9, "loss": losses[0]}


def measure_update(args: argparse.Namespace) -> float:
    """Seconds of one Muon update of ELF-B."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    flow = EmbeddedFlow()
    network = flow.build_network(NetworkConfig(), vocab_size=VOCAB, channels=CHANNELS, length=args.length).to(device)
    engine = PlainEngine(ProcessModule(flow, network), OptimConfig(), total_steps=10)
    times = []
    for i in range(2):
        for p in network.parameters():
            p.grad = torch.randn_like(p)
        started = now(device)
        engine.step(i)
        times.append(now(device) - started)
    return min(times)


def now(device: torch.device) -> float:
    """Wall clock after all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    """Each kind in a process of its own (for its peak memory), all kinds in turn, rounds times, so that drift hits all alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gpu = torch.cuda.is_available()
    parser.add_argument("--length", type=int, nargs="*", default=[1024] if gpu else [128, 256], help="tokens per row")
    parser.add_argument("--batch", type=int, default=64 if gpu else 10, help="rows")
    parser.add_argument("--repeats", type=int, default=10 if gpu else 3, help="timed steps of each kind per round")
    parser.add_argument("--warmup", type=int, default=3 if gpu else 1, help="untimed steps before them")
    parser.add_argument("--rounds", type=int, default=2, help="times that the kinds take turns")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--update", action="store_true", help="also time the Muon update")
    args = parser.parse_args()
    if args.kind:
        args.length = args.length[0]
        print(json.dumps(measure(args, args.kind)))
        return
    kinds = ["straightforward-fp32", "ours-fp32", "straightforward-bf16", "ours-bf16"] + (["ours-bf16-compiled"] if gpu else [])
    for length in args.length:
        results: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
        for _ in range(args.rounds):
            for kind in kinds:
                command = [sys.executable, __file__, "--kind", kind, "--length", str(length), "--batch", str(args.batch)]
                command += ["--repeats", str(args.repeats), "--warmup", str(args.warmup)]
                out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                results[kind].append(json.loads(out.splitlines()[-1]))
        base = min(r["best"] for r in results["straightforward-fp32"])
        device = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
        print(f"\nELF-B, V {VOCAB:,}, d {CHANNELS}, B {args.batch}, L {length}, {device}; best of {args.rounds} x {args.repeats}")
        print(f"{'kind':24}{'s/step':>9}{'tokens/s':>11}{'speed-up':>10}{'peak GB':>9}{'loss':>14}")
        for kind in kinds:
            best, peak = min(r["best"] for r in results[kind]), max(r["peak_gb"] for r in results[kind])
            speed = args.batch * length / best
            print(f"{kind:24}{best:9.3f}{speed:11,.0f}{base / best:10.2f}{peak:9.2f}{results[kind][0]['loss']:14.2f}", flush=True)
    if args.update:
        args.length = args.length[0]
        print(f"\nMuon update of ELF-B, the same for all kinds: {measure_update(args):.2f} s")


if __name__ == "__main__":
    main()
