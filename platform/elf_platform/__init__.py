"""Ray, DeepSpeed and MLflow around the `elf` package: data preparation, training, sampling, tracking and reports."""

from elf_platform.environment import prepare_environment
from elf_platform.shadows import own_packages_first

own_packages_first()
prepare_environment()
