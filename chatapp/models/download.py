"""One address → one whole, verified file; what a cut leaves behind is taken up again.

Bytes go to `NAME.part` beside the file; only when their number and hash are right does it get its
name, in one step. A part is taken up only where the hash of the whole is known beforehand: whatever
the part came from, another revision or another source, the hash of the whole then tells, and a
wrong whole that began with an old part is fetched once more from nothing.

huggingface_hub 2.4 does none of this: it drops what a cut leaves, stops only between pieces of
10 MB, and takes a file of the right size with the wrong hash (huggingface/huggingface_hub#3643).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx2

from chatapp import __version__
from chatapp.chat.errors import FetchError
from chatapp.models.errors import SourceFailed, WrongContent
from chatapp.models.watch import Watch

RETRIES = 4
"""How often in a row a connection may bring nothing before the source is given up."""
RETRY_SECONDS = 1.0
CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
"""Of silence, after which a connection counts as dead."""
STOP_SECONDS = 0.1
"""How soon a stop is noticed while the server is silent."""

_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
"""Besides SSL_CERT_FILE and SSL_CERT_DIR, which httpx2 reads itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One file to fetch, and what it must turn out to be."""

    url: str
    size: int = 0
    """Bytes; 0 where that is not known."""
    sha256: str = ""
    git_sha1: str = ""
    """The git blob's hash, where the Hub knows no other (small text files)."""
    token: str = ""
    """Sent as a bearer token, to the address's own host only."""
    report: Callable[[int, int], None]
    """Is told how many of its bytes are here, and how many there are; 0 where no one says."""

    @property
    def pinned(self) -> bool:
        """Whether the content is known beforehand."""
        return bool(self.sha256 or (self.git_sha1 and self.size))


@contextlib.contextmanager
def open_client() -> Iterator[httpx2.Client]:
    """A client that trusts what this machine trusts, and the certificates pip was given.

    Raises:
        SourceFailed: the proxy settings of the environment cannot be used.
    """
    context = httpx2.create_ssl_context()
    for variable in _CERTIFICATES:
        file = os.environ.get(variable)
        if file and Path(file).is_file():
            with contextlib.suppress(ssl.SSLError, OSError):
                context.load_verify_locations(cafile=file)
    timeout = httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    headers = {"User-Agent": f"chatapp/{__version__}", "Accept-Encoding": "identity"}
    try:
        client = httpx2.Client(
            verify=context, follow_redirects=True, timeout=timeout, headers=headers
        )
    except (ValueError, ImportError, httpx2.InvalidURL) as error:
        raise SourceFailed(f"the proxy settings cannot be used ({error})") from None
    with client:
        yield client


def part_of(target: Path) -> Path:
    """Where the bytes of a file are gathered until they are whole."""
    return target.with_name(f"{target.name}.part")


def download(item: Item, target: Path, client: httpx2.Client, watch: Watch) -> str:
    """Fetch a file, verify it, and put it in its place; returns its SHA-256.

    `target`: where it goes; its folder exists. `client`: from `open_client`.

    Raises:
        SourceFailed: the source does not give it. WrongContent: it gave something else.
        FetchStopped: the user stopped it. FetchError: it cannot be written.
    """
    while True:
        taken_up = os.path.exists(part_of(target))  # a Path's own fails where a name is too long
        try:
            with gathered(target, item, watch) as part:
                part.take_up()
                check_room(target.parent, item.size - part.done, target.name)
                _receive(part, client)
            return part.sha256
        except WrongContent:
            if not taken_up:
                raise


class Part:
    """Bytes of a file as they are gathered, counted, hashed and told of."""

    def __init__(self, stream: BinaryIO, item: Item, watch: Watch) -> None:
        self.item, self.watch = item, watch
        self.size = item.size
        self._stream = stream
        self._begin()

    def _begin(self) -> None:
        self.done = 0
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(b"blob %d\0" % self.item.size, usedforsecurity=False)

    def take_up(self) -> None:
        """Go on from what an earlier attempt left, where the hash of the whole is known."""
        while self.item.pinned and (chunk := self._stream.read(2**20)):
            self.watch.check()
            self._count(chunk)
        if not self.item.pinned or (self.item.size and self.done > self.item.size):
            self.start_again()

    def start_again(self) -> None:
        """Drop all that is here."""
        self._stream.seek(0)
        self._stream.truncate()
        self._begin()

    def write(self, chunk: bytes) -> None:
        """Add bytes. Raises FetchStopped; WrongContent where they are more than there can be."""
        if self.item.size and self.done + len(chunk) > self.item.size:
            self.start_again()
            raise WrongContent(f"it sent more than {self.item.size:,} bytes; they were deleted")
        self._stream.write(chunk)
        self._count(chunk)
        self.item.report(self.done, self.size)
        self.watch.check()

    def _count(self, chunk: bytes) -> None:
        self.done += len(chunk)
        self._sha256.update(chunk)
        if self.item.git_sha1:
            self._git.update(chunk)

    @property
    def sha256(self) -> str:
        """The hash of what is here."""
        return self._sha256.hexdigest()

    def check(self) -> None:
        """Raise WrongContent where the hash is not what it must be."""
        expected, got = self.item.sha256, self.sha256
        if not expected and self.item.pinned:
            expected, got = self.item.git_sha1, self._git.hexdigest()
        if expected and got != expected:
            self.start_again()
            raise WrongContent(
                f"the hash is wrong (expected {expected}, got {got}); what came was deleted"
            )


