"""Draw text from a trained artefact: python jobs/sample.py RUN/artefact --count 16 --steps 64 --sampler ode."""

import tyro
from elf_platform.cli import run_main


def main(argv: list[str]) -> None:
    """Sample as the command line says; see --help."""
    from elf_platform.sample import SampleCommand, sample

    sample(tyro.cli(SampleCommand, args=argv, prog="python jobs/sample.py", use_underscores=True))


if __name__ == "__main__":
    run_main(main)
