"""Text in; tokenised, packed and hashed shards with a manifest out.

python jobs/prepare.py [RECIPE] [--data.paths my/*.txt --data.length 256 ...] [--workers N]
python jobs/prepare.py --inspect FOLDER
python jobs/prepare.py --verify FOLDER
python jobs/prepare.py --held-out FOLDER > pairs.jsonl
"""

import argparse
from pathlib import Path

import _paths  # noqa: F401  first: where the packages are

from elf_platform.cli import describe_run, parse_run_config, run_main
from elf_platform.commands import job_command
from elf_platform.runtime import connect


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--workers", type=int, default=0)
    _ = [options.add_argument(folder, type=Path) for folder in ("--inspect", "--verify", "--held-out")]
    own, rest = options.parse_known_args(argv)
    if own.inspect or own.verify or own.held_out:
        from elf_platform.data.inspect_data import show
        return show(inspected=own.inspect, verified=own.verify, held_out=own.held_out)

    run = parse_run_config(rest, prog=job_command("prepare"), summary=str(__doc__).strip())
    if run.print_only:
        print(describe_run(run.config))
        return 0
    with connect():
        from elf_platform.data.prepare import prepare, summary

        print(summary(prepare(run.config.data, run.config.storage, workers=own.workers)))
    return 0


if __name__ == "__main__":
    run_main(main)
