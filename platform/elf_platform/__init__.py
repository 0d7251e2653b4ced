"""Ray, DeepSpeed and MLflow around the `elf` package: data preparation, training, sampling, tracking and reports.

In a notebook: ``elf_platform.load``, ``elf_platform.score`` and ``elf_platform.show`` (docs/python.md).
"""

from typing import TYPE_CHECKING, Any

from elf_platform.environment import prepare_environment
from elf_platform.shadows import own_packages_first

if TYPE_CHECKING:
    from elf_platform.notebook import Model, load, score, show

__all__ = ["Model", "load", "score", "show"]

own_packages_first()
prepare_environment()


def __getattr__(name: str) -> Any:
    """The names above, imported when they are asked for: a job's --help must not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from elf_platform import notebook

    return getattr(notebook, name)
