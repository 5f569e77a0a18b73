"""A server on 127.0.0.1 that says what a test has it say: vLLM's shapes, SGLang's, Ollama's, and
their faults. Every request is kept.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """What is sent back."""

    body: object = None
    """JSON; bytes are sent as they are."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    lines: Sequence[bytes] = ()
    """In place of a body: these, each at once."""
    cut: bool = False
    """Break the connection off behind the last line; without lines, instead of an answer."""
    silent: bool = False
    """Send nothing more behind the last line, until the test ends."""


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    body: Any
    headers: dict[str, str]


class ModelServer(http.server.ThreadingHTTPServer):
    """Answers by path: those of a list one after the other, the last one again and again."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[Asked] = []
        self.over = threading.Event()
        self.gone = threading.Event()
        """Set when a client went away in the middle of an answer."""
        self.on_line: Callable[[int], None] = lambda _: None
        """Told the number of each line before it is sent."""
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def bodies(self, path: str) -> list[Any]:
        return [one.body for one in self.asked if one.path == path]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no fault here."""

    def close(self) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ModelServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def _answer(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append(Asked(self.command, self.path, body, dict(self.headers)))
        waiting = self.server.answers.get(self.path, [])
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0] if waiting else Answer({}, 404)
        if answer.cut and not answer.lines:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if not answer.lines:
            data = (
                answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            )
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for number, line in enumerate(answer.lines):
                self.server.on_line(number)
                data = line + b"\n"
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            if answer.silent:
                self._wait_for_end()
            if not answer.cut:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.server.gone.set()
        self.close_connection = answer.cut or self.close_connection

    def _wait_for_end(self) -> None:
        """Until the test or the client ends."""
        self.connection.settimeout(0.01)
        while not self.server.over.is_set():
            try:
                if not self.connection.recv(1):
                    raise OSError
            except TimeoutError:
                continue


def sse(*events: object) -> list[bytes]:
    """Lines of server-sent events; bytes stay as they are."""
    return [
        event if isinstance(event, bytes) else b"data: " + json.dumps(event).encode()
        for event in events
    ]


def entry(
    token: str | bytes, logprob: float, *top: tuple[str, float], **more: Any
) -> dict[str, Any]:
    """A token in OpenAI's shape."""
    data = token if isinstance(token, bytes) else token.encode()
    shown = data.decode("utf-8", "replace")
    listed = [{"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in top]
    made = {"token": shown, "logprob": logprob, "bytes": list(data), "top_logprobs": listed}
    return made | more


def delta(
    text: str | None, *entries: dict[str, Any], finish: str | None = None, **more: Any
) -> dict[str, Any]:
    """A chunk in OpenAI's shape; what is more goes into the choice, `reasoning` into the delta."""
    changes: dict[str, Any] = {"content": text}
    if "reasoning" in more:
        changes["reasoning_content"] = more.pop("reasoning")
    choice = {"index": 0, "delta": changes, "finish_reason": finish, **more}
    choice["logprobs"] = {"content": list(entries)} if entries else None
    return {"object": "chat.completion.chunk", "choices": [choice]}


DONE = b"data: [DONE]"
