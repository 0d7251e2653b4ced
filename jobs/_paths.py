"""Imported first by every job: the packages of this checkout, whatever is installed and wherever the job is started."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / root) for root in ("platform", "model")]
