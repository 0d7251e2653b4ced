"""Train a model: from text to an artefact, samples, a tracked run and a report."""

import sys

import _paths  # noqa: F401  first: where the packages are

from elf_platform.cli import describe_run, parse_run_config, run_main
from elf_platform.commands import job_command


def main(argv: list[str]) -> None:
    """Train the recipe that the command line names; see --help."""
    run = parse_run_config(argv, prog=job_command("pretrain"), summary=__doc__ or "")
    if run.print_only:
        sys.stdout.write(describe_run(run.config) + "\n")
        return
    run.check_store()
    from elf_platform.pretrain import pretrain

    pretrain(run.config, run.recipe, extend=run.extend, based_on=run.based_on)


if __name__ == "__main__":
    run_main(main)
