"""How many actors sample at once, and what each takes of the cluster."""

from dataclasses import dataclass

from elf_platform.capacity import Cluster


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
    room = cluster.room(cpus=threads, gpus=gpus)
    wanted = max(actors, 1) if cluster.local else 1
    if wanted > room:
        what = f"{threads} CPU thread{'s' if threads > 1 else ''}{' and 1 GPU' if gpus else ''}"
        raise ValueError(
            f"{wanted} actor{'s' if wanted > 1 else ''} with {what} each do{'' if wanted > 1 else 'es'} not fit: "
            f"{'this machine' if cluster.local else 'the cluster'} has {cluster.words()}, and an actor has to fit one node; lower --actors "
            "or --threads"
        )
    return Pool(actors=max(1, min(actors or room, parts)), cpus=threads, gpus=gpus)


def sampling_device(gpu: str, cluster: Cluster) -> tuple[str, str]:
    """(cuda or cpu, a note for the user or nothing) for ``--gpu``: auto takes GPUs where the cluster has them or can get them.

    Raises ValueError when GPUs were asked for and none will come."""
    if gpu == "off":
        return "cpu", ""
    if not cluster.room(cpus=1, gpus=1):
        if gpu == "on":
            raise ValueError(
                f"--gpu is on, but there is no GPU: the cluster has {cluster.words()}; leave it at auto, or set it off to use CPUs"
            )
        return "cpu", "" if cluster.local else f"on CPUs: no GPU is in the cluster ({cluster.words()})"
    return "cuda", "" if cluster.room_now(cpus=1, gpus=1) else f"on GPUs, which the cluster scales up for first ({cluster.words()})"
