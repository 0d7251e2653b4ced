"""Draw text from a trained artefact, printed or at scale into a folder. ARTEFACT is its folder, or a run's folder or name.
The sampler's settings are those of the run, which the artefact keeps, where none are given; the defaults below are for artefacts without.

python jobs/sample.py RUN/artefact --count 16 --steps 64 --sampler ode

python jobs/sample.py RUN/artefact --count 5000 --out FOLDER

python jobs/sample.py RUN/artefact --sources FILE --out FOLDER
"""

import _paths  # noqa: F401  first: where the packages are

from elf_platform.cli import parse_settings, run_main
from elf_platform.commands import job_command


def main(argv: list[str]) -> None:
    """Sample as the command line says; see --help."""
    from elf_platform.sampling.command import SampleCommand, with_given
    from elf_platform.sampling.job import sample

    sample(with_given(parse_settings(SampleCommand, argv, prog=job_command("sample"), summary=str(__doc__)), argv))


if __name__ == "__main__":
    run_main(main)
