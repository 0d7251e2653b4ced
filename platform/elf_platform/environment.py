"""Environment variables that the libraries read when they are imported; ``elf_platform/__init__.py`` sets them before any of them is.

A value that the user has set always stays.
"""

import os
import secrets
import sys
from pathlib import Path

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise a FutureWarning from every worker without a GPU
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_V2_ENABLED": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",  # Ray's statistics of every process, which nobody reads on a private cluster
    "GIT_PYTHON_REFRESH": "quiet",
    "TOKENIZERS_PARALLELISM": "false",  # Ray parallelises over tasks, and a fork after tokenising would warn
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def prepare_environment() -> None:
    """Turns down the noise of the libraries and makes Ray's authentication explicit, here and in the processes started from here."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if "ray" not in sys.modules:  # Ray reads the mode once; changing it later would only make client and server disagree
        _choose_authentication()


def _choose_authentication() -> None:
    """Sets RAY_AUTH_MODE where the user left it open.

    A private cluster gets a token of its own that lives in this process's environment. Left to itself, Ray would write one to
    ~/.ray/auth_token, after which other Ray commands of the user behave differently. A cluster to join (RAY_ADDRESS) is given the
    token that is at hand; one without authentication ignores it.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    stored = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not os.environ.get("RAY_ADDRESS"):
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    elif os.environ.get("RAY_AUTH_TOKEN") or stored.is_file():
        os.environ["RAY_AUTH_MODE"] = "token"
