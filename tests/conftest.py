"""Fixtures of the whole test suite."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Small tensors on several threads mostly wait: the threads spin for each other, on a busy machine ten times longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import elf_platform  # noqa: F401  first, because it sets the environment that Ray reads at import
from elf_platform.commands import CALLED_FROM
from elf_platform.runtime import Cluster, local_cluster

os.environ.pop(CALLED_FROM, None)  # of the shell that called make; tests are called from where they are


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    """A private Ray cluster of two CPUs with token authentication, shared by all tests of the session."""
    with local_cluster(2) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small corpus in two text files: 400 short documents of made-up English, one a paragraph."""
    folder = tmp_path_factory.mktemp("corpus")
    subjects = ("The river", "A lamp", "My neighbour", "The old clock", "Every letter", "The harbour", "A kite", "The baker")
    verbs = ("carries", "forgets", "repeats", "follows", "colours", "answers", "holds", "crosses")
    objects = ("the morning", "a quiet street", "the same song", "its own shadow", "the cold hill", "an open door", "two small boats")
    for part in range(2):
        documents = []
        for i in range(200):
            k = 200 * part + i
            sentences = (
                f"{subjects[(k + j) % 8]} {verbs[(k * 3 + j * 5) % 8]} {objects[(k * 2 + j) % 7]} {k + j} times." for j in range(3 + k % 5)
            )
            documents.append(" ".join(sentences))
        (folder / f"part{part}.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return folder
