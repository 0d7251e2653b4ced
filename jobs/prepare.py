"""Text in; tokenised, packed and hashed shards with a manifest out.

python jobs/prepare.py [RECIPE] [--data.paths 'my/*.txt' --data.length 256 ...] [--workers N]
python jobs/prepare.py --inspect DATA
python jobs/prepare.py --verify DATA
python jobs/prepare.py --held-out DATA > pairs.jsonl

DATA is a folder data/KEY, or a run by its name or folder: the data that it was trained on.
"""

import _paths  # noqa: F401  first: where the packages are

from elf_platform.cli import describe_run, parse_run_config, run_main
from elf_platform.commands import job_command
from elf_platform.data.command import sort_prepare_words
from elf_platform.help import DATA_PAGE
from elf_platform.runtime import connect


def main(argv: list[str]) -> int:
    own, rest = sort_prepare_words(argv)
    if own.looks and rest == []:
        from elf_platform.data.inspect_data import show

        return show(inspected=own.inspect, verified=own.verify, held_out=own.held_out, storage=own.storage)

    run = parse_run_config(rest, prog=job_command("prepare"), summary=str(__doc__).strip(), page=DATA_PAGE)
    if run.print_only:
        print(describe_run(run.config))
        return 0
    with connect():
        from elf_platform.data.prepare import prepare, summary

        print(summary(prepare(run.config.data, run.config.storage, workers=own.workers)))
    return 0


if __name__ == "__main__":
    run_main(main)
