"""Ray, DeepSpeed and MLflow around the `elf` package: data preparation, training, sampling, tracking and reports."""

from elf_platform.environment import prepare_environment

prepare_environment()
