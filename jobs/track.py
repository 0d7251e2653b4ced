"""The runs that are there, where their figures are, and sending what waits to their MLflow store.

python jobs/track.py list              the runs of the storage: state, steps, loss, and the command that goes on with each
python jobs/track.py status RUN ...    where the figures are, what waits, how the run ended, what happened to it
python jobs/track.py flush RUN ...     figures gather in the run folder while a tracking server is down: send them now

RUN is the folder of a run, or its name under $ELF_HOME/runs; --storage names another storage for list. flush sends a point once; its exit
status is 1 when a store does not answer. It sends to the store of $ELF_HOME or MLFLOW_TRACKING_URI; name others by --tracking.uri.
"""

import argparse

import _paths  # noqa: F401  first: where the packages are

from elf_platform.cli import run_main
from elf_platform.commands import as_typed, job_command


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(job_command("track"), None, as_typed(str(__doc__)), allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("verb", choices=("list", "status", "flush"))
    parser.add_argument("runs", metavar="RUN", nargs="*")
    parser.add_argument("--storage"), parser.add_argument("--tracking.uri", dest="uri", default="")
    words = parser.parse_args(argv)
    if (words.verb == "list") == bool(words.runs) or (words.storage and words.verb != "list"):
        parser.error("list takes no RUN, but --storage if wanted; status and flush take the folders or names of runs")
    from elf_platform.lookup import resolve
    from elf_platform.tracking.status import describe, flush_run, list_storage
    folders = [resolve(name, "run") for name in words.runs]
    if words.verb != "flush":
        print("\n\n".join(map(describe, folders)) if folders else list_storage(words.storage))
        return 0
    done, lines = zip(*(flush_run(folder, words.uri) for folder in folders), strict=True)
    print("\n".join(lines))
    return 0 if all(done) else 1


if __name__ == "__main__":
    run_main(main)
