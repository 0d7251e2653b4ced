"""Turn weights of the authors' ELF code into an artefact.

python jobs/import_elf.py hub:embedded-language-flows/ELF-B-owt-torch --out models/elf-b
"""

import _paths  # noqa: F401  first: where the packages are

from elf_platform.cli import parse_settings, run_main
from elf_platform.commands import job_command
from elf_platform.import_official import ImportConfig, import_official


def main(argv: list[str]) -> None:
    config = parse_settings(ImportConfig, argv, prog=job_command("import_elf"), summary=str(__doc__))
    folder, found = import_official(config)
    network = found.network
    print(
        f"{folder}: hidden {network.hidden}, depth {network.depth}, heads {network.heads}, "
        f"{found.channels} channels, {found.vocab_size} ids"
    )


if __name__ == "__main__":
    run_main(main)
