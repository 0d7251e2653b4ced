"""Draw text from a trained artefact, printed or at scale into a folder.

python jobs/sample.py RUN/artefact --count 16 --steps 64 --sampler ode

python jobs/sample.py RUN/artefact --count 5000 --out FOLDER

python jobs/sample.py RUN/artefact --sources FILE --out FOLDER
"""

from elf_platform.cli import parse_settings, run_main


def main(argv: list[str]) -> None:
    """Sample as the command line says; see --help."""
    from elf_platform.sampling.command import SampleCommand
    from elf_platform.sampling.job import sample

    sample(parse_settings(SampleCommand, argv, prog="python jobs/sample.py", summary=str(__doc__)))


if __name__ == "__main__":
    run_main(main)
