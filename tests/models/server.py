"""A server on 127.0.0.1 that speaks what a fetch needs of the Hub and of a package index.

Its manners can be made bad: a connection that breaks, a Range that is ignored, other bytes, an
error, a silence. Every request is kept, so that a test can say what was asked.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PIECE = 16_384


@dataclass
class Manners:
    """How a file is served."""

    cut_after: list[int] = field(default_factory=list)
    """One number a request: break the connection after so many bytes of the body."""
    ignores_range: bool = False
    status: int = 0
    body: bytes | None = None
    """Served in place of the real one."""
    silent_after: int | None = None
    """Send so many bytes, then nothing until the test ends."""
    no_length: bool = False


@dataclass
class Asked:
    method: str
    path: str
    range: str
    authorization: str
    host: str


class Server(http.server.ThreadingHTTPServer):
    """Repositories by name, wheels by file name."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.tags: dict[str, list[str]] = {}
        self.wheels: dict[str, bytes] = {}
        self.manners: dict[str, Manners] = {}
        self.refused: dict[str, int] = {}
        self.asked: list[Asked] = []
        self.search_body: bytes | None = None
        """Answers a search in place of what is true."""
        self.over = threading.Event()
        self.silent = threading.Event()
        """Set when a silence has begun."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def manner(self, name: str) -> Manners:
        """How the file of that name is served; change it to make it bad."""
        return self.manners.setdefault(name, Manners())

    def bodies(self) -> list[Asked]:
        """The requests for content."""
        return [one for one in self.asked if one.method == "GET" and one.path.startswith("/cdn/")]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no fault here."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: Any) -> None:
        """Nothing: the tests read `asked` instead."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        get = self.headers.get
        self.server.asked.append(
            Asked(self.command, path, get("Range", ""), get("Authorization", ""), get("Host", ""))
        )
        parts = path.strip("/").split("/")
        if parts == ["api", "models"]:
            self._search(parse_qs(urlsplit(self.path).query))
        elif parts[:2] == ["api", "models"]:
            self._api("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        elif parts[0] == "cdn":
            self._content(parts[-1], self._file("/".join(parts[1:3]), "/".join(parts[3:])))
        elif parts[0] == "simple":
            self._index(parts[1])
        elif parts[0] == "wheels":
            self._content(parts[1], self.server.wheels.get(parts[1]))
        elif len(parts) > 3 and parts[2] == "resolve":
            self._resolve("/".join(parts[:2]), "/".join(parts[4:]))
        else:
            self._answer(404)

    def _file(self, repo: str, name: str) -> bytes | None:
        return self.server.repos.get(repo, {}).get(name)

    def _search(self, query: dict[str, list[str]]) -> None:
        """What list_models asks; every answer is a lie where `refused` has an entry for ""."""
        if status := self.server.refused.get(""):
            return self._answer(status)
        text = query.get("search", [""])[0].casefold()
        found = [
            {"id": repo, "modelId": repo, "downloads": len(files), "tags": ["gguf"]}
            for repo, files in self.server.repos.items()
            if text in repo.casefold() and any(name.endswith(".gguf") for name in files)
        ]
        found.sort(key=lambda one: -int(str(one["downloads"])))
        self._answer(200, self.server.search_body or json.dumps(found).encode())

    def _api(self, repo: str, revision: str) -> None:
        files = self.server.repos.get(repo)
        if status := self.server.refused.get(repo):
            return self._answer(status)
        if files is None:
            return self._answer(404, headers={"X-Error-Code": "RepoNotFound"})
        siblings = []
        for name, data in files.items():
            sibling: dict[str, Any] = {"rfilename": name, "size": len(data)}
            sibling["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            if _is_large(name):
                sha256 = hashlib.sha256(data).hexdigest()
                sibling["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 130}
            siblings.append(sibling)
        value = {
            "id": repo,
            "modelId": repo,
            "sha": COMMIT,
            "private": False,
            "downloads": 0,
            "likes": 0,
            "tags": self.server.tags.get(repo, []),
            "siblings": siblings,
        }
        self._answer(200, json.dumps(value).encode(), headers={"Content-Type": "application/json"})

    def _resolve(self, repo: str, name: str) -> None:
        data = self._file(repo, name)
        if status := self.server.refused.get(repo):
            return self._answer(status)
        if data is None:
            return self._answer(404, headers={"X-Error-Code": "EntryNotFound"})
        if not _is_large(name):
            return self._content(name, data)
        sha256 = hashlib.sha256(data).hexdigest()
        # Another host name, as the Hub's content network has: tokens must not go there.
        cdn = f"http://localhost:{self.server.server_port}/cdn/{repo}/{name}"
        headers = {"Location": cdn, "X-Linked-Etag": f'"{sha256}"', "X-Repo-Commit": COMMIT}
        self._answer(302, headers=headers | {"X-Linked-Size": str(len(data))})

    def _index(self, package: str) -> None:
        links = [
            f'<a href="/wheels/{name}#sha256={hashlib.sha256(data).hexdigest()}">{name}</a>'
            for name, data in self.server.wheels.items()
            if name.startswith(package.replace("-", "_"))
        ]
        if not links:
            return self._answer(404)
        page = f"<!doctype html><html><body>{''.join(links)}</body></html>".encode()
        self._answer(200, page, headers={"Content-Type": "text/html"})

    def _content(self, name: str, data: bytes | None) -> None:
        manner = self.server.manner(name)
        if data is None:
            return self._answer(404)
        if manner.status:
            return self._answer(manner.status)
        data = manner.body if manner.body is not None else data
        start = 0
        wanted = self.headers.get("Range", "")
        if wanted and not manner.ignores_range:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            # Without a first one, the last so many bytes are meant.
            start = int(first) if first else max(len(data) - int(last), 0)
            if start >= len(data):
                return self._answer(416, headers={"Content-Range": f"bytes */{len(data)}"})
            end = min(int(last) + 1, len(data)) if first and last else len(data)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
            data = data[start:end]
        else:
            self.send_response(200)
        if not manner.no_length:
            self.send_header("Content-Length", str(len(data)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command != "HEAD":
            self._send(data, manner)

    def _send(self, data: bytes, manner: Manners) -> None:
        cut = manner.cut_after.pop(0) if manner.cut_after else None
        end = len(data) if cut is None else cut
        if manner.silent_after is not None:
            end = manner.silent_after
        for begin in range(0, end, PIECE):
            self.wfile.write(data[begin : min(begin + PIECE, end)])
        self.wfile.flush()
        if manner.silent_after is not None:
            self.server.silent.set()
            self.server.over.wait(60)
        if end < len(data):
            self.close_connection = True

    def _answer(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".gguf", ".bin"))
