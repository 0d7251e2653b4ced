"""Texts in, a score record out.

python jobs/evaluate.py SAMPLES --judge hf:gpt2-large [--real_text RUN --controls] [--references targets.txt]
python jobs/evaluate.py text.txt --judge RUN
python jobs/evaluate.py RUN [--data DATA]
python jobs/evaluate.py compare SCORE.json SCORE.json ...
"""

import _paths  # noqa: F401  first: where the packages are

from elf_platform.cli import parse_settings, run_main
from elf_platform.commands import job_command


def main(argv: list[str]) -> None:
    """Score or compare as the command line says; see --help."""
    from elf_platform.evaluate.command import compare_records, evaluate
    from elf_platform.evaluate.options import CompareCommand, EvaluateCommand, with_new_names

    prog, summary = job_command("evaluate"), str(__doc__)
    if argv[:1] == ["compare"]:
        compare_records(parse_settings(CompareCommand, argv[1:], prog=f"{prog} compare", summary=summary))
    else:
        evaluate(parse_settings(EvaluateCommand, with_new_names(argv), prog=prog, summary=summary))


if __name__ == "__main__":
    run_main(main)
