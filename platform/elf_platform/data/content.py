"""What files hold, by their SHA-256: a corpus is the same wherever it lies, whatever it is called and whenever it was touched."""

import hashlib
import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from elf.files import write_text
from elf_platform.data.files import FoundFile, open_file
from elf_platform.data.progress import ProgressLine

_BLOCK = 1 << 20
_THREADS = 8
_SHOWN = 1 << 28  # bytes to read from which on progress is shown: about a second of one core
_SETTLED_NS = 2_000_000_000  # a file that was just written may change once more within one tick of its clock

Stamp = list[int]


class ContentHashes:
    """Hashes of files, remembered in ``memory`` (a file, or None) by name, size, times and inode, so that what did not change is not read
    again. The memory decides nothing: without it, the same hashes are computed."""

    def __init__(self, memory: Path | None = None, *, progress: bool = False) -> None:
        self._memory, self._progress = memory, progress
        self._stop = threading.Event()

    def of(self, files: Sequence[FoundFile]) -> list[str]:
        """SHA-256 (hex) of each file as it is stored. Raises OSError for one that cannot be read."""
        known = self._remembered()
        stamps = [_stamp(file) for file in files]
        same = (file.uri for file, stamp in zip(files, stamps, strict=True) if file.uri in known and known[file.uri][0] == stamp)
        found = {uri: known[uri][1] for uri in same}
        missing = [file for file in files if file.uri not in found]
        if not missing:
            return [found[file.uri] for file in files]
        total = sum(file.size for file in missing)
        pool = ThreadPoolExecutor(_THREADS)
        try:
            with ProgressLine("hashing what the corpus holds", total / 1e6, on=self._progress and total >= _SHOWN) as line:
                for file, digest in zip(missing, pool.map(lambda file: self._digest(file, line), missing), strict=True):
                    found[file.uri] = digest
        finally:
            self._stop.set()  # a signal ends the job, which does not wait for the rest of a long file
            pool.shutdown(cancel_futures=True)
            self._stop.clear()
        self._remember(known, {file.uri: (stamp, found[file.uri]) for file, stamp in zip(files, stamps, strict=True)})
        return [found[file.uri] for file in files]

    def _digest(self, file: FoundFile, line: ProgressLine) -> str:
        digest = hashlib.sha256()
        with open_file(file.uri) as source:
            while not self._stop.is_set() and (block := source.read(_BLOCK)):
                digest.update(block)
                line.advance(len(block) / 1e6)
        return digest.hexdigest()

    def _remembered(self) -> dict[str, tuple[Stamp, str]]:
        try:
            plain = json.loads(self._memory.read_text(encoding="utf-8")) if self._memory else {}
            return {uri: (stamp, digest) for uri, (stamp, digest) in plain.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _remember(self, known: dict[str, tuple[Stamp, str]], found: dict[str, tuple[Stamp, str]]) -> None:
        if self._memory is None:
            return
        settled = time.time_ns() - _SETTLED_NS
        kept = known | {uri: entry for uri, entry in found.items() if entry[0][1] < settled}
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._memory, json.dumps(kept))


def _stamp(file: FoundFile) -> Stamp:
    """Size, times and place on its disk: what changes whenever the content does."""
    if "://" in file.uri:
        return [file.size, file.modified_ns]
    stat = os.stat(file.uri)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_dev, stat.st_ino]
