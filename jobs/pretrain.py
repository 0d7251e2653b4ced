"""Train a model: from text to an artefact, samples, a tracked run and a report."""

import sys

from elf_platform.cli import describe_run, parse_run_config, run_main


def main(argv: list[str]) -> None:
    """Train the recipe that the command line names; see --help."""
    run = parse_run_config(argv, prog="python jobs/pretrain.py", summary=__doc__ or "")
    if run.print_only:
        sys.stdout.write(describe_run(run.config) + "\n")
        return
    from elf_platform.pretrain import pretrain

    pretrain(run.config, run.recipe)


if __name__ == "__main__":
    run_main(main)
