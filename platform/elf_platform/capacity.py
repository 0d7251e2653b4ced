"""What a cluster can carry. A worker has to fit one node, so workers are packed onto nodes; sums over nodes prove nothing."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Node:
    """One machine, or ``count`` machines of a kind."""

    cpus: float
    gpus: float = 0.0
    count: int = 1

    def room(self, *, cpus: float, gpus: float = 0.0) -> int:
        """Workers that take so much each and fit one machine of this kind."""
        return int(min(self.cpus // cpus if cpus else math.inf, self.gpus // gpus if gpus else math.inf))


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What autoscaling may bring."""

    head: tuple[Node, ...] = ()
    """The head of the cluster, which is there in any case, where it is known."""
    kinds: tuple[Node, ...] = ()
    """Kinds of machine beside it, and how many of each there may be."""
    machines: int = 0
    """Most machines of all these kinds together."""

    def room(self, *, cpus: float, gpus: float = 0.0) -> int:
        """Workers that fit when the cluster is as large as it may be, with the kinds that carry most of them."""
        total, left = sum(node.room(cpus=cpus, gpus=gpus) * node.count for node in self.head), self.machines
        for each, count in sorted(((kind.room(cpus=cpus, gpus=gpus), kind.count) for kind in self.kinds), reverse=True):
            total += each * min(count, left)
            left -= min(count, left)
        return total


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What the cluster has to offer."""

    nodes: tuple[Node, ...]
    """The machines that are there."""
    local: bool
    """Started by this process for itself alone."""
    growth: Growth = Growth()
    """What autoscaling may make of it; nothing where the cluster does not scale, or does not say how far."""

    @property
    def cpus(self) -> float:
        """CPUs that are there."""
        return sum(node.cpus * node.count for node in self.nodes)

    @property
    def gpus(self) -> float:
        """GPUs that are there."""
        return sum(node.gpus * node.count for node in self.nodes)

    def room(self, *, cpus: float, gpus: float = 0.0) -> int:
        """Workers with so many CPUs and GPUs each that fit the cluster, as it is or as autoscaling may make it."""
        return max(self.room_now(cpus=cpus, gpus=gpus), self.growth.room(cpus=cpus, gpus=gpus))

    def room_now(self, *, cpus: float, gpus: float = 0.0) -> int:
        """Workers that fit the machines that are there."""
        return sum(node.room(cpus=cpus, gpus=gpus) * node.count for node in self.nodes)

    def widest(self, workers: int, *, gpus: int = 0) -> int:
        """Most CPU threads that each of ``workers`` can have, at least 1. With GPUs, no more than a GPU's even share of its node."""
        growth = self.growth
        kinds = (*self.nodes, *growth.head, *growth.kinds)
        for threads in range(int(max((node.cpus for node in kinds), default=1)), 1, -1):
            now, head, later = (
                tuple(n for n in some if not gpus or n.gpus * threads <= n.cpus) for some in (self.nodes, growth.head, growth.kinds)
            )
            capped = Cluster(nodes=now, local=self.local, growth=Growth(head=head, kinds=later, machines=growth.machines))
            if capped.room(cpus=threads, gpus=gpus) >= workers:
                return threads
        return 1

    def words(self) -> str:
        """Its machines in words, and what may come."""
        said = _machines(self.nodes) or "no nodes"
        if not self.growth.kinds:
            return said
        nodes = self.growth.machines + len(self.growth.head)
        return f"{said}, and may grow to {nodes} nodes, at most {_machines((*self.growth.head, *self.growth.kinds))}"


def _machines(nodes: Iterable[Node]) -> str:
    kinds: Counter[tuple[float, float]] = Counter()
    for node in nodes:
        kinds[node.cpus, node.gpus] += node.count
    said = []
    for (cpus, gpus), count in kinds.items():
        many = f"{count} node{'s' if count > 1 else ''} of " if count > 1 or len(kinds) > 1 else ""
        said.append(f"{many}{cpus:g} CPU{'s' if cpus != 1 else ''}" + (f" and {gpus:g} GPU{'s' if gpus != 1 else ''}" if gpus else ""))
    return " + ".join(said)


def growth_of(config: Mapping[str, Any]) -> Growth:
    """The limits that stand in a cluster's autoscaling configuration (the YAML of `ray up`)."""
    head, kinds = list[Node](), list[Node]()
    for name, kind in (config.get("available_node_types") or {}).items():
        most = int(kind.get("max_workers", config.get("max_workers", 0))) if name != config.get("head_node_type") else 1
        resources = kind.get("resources") or {}
        node = Node(cpus=float(resources.get("CPU", 0)), gpus=float(resources.get("GPU", 0)), count=most)
        if most > 0:
            (head if name == config.get("head_node_type") else kinds).append(node)
    return Growth(head=tuple(head), kinds=tuple(kinds), machines=int(config.get("max_workers", 0)))
