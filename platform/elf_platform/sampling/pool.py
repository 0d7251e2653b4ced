"""How many actors sample at once, and what each takes of the cluster."""

from dataclasses import dataclass

from elf_platform.runtime import Cluster


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
