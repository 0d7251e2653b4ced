"""Ray's own voice turned down where our progress lines say what happens."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_ray_data() -> Iterator[None]:
    """Ray Data without its own bars and start-up lines (its log file and its errors stay), and with all workers busy at once."""
    from ray.data import DataContext

    context = DataContext.get_current()
    # With the reservation, Ray Data runs few tasks at a time while it learns their sizes: of two workers one stood idle in the
    # first 1.2 s and in half of the time after. Here a task returns one small row, and there is nothing to reserve.
    switches = ("enable_progress_bars", "print_on_execution_start", "op_resource_reservation_enabled")
    before = {name: getattr(context, name) for name in switches if hasattr(context, name)}
    handlers = [handler for handler in logging.getLogger("ray.data").handlers if isinstance(handler, logging.StreamHandler)]
    levels = [handler.level for handler in handlers]
    for name in before:
        setattr(context, name, False)
    for handler in handlers:
        handler.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)


@contextlib.contextmanager
def native_stderr_off() -> Iterator[None]:
    """What is written to the descriptor itself is dropped, what Python writes to sys.stderr stays: Ray's C++ side warns, past all logging,
    that actors which may be restarted take their arguments from its store."""
    sys.stderr.flush()
    before, kept, null = sys.stderr, os.dup(2), os.open(os.devnull, os.O_WRONLY)
    with open(kept, "w", encoding=before.encoding, errors="replace", buffering=1) as sys.stderr:
        os.dup2(null, 2)
        os.close(null)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            sys.stderr = before
