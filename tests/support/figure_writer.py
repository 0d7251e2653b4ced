"""A stand-in for rank 0: a process that logs figures through the tracker, and waits at gates so that a test can act in between.

python figure_writer.py RUN_FOLDER FIRST LAST EVERY [GATE ...]: logs the steps FIRST, FIRST + EVERY, ... below LAST; at a step that is a
gate it waits for the file RUN_FOLDER/gate-STEP. Leaves RUN_FOLDER/writer.json with the seconds of the slowest call of the tracker.
"""

import json
import sys
import time
from pathlib import Path

from elf_platform.tracking import load_handle, start_tracker

PARTS = 12


def figures(step: int) -> dict[str, float]:
    """What the writer logs at a step; a metric of its own begins late, and one is logged now and then only."""
    values = {f"train/part{part}": step + part / 100 for part in range(PARTS)} | {"train/loss": 1 / (1 + step)}
    if step >= 150:
        values["late/loss"] = float(-step)
    if step % 10 == 0:
        values["valid/loss"] = 2.0 * step
    return values


def main() -> None:
    folder, first, last, every, *gates = Path(sys.argv[1]), *map(int, sys.argv[2:])
    handle = load_handle(folder)
    assert handle is not None
    tracker = start_tracker(handle, folder)
    tracker.event(first, "attempt", f"1 worker, plain engine, from step {first}")
    slowest = 0.0
    for step in range(first, last, every):
        while step in gates and not (folder / f"gate-{step}").exists():
            time.sleep(0.02)
        began = time.perf_counter()
        tracker.log(step, figures(step))
        if step == 120:
            tracker.text("samples/0", "a sample", step)
        slowest = max(slowest, time.perf_counter() - began)
        time.sleep(0.004)  # a quick training step
    tracker.close()
    (folder / "writer.json").write_text(json.dumps({"slowest": slowest}))


if __name__ == "__main__":
    main()
