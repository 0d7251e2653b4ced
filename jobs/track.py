"""Send the figures of runs to their MLflow store, or tell what waits.

python jobs/track.py flush RUN ...     figures gather in the run folder while a tracking server is down: send them now
python jobs/track.py status RUN ...    where the figures are, what waits, how the run ended, what happened to it

RUN is the folder of a run, or its name under $ELF_HOME/runs. A point is sent once, however often this is called. The exit status
of flush is 0 when nothing waits any more and 1 when a store still does not answer.
"""

import argparse

import _paths  # noqa: F401  first: where the packages are

from elf_platform.cli import run_main
from elf_platform.commands import as_typed, job_command


def main(argv: list[str]) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog=job_command("track"), description=as_typed(str(__doc__)), formatter_class=form, allow_abbrev=False
    )
    parser.add_argument("verb", choices=("flush", "status"))
    parser.add_argument("runs", metavar="RUN", nargs="+")
    words = parser.parse_args(argv)

    from elf_platform.tracking.status import describe, find_run, flush_run

    folders = [find_run(name) for name in words.runs]
    if words.verb == "status":
        print("\n\n".join(map(describe, folders)))
        return 0
    sent = [flush_run(folder) for folder in folders]
    print("\n".join(line for _, line in sent))
    return 0 if all(done for done, _ in sent) else 1


if __name__ == "__main__":
    run_main(main)
