"""Draw text from a trained artefact: python jobs/sample.py RUN/artefact --count 16 --steps 64 --sampler ode."""

from elf_platform.cli import parse_settings, run_main


def main(argv: list[str]) -> None:
    """Sample as the command line says; see --help."""
    from elf_platform.sample import SampleCommand, sample

    sample(parse_settings(SampleCommand, argv, prog="python jobs/sample.py", summary=str(__doc__)))


if __name__ == "__main__":
    run_main(main)
