"""Compute batches on a pool of Ray actors: each actor loads the artefact once, each task commits one part of the folder."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray.data
import torch
from ray.data import ActorPoolStrategy

from elf_platform.data.prepare import quiet_ray_data
from elf_platform.sampling.command import Task
from elf_platform.sampling.pool import Pool
from elf_platform.sampling.rows import load_sampler, make_part


def sample_parts(task: Task, folder: Path, parts: Sequence[int], pool: Pool) -> Iterator[dict[str, Any]]:
    """Makes the parts of ``folder``; their records come as they are ready. Ray must be initialised.

    An actor that dies is started again, with the part it was at. Raises ValueError with the message of the first that refused."""
    with quiet_ray_data():
        rows = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
        results = rows.map(
            _Actor, fn_constructor_args=(task, str(folder)), compute=ActorPoolStrategy(size=pool.actors),
            num_cpus=pool.cpus, num_gpus=pool.gpus,
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
        except torch.OutOfMemoryError:
            self.refused = (
                f"the GPU has no room for a compute batch of {self.task.run.compute_batch} samples; lower --compute_batch (roundings may "
                "change, so finished parts are not kept: give another --out), or take --precision bf16"
            )
        except OSError as error:  # the disk is full, a file is gone
            self.refused = f"{error}; mend that and run the same command again: finished parts are kept"
