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
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

from chatapp.chat.errors import EngineDied, EngineError
from chatapp.link import frames, messages
from chatapp.settings.paths import make_folder

CLOSE_SECONDS = 2.0
"""How long the process may take to end by itself."""


class Connection:
    """The process, and who waits for which of its events."""

    def __init__(self, logs: Path, on_death: Callable[[str], None] | None = None) -> None:
        """Nothing is started before the first `load`.

        Args:
            logs: the folder of the process's log.
            on_death: told in words when the process ends unasked.
        """
        self._logs = logs
        self.on_death = on_death
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Queue[messages.Event | EngineDied]] = {}
        self._closing = False

    @property
    def process_id(self) -> int | None:
        """The process while it runs."""
        return self._process.pid if self._process is not None else None

    @property
    def log_file(self) -> Path:
        """What the process writes to its standard error."""
        return self._logs / "engine.log"

    def new_request(self) -> int:
        """A number that no other request has."""
        return next(self._numbers)

    async def close(self) -> None:
        """End the process and wait for it; kill it when it does not listen."""
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

        It is kept away from the terminal, whose keys and signals are the interface's.
        """
        if self._process is not None:
            return
        make_folder(self._logs)
        self._closing = False
        try:
            descriptor = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError as error:
            raise EngineError(f"cannot write {self.log_file}: {error.strerror}") from error
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "chatapp.link.server",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=descriptor,
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(f"cannot start the engine process: {error.strerror}") from error
        finally:
            os.close(descriptor)
        self._reader = asyncio.create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand every event to whoever asked, until the process ends."""
        assert process.stdout is not None
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:  # until the process ends, or says what nobody can read
                header = await process.stdout.readexactly(frames.LENGTH.size)
                (length,) = frames.LENGTH.unpack(header)
                try:
                    event = frames.read_event(await process.stdout.readexactly(length))
                except frames.DecodeError:
                    process.kill()
                    break
                if (waiting := self._waiting.get(event.request)) is not None:
                    waiting.put_nowait(event)
        status = await process.wait()
        self._process = None
        died = EngineDied(f"the engine process ended: {self._cause(status)}")
        for waiting in self._waiting.values():
            waiting.put_nowait(died)
        if not self._closing and self.on_death is not None:
            self.on_death(str(died))

    def _cause(self, status: int) -> str:
        if status == -signal.SIGKILL:
            return "it was killed, often because memory ran out"
        if status < 0:
            return f"signal {signal.Signals(-status).name}; see {self.log_file}"
        return f"exit status {status}; see {self.log_file}"

    def send(self, request: messages.Request) -> None:
        """Put a request on its way; one to a process that is gone is dropped."""
        process = self._process
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(frames.frame(request))

    async def ask(
        self, request: messages.Request, then: Sequence[messages.Request] = ()
    ) -> AsyncGenerator[messages.Event]:
        """Send a request, what is to follow it at once, and yield its events, without end.

        Raises EngineError.

        Whoever closes the generator before the request is done withdraws the request.
        """
        if self._process is None:
            raise EngineDied("the engine is not running; load a model to start it again")
        waiting: asyncio.Queue[messages.Event | EngineDied] = asyncio.Queue()
        self._waiting[request.request] = waiting
        for message in (request, *then):
            self.send(message)
        done = False
        try:
            while True:
                event = await waiting.get()
                done = isinstance(event, EngineDied | messages.LAST)
                if isinstance(event, EngineDied):
                    raise event
                if isinstance(event, messages.FailedEvent):
                    raise EngineError(event.message)
                yield event
        finally:
            del self._waiting[request.request]
            if not done:
                self.send(messages.Cancel(request=request.request))
