"""Servers that run models elsewhere: those of the settings file, and what -m http://… means.

    [servers.big]
    url = "http://gpu.lan:8000/v1#Qwen/Qwen3-32B"
    key = "BIG_KEY"

The model stands behind the #; it may be left out where the server has only one. `key` names the
environment variable that holds the key. The key itself is written nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from chatapp.chat.errors import ModelError
from chatapp.chat.facts import ModelSource

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


def read_server(value: object) -> ModelSource:
    """A server, from a table of the settings file. Raises ModelError, whose words hold no key."""
    if not isinstance(value, dict) or not isinstance(url := value.get("url"), str):
        raise ModelError('must have a url, as in url = "http://host:8000/v1#model"')
    if unknown := value.keys() - {"url", "key"}:
        raise ModelError(f"has url and key, and no {min(unknown)}")
    key = value.get("key", "")
    if not isinstance(key, str) or (key and not _VARIABLE.fullmatch(key)):
        raise ModelError(
            "key must be the name of the environment variable that holds the key, in capitals;"
            " the key itself is not kept in a file"
        )
    if (source := _parse(url)) is None:
        raise ModelError("url must begin with http:// or https://")
    return replace(source, key_variable=key)


def is_local(address: str) -> bool:
    return urlsplit(address).hostname in ("localhost", "127.0.0.1", "::1")


def server_source(ref: str, servers: Mapping[str, ModelSource]) -> ModelSource | None:
    """The server and the model that a reference means; None where it means no server.

    An address that stands in the settings, with whichever model, takes its key from there. Raises
    ModelError: the address can't be used.
    """
    ref = ref.strip()
    if (named := servers.get(ref)) is not None:
        return named
    if (source := _parse(ref)) is None:
        return None
    keys = [one.key_variable for one in servers.values() if one.path == source.path]
    return replace(source, key_variable=(keys or [""])[0])


def _parse(address: str) -> ModelSource | None:
    if not address.lower().startswith(("http://", "https://")):
        return None
    bare, _, model = address.partition("#")
    try:
        parts = urlsplit(bare)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not address.isprintable() or " " in bare or parts.query:
        raise ModelError("the address can't be used; write http://host:8000/v1#model")
    if "@" in parts.netloc:
        raise ModelError(
            "an address must hold no password: name the environment variable of a key under"
            " [servers.NAME] in the settings file"
        )
    place = f"[{host}]" if ":" in host else host
    where = f"{parts.scheme}://{place}{f':{port}' if port else ''}"
    return ModelSource(model, f"{where}{parts.path.rstrip('/') or '/v1'}", "server")
