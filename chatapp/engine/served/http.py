"""HTTP to one server: questions, and lines as they stream; every failure in words.

The key goes to the address that the user gave and nowhere else: no redirect is followed. It is in
no message and no log, even where a server repeats it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit

import httpx2

from chatapp import __version__
from chatapp.chat.errors import EngineError
from chatapp.chat.facts import IsCancelled, ModelSource
from chatapp.settings.servers import is_local

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0
"""For a question that runs no model."""
FIRST_SECONDS = 900.0
"""For the first line of a reply: a long prompt is read before it."""
NEXT_SECONDS = 120.0
"""For any other line."""
WAITS = (0.5, 1.0, 2.0, 4.0)
"""Before each further try, in seconds."""

_LOOK_SECONDS = 0.02
"""How often it is looked whether to stop while nothing comes."""
_PASSING = frozenset({408, 429, 502, 503, 504})
"""What a server says that is starting, or has too much to do."""
_LONGEST = 32 << 20
"""Bytes of a line, or of an answer."""

# Their lines name addresses; what a server is asked is nobody's business but the two sides'.
for _name in ("httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Refused(EngineError):
    """The server answered, and not with what it was asked for."""

    def __init__(self, words: str, status: int) -> None:
        super().__init__(words)
        self.status = status


class Unreached(EngineError):
    """The server did not answer, or has no time now; trying again may help."""

    def __init__(self, words: str, *, is_busy: bool = False) -> None:
        super().__init__(words)
        self.is_busy = is_busy
        """Whether it is there, and says that it can't answer yet."""


class Http:
    """One server's address, with the key that it wants."""

    def __init__(self, source: ModelSource) -> None:
        """Connects to nothing yet. Raises EngineError: the key's variable is not set."""
        self.base = source.path
        self.root = source.path.removesuffix("/v1")
        parts = urlsplit(source.path)
        self.host = parts.netloc
        """As it is named to the user."""
        local = is_local(source.path)
        self.is_open = bool(source.key_variable) and parts.scheme == "http" and not local
        """Whether a key travels unencrypted."""
        self._variable = source.key_variable
        self._key = os.environ.get(self._variable, "").strip() if self._variable else ""
        if self._variable and not self._key:
            raise EngineError(f"the key for {self.host} is not there; set {self._variable}")
        if not (self._key.isascii() and self._key.isprintable()):
            raise EngineError(f"what {self._variable} holds is no key")
        headers = {"User-Agent": f"chatapp/{__version__}", "Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._settings: dict[str, Any] = {
            "headers": headers,
            "verify": httpx2.create_ssl_context(),
            "follow_redirects": False,
            "trust_env": not local,  # no proxy stands between this machine and itself
        }
        try:
            timeout = httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
            self._client = httpx2.Client(timeout=timeout, **self._settings)
        except (ValueError, ImportError, httpx2.InvalidURL) as error:
            raise EngineError(f"the proxy settings cannot be used ({error})") from None

    def close(self) -> None:
        self._client.close()

    def ask(self, url: str, body: object = None) -> Any:
        method, content = ("GET", None) if body is None else ("POST", _json(body))
        try:
            try:
                response = self._client.request(method, url, content=content)
            except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
                # An idle connection was just being closed, as llama-server does after some time.
                response = self._client.request(method, url, content=content)
        except httpx2.HTTPError as error:
            raise Unreached(self._unreached(error)) from None
        except (httpx2.InvalidURL, ValueError) as error:
            raise EngineError(f"{self.host} cannot be asked: {error}") from None
        if response.status_code != 200:
            raise self._refusal(response)
        try:
            return json.loads(response.content)
        except (ValueError, RecursionError):
            raise Refused(f"{self.host} answered something that is no JSON", 200) from None

    def find(self, url: str) -> Any:
        """An answer as JSON, or None from a server that has none there. Raises EngineError."""
        try:
            return self.ask(url)
        except Refused as error:
            if error.status in (401, 403):
                raise
            return None

    async def read(self, url: str, body: object) -> AsyncGenerator[list[bytes]]:
        """The lines of an answer, as many as come at once. Raises Refused, Unreached."""
        waiting = bytearray()
        try:
            timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)  # `Lines` watches the clock
            async with (
                httpx2.AsyncClient(timeout=timeout, **self._settings) as client,
                client.stream("POST", url, content=_json(body)) as response,
            ):
                if response.status_code != 200:
                    await response.aread()
                    raise self._refusal(response)
                # Not aiter_lines: it also ends lines at U+2028, which JSON may hold.
                async for data in response.aiter_bytes():
                    *lines, rest = (bytes(waiting) + data).split(b"\n")
                    waiting = bytearray(rest)
                    if len(waiting) > _LONGEST:
                        raise Refused(f"{self.host} sent a line without an end", 200)
                    yield [line for line in lines if line.strip()]
        except httpx2.HTTPError as error:
            raise Unreached(self._unreached(error)) from None
        yield [bytes(waiting)]

    def shown(self, words: str) -> str:
        """What a server said, for the user: one line, not too long, without the key."""
        if self._key:
            words = words.replace(self._key, "…")
        words = " ".join(words.split())
        return words if len(words) <= 200 else f"{words[:200]}…"

    def _unreached(self, error: httpx2.HTTPError) -> str:
        match error:
            case httpx2.ConnectTimeout() | httpx2.PoolTimeout():
                return f"{self.host} does not answer"
            case httpx2.ConnectError():
                return f"{self.host} cannot be reached ({self.shown(str(error))}); is it running?"
            case httpx2.TimeoutException():
                return f"{self.host} gave no answer in time"
            case httpx2.ProxyError():
                return f"the proxy does not reach {self.host} ({self.shown(str(error))})"
            case _:
                return f"{self.host} broke the connection off"

    def _refusal(self, response: httpx2.Response) -> EngineError:
        """What an answer with another status than 200 means."""
        status = response.status_code
        said = self.shown(message_in(response.content[:_LONGEST]))
        if response.is_redirect:
            there = urlsplit(response.headers.get("location", ""))
            where = f"{there.scheme}://{there.netloc}{there.path}" if there.netloc else there.path
            return Refused(
                f"{self.host} sends on to {self.shown(where)}; nothing was sent there. Give that"
                " address instead if it is the one you mean",
                status,
            )
        if status in (401, 403):
            if self._key:
                return Refused(f"{self.host} does not take the key in {self._variable}", status)
            return Refused(
                f"{self.host} wants a key: name the environment variable that holds it in the"
                ' settings file, as in [servers.NAME] url = "…" key = "VARIABLE"',
                status,
            )
        words = f"{self.host} answered {status}" + (f": {said}" if said else "")
        return Unreached(words, is_busy=True) if status in _PASSING else Refused(words, status)


