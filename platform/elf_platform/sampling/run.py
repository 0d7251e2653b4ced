"""What a sample folder holds, as settings: two folders with equal settings hold the same bytes, whoever made them."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from elf.nn.config import Precision
from elf_platform.differences import differences


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """The sources of a run; all zero for samples from nothing."""

    sha256: str = ""
    """Of the source texts in order."""
    lines: int = 0
    per_source: int = 1
    truncated: int = 0
    """Sources that were longer than the model takes, and were cut."""
    empty: int = 0
    """Sources without text, whose samples are empty as well."""


@dataclass(frozen=True, kw_only=True)
class SampleRun:
    """All that decides the bytes of samples, but for their number: more samples of one run extend what is there."""

    artefact: str
    """SHA-256 of the artefact's config.json, which holds the hashes of its other files."""
    tokenizer: str
    """Fingerprint of the tokenizer."""
    process: str
    weights: str
    """ema or raw, as the artefact's lineage says."""
    settings: dict[str, Any]
    """The SampleConfig without its count."""
    compute_batch: int
    length: int
    """Tokens of a row, source included."""
    target_length: int
    """Tokens that are generated for a row at most."""
    precision: Precision
    device: str
    """cpu or cuda."""
    threads: int
    compile: bool
    sources: SourceFacts
    torch: str
    code_version: str

    def to_dict(self) -> dict[str, Any]:
        """JSON values; lists where the settings have tuples, as reading them back gives."""
        return dict(json.loads(json.dumps(dataclasses.asdict(self))))


def run_differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """``name: found -> wanted`` for each leaf in which two runs differ, hashes cut."""
    return differences(found, wanted, show=_short)


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) > 40 else text