@contextlib.contextmanager
def gathered(target: Path, item: Item, watch: Watch) -> Iterator[Part]:
    """A part to be filled; the file gets its name at the end, when all of it is right.

    Raises:
        WrongContent: it is not. FetchError: it cannot be written.
    """
    path = part_of(target)
    try:
        with open_private(path) as stream:
            part = Part(stream, item, watch)
            yield part
            part.check()
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(path, target)
        sync_folder(target.parent)
    except OSError as error:
        raise disk_error(error, target) from None
    finally:
        with contextlib.suppress(OSError):
            if path.stat().st_size == 0:  # nothing came of it
                path.unlink()


def disk_error(error: OSError, path: Path) -> FetchError:
    """Words for a file that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FetchError(
            f"the disk is full: {path.name} does not fit into {path.parent}; make room, "
            "or set CHATAPP_HOME to a folder on a larger disk"
        )
    return FetchError(f"cannot write {path}: {error.strerror or error}")


def check_room(folder: Path, needed: int, name: str) -> None:
    """Raise FetchError when a file of that many bytes does not fit on the disk."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FetchError(
            f"{name} needs {needed:,} bytes more and {folder} has {free:,} free; make room, "
            "or set CHATAPP_HOME to a folder on a larger disk"
        )


def sync_folder(folder: Path) -> None:
    """Have a rename survive a loss of power, where the system can do that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def open_private(path: Path) -> BinaryIO:
    """Open a file for reading and writing, made with 0600 where it is not there yet."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o600), "r+b")


def _receive(part: Part, client: httpx2.Client) -> None:
    """Ask for what is missing, over as many connections as it takes, until all is here."""
    size = part.item.size
    failures = 0
    furthest = start = part.done
    while not size or part.done < size:
        try:
            _stream(part, client)
            reason = "the connection was closed too early"
        except httpx2.TransportError as error:
            part.watch.check()  # stopping closes the connection
            reason = plain_reason(error)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise SourceFailed(plain_reason(error)) from None
        else:
            if not size:
                return
        # Against the furthest ever: a server without ranges begins anew each time.
        failures = 0 if part.done > furthest else failures + 1
        furthest = max(furthest, part.done)
        if furthest == start or failures > RETRIES:
            raise SourceFailed(reason)
        if not size or part.done < size:
            part.watch.pause(RETRY_SECONDS)


def _stream(part: Part, client: httpx2.Client) -> None:
    """Take what one connection gives. Raises SourceFailed, WrongContent, TransportError."""
    item = part.item
    headers = {"Range": f"bytes={part.done}-"} if part.done else {}
    if item.token:
        headers["Authorization"] = f"Bearer {item.token}"  # httpx drops it at another host
    part.watch.check()
    with client.stream("GET", item.url, headers=headers) as response:
        if response.status_code == 416:
            reached = part.done
            part.start_again()
            raise WrongContent(f"the file there ends before {reached:,} bytes")
        if response.status_code >= 400:
            raise SourceFailed(status_reason(response.status_code))
        given = response.headers.get("Content-Range", "")
        if response.status_code != 206 or not given.startswith(f"bytes {part.done}-"):
            part.start_again()
        length = response.headers.get("Content-Length", "")
        encoded = response.headers.get("Content-Encoding", "identity") != "identity"
        if length.isdigit() and not encoded:
            there = part.done + int(length)
            if not item.size:
                part.size = there
            elif there != item.size:
                raise WrongContent(
                    f"the file there has {there:,} bytes instead of {item.size:,};"
                    " it was not fetched"
                )
        with _closed_on_stop(response, part.watch):
            for chunk in response.iter_bytes():
                part.write(chunk)


@contextlib.contextmanager
def _closed_on_stop(response: httpx2.Response, watch: Watch) -> Iterator[None]:
    """Shut a connection down when the user stops, so that a silent server holds nobody up."""
    stream = response.extensions.get("network_stream")
    connection = stream.get_extra_info("socket") if stream is not None else None
    if connection is None:
        yield
        return
    over = threading.Event()

    def wait() -> None:
        while not over.wait(STOP_SECONDS):
            if watch.is_stopped():
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                return

    waiting = threading.Thread(target=wait, name="chatapp-fetch-stop", daemon=True)
    waiting.start()
    try:
        yield
    finally:
        over.set()
        waiting.join()


def status_reason(status: int) -> str:
    """Words for an answer that refuses."""
    match status:
        case 401 | 403:
            return f"access is refused (HTTP {status}); a token can be given as HF_TOKEN"
        case 404:
            return "it is not there (HTTP 404)"
        case 429:
            return "too many requests (HTTP 429); try again later"
        case _ if status >= 500:
            return f"the server has a fault of its own (HTTP {status})"
        case _:
            return f"the server refuses (HTTP {status})"


def plain_reason(error: Exception) -> str:
    """Words for a connection that failed, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, httpx2.ConnectTimeout | httpx2.ReadTimeout):
        return "the server does not answer"
    if isinstance(error, httpx2.ConnectError):
        return f"it cannot be reached ({text})"
    if isinstance(error, httpx2.ProxyError):
        return f"the proxy refuses ({text})"
    return f"the connection broke ({text})"