class Lines:
    """The lines of one reply. They are waited for in an event loop of its own, so that a stop ends
    the connection at once, and with it the server's work."""

    def __init__(self, http: Http, url: str, body: object, stopped: IsCancelled) -> None:
        """Asks when the first line is wanted."""
        self._host = http.host
        self._runner = asyncio.Runner()
        self._lines = http.read(url, body)
        self._ready: list[bytes] = []
        self._stopped = stopped
        self._seconds = FIRST_SECONDS

    def next(self) -> bytes | None:
        while not self._ready:
            if (lines := self._runner.run(self._next())) is None:
                return None
            self._ready = lines
        return self._ready.pop(0)

    async def _next(self) -> list[bytes] | None:
        coming = asyncio.ensure_future(anext(self._lines, None))
        until = time.monotonic() + self._seconds
        while not coming.done():
            await asyncio.wait({coming}, timeout=_LOOK_SECONDS)
            late = time.monotonic() > until
            if not coming.done() and (late or self._stopped()):
                coming.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await coming
                if late:
                    raise Unreached(f"{self._host} sent nothing for {self._seconds:g} seconds")
                return None
        self._seconds = NEXT_SECONDS
        return coming.result()

    def close(self) -> None:
        with contextlib.suppress(EngineError):
            self._runner.run(self._lines.aclose())
        self._runner.close()


def _json(value: object) -> bytes:
    """What is asked; half a surrogate pair, which UTF-8 can't write, is a question mark."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def message_in(content: bytes) -> str:
    """The words in an answer that says no; servers put them in different places."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return ""  # a page in HTML, as a rule
    for name in ("error", "message", "detail", "msg"):
        while isinstance(found, list) and found:
            found = found[0]
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    return found if isinstance(found, str) else ""
