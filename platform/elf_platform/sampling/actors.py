"""Compute batches on a pool of Ray actors: each actor loads the artefact once, each task commits one part of the folder."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy

from elf_platform.data.prepare import quiet_ray_data
from elf_platform.runtime import Cluster
from elf_platform.sampling.command import Task
from elf_platform.sampling.rows import load_sampler, make_part

RESTARTS = 3
"""Deaths of an actor that are mended; Ray Data's own default is without end, also for one that needs more memory than there is."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Actors and what each of them takes."""

    actors: int
    cpus: int
    gpus: int


def plan_pool(cluster: Cluster, *, actors: int, threads: int, device: str, parts: int) -> Pool:
    """How many actors: as asked, or (0) as many as there is room for, and no more than parts. Raises ValueError when they do not fit.

    On a cluster that others share or that scales, what was asked for is a limit: fewer start when there is no room."""
    gpus = 1 if device == "cuda" else 0
    room = int(cluster.gpus) if gpus else int(cluster.cpus // threads)
    what = "1 GPU" if gpus else f"{threads} CPU thread{'s' if threads > 1 else ''}"
    has = f"{cluster.gpus:g} GPUs" if gpus else f"{cluster.cpus:g} CPUs"
    if cluster.local and max(actors, 1) > room:
        raise ValueError(f"{max(actors, 1)} actors with {what} each do not fit: this machine has {has}; lower --actors or --threads")
    return Pool(actors=max(1, min(actors or room, parts)), cpus=min(threads, max(1, int(cluster.cpus))), gpus=gpus)


def sample_parts(task: Task, folder: Path, parts: Sequence[int], pool: Pool) -> Iterator[dict[str, Any]]:
    """Makes the parts of ``folder``; their records come as they are ready. Ray must be initialised.

    An actor that dies is started again, with the part it was at. Raises ValueError with the message of the first that refused."""
    with quiet_ray_data():
        rows = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
        results = rows.map(
            _Actor, fn_constructor_args=(task, str(folder)), compute=ActorPoolStrategy(size=pool.actors),
            num_cpus=pool.cpus, num_gpus=pool.gpus, max_restarts=RESTARTS, max_task_retries=RESTARTS,
        )
        for row in results.iter_rows():
            if row["refused"]:
                raise ValueError(row["refused"])
            yield json.loads(row["record"])


class _Actor:
    def __init__(self, task: Task, folder: str) -> None:
        self.task, self.folder, self.refused = task, Path(folder), ""
        with self._refusing():
            self.sampler = load_sampler(task)

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        record: dict[str, Any] = {}
        if not self.refused:
            with self._refusing():
                record = make_part(self.sampler, self.task, self.folder, int(row["part"]))
        return {"record": json.dumps(record), "refused": self.refused}

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        # As a value, so that the user reads the paragraph and not the trace of a remote call.
        try:
            yield
        except ValueError as error:
            self.refused = str(error) or repr(error)
        except OSError as error:  # the disk is full, a file is gone
            self.refused = f"{error}; mend that and run the same command again: finished parts are kept"
