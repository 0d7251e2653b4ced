"""What all workers tell one another outside the engine: small Python values over the process group, if there is one."""

from typing import Any

import torch.distributed as dist


def gather_objects(value: Any) -> list[Any]:
    """Every worker's value, on all of them, in rank order; also a barrier. Alone where no process group was made."""
    if not dist.is_available() or not dist.is_initialized():
        return [value]
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, value)
    return everyone
