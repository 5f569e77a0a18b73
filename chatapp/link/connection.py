"""The engine process as the interface holds it: started, spoken to, noticed when it ends.

Everything here belongs to one asyncio loop. When the process ends unasked, every request under way
fails with `EngineDied`; the next `load` starts a new process.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from chatapp.chat.errors import EngineDied, EngineError
from chatapp.link.wire import (
    ANSWER,
    BROKEN,
    END,
    FAILED,
    BrokenFrame,
    Call,
    Frame,
    FrameReader,
    encode,
    read_event,
)
from chatapp.settings.paths import Paths, make_folder

CLOSE_SECONDS = 2.0
"""How long the process may take to end by itself."""

SERVER = (sys.executable, "-m", "chatapp.link.server")
"""What is started; the folder of prepared models follows."""

_READ_BYTES = 1 << 18


class Answers:
    """What has come of one request and was not taken yet."""

    def __init__(self, call: Call) -> None:
        self.over = False
        """Whether nothing more comes."""
        self.answer: Any = None
        self._call = call
        self._events: list[Any] = []
        self._error: EngineError | None = None
        self._came = asyncio.Event()

    def take(self, frame: Frame) -> None:
        """Take in one frame. Raises BrokenFrame."""
        if frame.kind == FAILED:
            self.fail(EngineError(msgspec.msgpack.decode(frame.payload, type=str)))
        elif frame.kind == ANSWER and self._call.answer is not None:
            self.answer = self._call.answer.decode(frame.payload)
            self.over = True
        elif frame.kind == END:
            self.over = True
        else:
            self._events.append(read_event(self._call, frame))
        self._came.set()

    def fail(self, error: EngineError) -> None:
        self._error, self.over = error, True
        self._came.set()

    async def more(self) -> list[Any]:
        """All events since the last time, waiting for one; none at the end. Raises EngineError."""
        while not self._events and not self.over:
            self._came.clear()
            await self._came.wait()
        events, self._events = self._events, []
        if not events and self._error is not None:
            raise self._error
        return events


class Connection:
    """The process, and who waits for which of its events."""

    def __init__(self, paths: Paths, on_death: Callable[[str], None] | None = None) -> None:
        """Nothing is started before `start`."""
        self._paths = paths
        self.on_death = on_death
        """Is told in words when the process ends unasked."""
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Answers] = {}
        self._closing = False

    @property
    def process_id(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def close(self) -> None:
        self._closing = True
        process, reader = self._process, self._reader
        if process is None or reader is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), CLOSE_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await reader

    async def start(self) -> None:
        """Start the process when none runs. Raises EngineError.

        It is kept away from the terminal, whose keys and signals are the interface's. What it
        writes to its standard error is its log.
        """
        if self._process is not None:
            return
        make_folder(self._paths.logs)
        self._closing = False
        log = self._paths.logs / "engine.log"
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError as error:
            raise EngineError(f"cannot write {log}: {error.strerror}") from error
        try:
            self._process = await asyncio.create_subprocess_exec(
                *SERVER,
                str(self._paths.prepared),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=descriptor,
                limit=_READ_BYTES,
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(f"cannot start the engine process: {error.strerror}") from error
        finally:
            os.close(descriptor)
        self._reader = asyncio.create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand all that comes to whoever asked, until the process ends."""
        assert process.stdout is not None
        reader, cause = FrameReader(), ""
        with contextlib.suppress(ConnectionError):
            while data := await process.stdout.read(_READ_BYTES):
                try:
                    for frame in reader.feed(data):
                        if frame.kind == BROKEN:
                            cause = msgspec.msgpack.decode(frame.payload, type=str)
                        elif (answers := self._waiting.get(frame.request)) is not None:
                            answers.take(frame)
                # A decoder raises more than its own errors: bytes that are no UTF-8, too deep a
                # nesting, a value that its class refuses.
                except (BrokenFrame, ValueError, RecursionError) as error:
                    cause = f"it sent something that is no event ({error})"
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    break
        status = await process.wait()
        self._process = None
        died = EngineDied(f"the engine process ended: {cause or self._cause(status)}")
        for answers in self._waiting.values():
            answers.fail(died)
        if not self._closing and self.on_death is not None:
            self.on_death(str(died))

    def _cause(self, status: int) -> str:
        if status == -signal.SIGKILL:
            return "it was killed, often because memory ran out"
        what = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return f"{what}; see {self._paths.logs / 'engine.log'}"

    def send(self, frame: bytes) -> None:
        """Put a frame on its way; one to a process that is gone is dropped."""
        process = self._process
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(frame)

    def new_request(self) -> int:
        return next(self._numbers)

    @contextlib.contextmanager
    def ask(self, number: int, call: Call, arguments: dict[str, Any]) -> Iterator[Answers]:
        """Send a request; leaving before it is over withdraws it. Raises EngineDied."""
        if self._process is None:
            raise EngineDied("the engine is not running; load a model to start it again")
        answers = self._waiting[number] = Answers(call)
        self.send(encode(number, call.name, arguments))
        try:
            yield answers
        finally:
            del self._waiting[number]
            if not answers.over:
                self.send(encode(number, "cancel", {}))
