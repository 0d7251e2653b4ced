"""Whether the Hugging Face hub can be asked at all, found out in seconds.

Its own clients retry a dead connection for half a minute or more, which looks like a hang on a machine without internet.
"""

import os
import threading
import urllib.error
import urllib.request

_DEFAULT_ENDPOINT = "https://huggingface.co"


def hub_offline() -> bool:
    """True when HF_HUB_OFFLINE asks for the local cache only."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def hub_reachable(timeout: float = 5.0) -> bool:
    """True when the hub answers within ``timeout`` seconds (HF_ENDPOINT and proxies respected); False when offline is asked for."""
    if hub_offline():
        return False
    answered: list[bool] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(os.environ.get("HF_ENDPOINT") or _DEFAULT_ENDPOINT, method="HEAD")
            urllib.request.urlopen(request, timeout=timeout).close()
        except urllib.error.HTTPError:
            pass  # an answer all the same
        except (OSError, ValueError):
            return
        answered.append(True)

    # In a thread, because looking up a name can block for longer than any socket time-out.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return bool(answered)
