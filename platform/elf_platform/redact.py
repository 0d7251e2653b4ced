"""Secrets in addresses: kept out of everything that is written or shown, and handed on through the environment alone."""

import os
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote, urlsplit, urlunsplit

# Bounded, so that a long text costs no more than its length.
_LOGIN = re.compile(r"(?P<scheme>(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{0,30}://)(?P<login>[^\s/?#'\"<>]{0,4000})@")
_QUERY = re.compile(
    r"(?P<name>[?&;][\w.-]{0,40}"
    r"(?:token|secret|passw(?:or)?d|pwd|credential|signature|sig|api_?key|access_?key|private_?key|account_?key)[\w.-]{0,40}=)"
    r"(?P<value>[^&;#\s'\"<>]+)",
    re.IGNORECASE,
)
_SERVERS = ("http", "https")
_USER, _PASSWORD, _LOGIN_OF_DATABASE = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "ELF_TRACKING_PASSWORD"
CREDENTIALS = (_USER, _PASSWORD, "MLFLOW_TRACKING_TOKEN", _LOGIN_OF_DATABASE, "PGPASSWORD")
"""Environment variables that open a tracking store."""


def redact(text: str) -> str:
    """``text`` without what stands before the @ of an address, and without the values of parameters that are called like secrets."""
    text = _LOGIN.sub(r"\g<scheme>***@", text) if "://" in text else text
    return _QUERY.sub(r"\g<name>***", text) if "=" in text else text


def take_login(uri: str, setting: str) -> str:
    """The address of a tracking store without its password, which goes to this process's environment, and from there to the processes
    that it starts. The user's name of a database stays; of a server it goes as well, since it may be a token.

    Raises ValueError for secrets among the parameters, which nothing could put back."""
    if _QUERY.search(uri):
        raise ValueError(
            f"{setting} {redact(uri)} has a secret among its parameters, which would be written in the run; give it as user:password@ "
            f"before the host, or in the environment ({_USER} and {_PASSWORD}, MLFLOW_TRACKING_TOKEN)"
        )
    parts = urlsplit(uri)
    if "@" not in parts.netloc and parts.netloc and "@" in uri:
        raise ValueError(
            f"{setting} {parts.scheme}://... has an @ behind the first / ? or # of what follows: if it is that before the host, write "
            "these in the user's name and the password as %2F, %3F and %23"
        )
    if not _LOGIN.match(uri):
        return uri
    login, _, host = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    if parts.scheme in _SERVERS:
        os.environ[_USER] = unquote(user)
        os.environ[_PASSWORD] = unquote(password)
        return urlunsplit(parts._replace(netloc=host))
    if colon:
        os.environ[_LOGIN_OF_DATABASE] = unquote(password)
    return urlunsplit(parts._replace(netloc=f"{user}@{host}"))


def with_password(uri: str) -> str:
    """The address that a database's driver is given: with the password of the environment."""
    password, parts = os.environ.get(_LOGIN_OF_DATABASE, ""), urlsplit(uri)
    user, at, host = parts.netloc.rpartition("@")
    if not password or not at or ":" in user or parts.scheme in _SERVERS:
        return uri
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}"))


def credentials() -> dict[str, str]:
    """What opens the tracking store, for a process on another machine."""
    return {name: os.environ[name] for name in CREDENTIALS if name in os.environ}


def take_credentials(given: Mapping[str, str]) -> None:
    """Puts ``credentials`` of the driver where the libraries look for them; what is there already stays."""
    for name, value in given.items():
        if name in CREDENTIALS:
            os.environ.setdefault(name, value)


def refuse_secrets(uri: str, setting: str) -> None:
    """ValueError for an address of data with a secret in it."""
    if "://" in uri and redact(uri) != uri:
        raise ValueError(
            f"{setting} has {redact(uri)!r} with a secret in it, which would be written in the configuration, the manifest and the logs; "
            "take it out, and give it in the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://, "
            "GOOGLE_APPLICATION_CREDENTIALS for gs://"
        )
