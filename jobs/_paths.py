"""Imported first by every job: the packages of this checkout, whatever is installed and wherever the job is started; and a stop while the
others are imported ends the job at once."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / root) for root in ("platform", "model")]

from elf_platform.stops import stop_at_once  # noqa: E402

stop_at_once()
