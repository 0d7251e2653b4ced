"""Folders of the Hugging Face hub: from its local cache, or fetched, or refused within seconds when it cannot be reached."""

import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

_PREFIX = "hub:"
_FILES = ("config.json", "model*.safetensors", "model.safetensors.index.json")


def is_hub(source: str) -> bool:
    """True for hub:NAME and hub:NAME@REVISION."""
    return source.startswith(_PREFIX)


def _holds_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("model*.safetensors"))


def hub_folder(
    source: str, *, setting: str, way_out: str, timeout_s: float = 5.0, files: tuple[str, ...] = _FILES,
    is_whole: Callable[[Path], bool] = _holds_model, written: str = "",
) -> Path:
    """The folder that holds config.json and the safetensors weights of ``source``, or whatever else ``files`` name.

    setting and way_out: the setting's name, and what to do instead, for the message. is_whole: whether a folder of the local
    cache has what is needed. written: the source as the user wrote it, where that is not hub:NAME. Raises ValueError when the hub
    cannot be reached or has no such model.
    """
    from huggingface_hub import constants, snapshot_download

    assert is_hub(source)
    name, _, revision = source.removeprefix(_PREFIX).partition("@")
    fetch = partial(snapshot_download, name, revision=revision or None, allow_patterns=list(files), etag_timeout=timeout_s)
    try:
        folder = Path(fetch(local_files_only=True))
        if is_whole(folder):
            return folder
    except Exception:  # nothing usable in the cache: the attempt below says why it cannot be had
        pass
    written = written or source
    _refuse_unreachable(constants.ENDPOINT, written, setting, way_out, timeout_s)
    try:
        return Path(fetch())
    except Exception as error:  # a dozen types of the hub's client and of the HTTP library under it
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ValueError(
            f"{setting} is {written}, but the Hugging Face hub did not give it ({type(error).__name__}: {first}). Check the name "
            f"and that you may read it, or {way_out}"
        ) from error


def _refuse_unreachable(endpoint: str, source: str, setting: str, way_out: str, timeout_s: float) -> None:
    """The hub's client tries for minutes when packets are dropped; one plain request with a time limit knows at once."""
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=timeout_s).close()
    except urllib.error.HTTPError:
        return  # an answer, whatever it says
    except OSError as error:
        raise ValueError(
            f"{setting} is {source}, which is not in the local cache, and the Hugging Face hub at {endpoint} could not be "
            f"reached ({getattr(error, 'reason', error)}). Connect to the network, or {way_out}"
        ) from error
