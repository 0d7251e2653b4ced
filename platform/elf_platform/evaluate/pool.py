"""Judge batches on a Ray Data actor pool: the judge is loaded once an actor, and the figures are those of one process."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import ray.data
import torch
from ray.data import ActorPoolStrategy

from elf.metrics.perplexity import PROTOCOLS
from elf.nn.config import Precision
from elf_platform.data.prepare import quiet_ray_data
from elf_platform.evaluate.judge import load_judge
from elf_platform.evaluate.scoring import BatchScores, JudgeBatch, Run, score_batch
from elf_platform.sampling.pool import Pool


class JudgeActor:
    """One judge in one process with a fixed number of threads."""

    def __init__(self, source: str, precision: Precision, device: str, protocol: str, threads: int) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        torch.set_num_threads(threads)
        self.judge = load_judge(source, precision=precision, device=device)
        self.protocol = PROTOCOLS[protocol]

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Score the batch that a row holds."""
        batch = JudgeBatch(index=[], ids=[list(map(int, ids)) for ids in row["ids"]], limit=int(row["limit"]))
        sums_B2, state_BH = score_batch(self.judge, self.protocol, batch)
        return {"number": row["number"], "sums": sums_B2.tobytes(), "states": state_BH.tobytes(), "width": state_BH.shape[1]}


def run_on_actors(source: str, *, precision: Precision, device: str, protocol: str, threads: int, pool: Pool) -> Run:
    """Scoring on the actors of ``pool``; Ray must be initialised. Batches are the same whatever their number, and so are the results."""

    def run(batches: Sequence[JudgeBatch]) -> Iterator[tuple[int, BatchScores]]:
        rows = [{"number": number, "ids": batch.ids, "limit": batch.limit} for number, batch in enumerate(batches)]
        with quiet_ray_data():
            data = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                JudgeActor, fn_constructor_args=(source, precision, device, protocol, threads), num_cpus=pool.cpus,
                num_gpus=pool.gpus, compute=ActorPoolStrategy(size=pool.actors),
            )
            found = 0
            for row in data.iter_rows():
                sums_B2 = np.frombuffer(row["sums"]).reshape(-1, 2)
                yield int(row["number"]), (sums_B2, np.frombuffer(row["states"]).reshape(-1, row["width"]))
                found += 1
        assert found == len(batches), f"Ray Data gave {found} of {len(batches)} batches back"

    return run
