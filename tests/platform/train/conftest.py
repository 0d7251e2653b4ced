"""The small training job of tests/support as fixtures."""

from collections.abc import Callable

import pytest
from small_training import build_training, small_config

from elf_platform.config import RunConfig
from elf_platform.train.loop import Training


@pytest.fixture
def config_of() -> Callable[..., RunConfig]:
    return small_config


@pytest.fixture
def training() -> Callable[..., Training]:
    return build_training
