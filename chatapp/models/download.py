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


def download(
    item: Item, target: Path, client: httpx2.Client, watch: Watch, report: Callable[[int], None]
) -> str:
    """Fetch a file, verify it, and put it in its place; returns its SHA-256.

    Args:
        item: where it is and what it must be.
        target: where it goes; its folder exists.
        client: from `open_client`.
        watch: asked after each piece whether to stop.
        report: told how many of the file's bytes are here.

    Raises:
        SourceFailed: the source does not give it. WrongContent: it gave something else.
        FetchStopped: the person stopped it. FetchError: it cannot be written.
    """
    part = part_of(target)
    if not item.pinned:
        part.unlink(missing_ok=True)
    taken_up = part.exists()
    try:
        return _Transfer(item, target, client, watch, report).run()
    except WrongContent:
        if not taken_up:
            raise
    return _Transfer(item, target, client, watch, report).run()


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


class _Digest:
    """The hashes a file is held against, taken while its bytes come."""

    def __init__(self, item: Item) -> None:
        self._item = item
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(b"blob %d\0" % item.size, usedforsecurity=False)

    def update(self, data: bytes) -> None:
        self._sha256.update(data)
        if not self._item.sha256 and self._item.git_sha1:
            self._git.update(data)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def difference(self) -> str:
        """What is wrong with the content; empty when nothing is."""
        expected, got = self._item.sha256, self._sha256.hexdigest()
        if not expected and self._item.pinned:
            expected, got = self._item.git_sha1, self._git.hexdigest()
        if not expected or got == expected:
            return ""
        return f"the hash is wrong (expected {expected}, got {got})"


class _Transfer:
    """One attempt at a file, over as many connections as it takes."""

    def __init__(
        self,
        item: Item,
        target: Path,
        client: httpx2.Client,
        watch: Watch,
        report: Callable[[int], None],
    ) -> None:
        self.item = item
        self.target = target
        self.part = part_of(target)
        self.client = client
        self.watch = watch
        self.report = report
        self.digest = _Digest(item)
        self.done = 0

    def run(self) -> str:
        try:
            with self._open_part() as stream:
                self._take_up(stream)
                check_room(self.part.parent, self.item.size - self.done, self.target.name)
                self._receive(stream)
                stream.flush()
                os.fsync(stream.fileno())
            if difference := self.digest.difference():
                self.part.unlink()
                raise WrongContent(f"{difference}; what came was deleted")
            os.replace(self.part, self.target)
            sync_folder(self.target.parent)
        except OSError as error:
            raise disk_error(error, self.target) from None
        return self.digest.sha256

    @contextlib.contextmanager
    def _open_part(self) -> Iterator[BinaryIO]:
        """The part, open; where nothing came of it in the end, it doesn't stay."""
        try:
            with open_private(self.part) as stream:
                yield stream
        except BaseException:
            with contextlib.suppress(OSError):
                if self.part.stat().st_size == 0:
                    self.part.unlink()
            raise

    def _take_up(self, stream: BinaryIO) -> None:
        """Go on from the bytes that an earlier attempt left."""
        while chunk := stream.read(2**20):
            self.watch.check()
            self.digest.update(chunk)
            self.done += len(chunk)
        if self.item.size and self.done > self.item.size:
            self._start_again(stream)

    def _start_again(self, stream: BinaryIO) -> None:
        stream.seek(0)
        stream.truncate()
        self.digest = _Digest(self.item)
        self.done = 0

    def _receive(self, stream: BinaryIO) -> None:
        """Ask for what is missing until all is here."""
        failures = 0
        furthest = start = self.done
        while not self.item.size or self.done < self.item.size:
            try:
                self._stream(stream)
                reason = "the connection was closed too early"
            except httpx2.TransportError as error:
                self.watch.check()  # stopping closes the connection
                reason = plain_reason(error)
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise SourceFailed(plain_reason(error)) from None
            else:
                if not self.item.size:
                    return
            # Against the furthest ever: a server without ranges begins anew each time.
            failures = 0 if self.done > furthest else failures + 1
            furthest = max(furthest, self.done)
            if furthest == start or failures > RETRIES:
                raise SourceFailed(reason)
            if self.done < self.item.size or not self.item.size:
                self.watch.pause(RETRY_SECONDS)

    def _stream(self, stream: BinaryIO) -> None:
        """Take what one connection gives. Raises SourceFailed, WrongContent, TransportError."""
        headers = {"Range": f"bytes={self.done}-"} if self.done else {}
        if self.item.token:
            headers["Authorization"] = f"Bearer {self.item.token}"  # httpx drops it at another host
        self.watch.check()
        with self.client.stream("GET", self.item.url, headers=headers) as response:
            if response.status_code == 416:
                reached = self.done
                self._start_again(stream)
                raise WrongContent(f"the file there ends before {reached:,} bytes")
            self._check_status(response)
            if self.done and not self._continues(response):
                self._start_again(stream)
            self._check_length(response)
            with _closed_on_stop(response, self.watch):
                for chunk in response.iter_bytes():
                    self._store(stream, chunk)
                    self.watch.check()

    def _continues(self, response: httpx2.Response) -> bool:
        """Whether an answer goes on exactly where the part ends."""
        content_range = response.headers.get("Content-Range", "")
        return response.status_code == 206 and content_range.startswith(f"bytes {self.done}-")

    def _check_status(self, response: httpx2.Response) -> None:
        if response.status_code >= 400:
            raise SourceFailed(status_reason(response.status_code))

    def _check_length(self, response: httpx2.Response) -> None:
        length = response.headers.get("Content-Length", "")
        encoded = response.headers.get("Content-Encoding", "identity") != "identity"
        if not self.item.size or encoded or not length.isdigit():
            return
        if self.done + int(length) != self.item.size:
            raise WrongContent(
                f"the file there has {self.done + int(length):,} bytes instead of "
                f"{self.item.size:,}; it was not fetched"
            )

    def _store(self, stream: BinaryIO, chunk: bytes) -> None:
        if self.item.size and self.done + len(chunk) > self.item.size:
            self._start_again(stream)
            raise WrongContent(f"it sent more than {self.item.size:,} bytes; they were deleted")
        stream.write(chunk)
        self.digest.update(chunk)
        self.done += len(chunk)
        self.report(self.done)


@contextlib.contextmanager
def _closed_on_stop(response: httpx2.Response, watch: Watch) -> Iterator[None]:
    """Shut a connection down when the person stops, so that a silent server holds nobody up."""
    stream = response.extensions.get("network_stream")
    connection = stream.get_extra_info("socket") if stream is not None else None
    if connection is None:
        yield
        return
    over = threading.Event()

    def wait() -> None:
        while not over.wait(STOP_SECONDS):
            if watch.cancelled():
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
