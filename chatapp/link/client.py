"""The interface's side: starts the engine process, sends requests, hands out what comes back.

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
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from chatapp.chat.errors import EngineDied, EngineError
from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource, Progress
from chatapp.chat.generation import GenerateOptions, GenerationEnd, GenerationEvent
from chatapp.chat.prompt import Prompt, RenderedPrompt, TokenPiece
from chatapp.chat.sampling import SamplingParams
from chatapp.link import messages
from chatapp.paths import Paths, make_folder

CLOSE_SECONDS = 2.0
"""How long the process may take to end by itself."""


class EngineClient:
    """An engine in a process of its own; implements `chatapp.session.Engine`."""

    def __init__(self, paths: Paths, on_death: Callable[[str], None] | None = None) -> None:
        """Nothing is started before the first `load`.

        Args:
            paths: where logs and prepared models go.
            on_death: told in words when the process ends unasked.
        """
        self._paths = paths
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
        return self._paths.logs / "engine.log"

    async def load(
        self, source: ModelSource, options: LoadOptions, on_progress: Callable[[Progress], None]
    ) -> ModelFacts:
        """Load a model; starts the process when none runs. Raises EngineError."""
        if self._process is None:
            await self._start()
        number = next(self._numbers)
        request = messages.LoadRequest(
            request=number, source=source, options=options, prepared=str(self._paths.prepared)
        )
        async for event in self._ask(request):
            match event:
                case messages.ProgressEvent():
                    on_progress(event.progress)
                case messages.LoadedEvent():
                    return event.facts
        raise EngineError("the engine did not load the model")

    def generate(self, prompt: Prompt, options: GenerateOptions) -> RemoteGeneration:
        """Begin a reply; it starts when it is first iterated over."""
        request = messages.GenerateRequest(
            request=next(self._numbers), prompt=prompt, options=options
        )
        return RemoteGeneration(self, request)

    async def tokenize(self, text: str) -> tuple[TokenPiece, ...]:
        """Split a text as ordinary text. Raises EngineError."""
        request = messages.TokenizeRequest(request=next(self._numbers), text=text)
        async for event in self._ask(request):
            if isinstance(event, messages.TokenizedEvent):
                return event.tokens
        raise EngineError("the engine did not answer")

    async def render(self, prompt: Prompt) -> RenderedPrompt:
        """What the model would read. Raises EngineError."""
        request = messages.RenderRequest(request=next(self._numbers), prompt=prompt)
        async for event in self._ask(request):
            if isinstance(event, messages.RenderedEvent):
                return event.rendered
        raise EngineError("the engine did not answer")

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

    async def _start(self) -> None:
        """Start the process, away from the terminal: its keys and signals are the interface's."""
        make_folder(self._paths.logs)
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
            while True:
                header = await process.stdout.readexactly(messages.LENGTH.size)
                (length,) = messages.LENGTH.unpack(header)
                event = messages.read_event(await process.stdout.readexactly(length))
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
            process.stdin.write(messages.frame(request))

    async def _ask(self, request: messages.Request) -> AsyncIterator[messages.Event]:
        """Send a request and yield its events, without end. Raises EngineError."""
        if self._process is None:
            raise EngineDied("the engine is not running; load a model to start it again")
        waiting: asyncio.Queue[messages.Event | EngineDied] = asyncio.Queue()
        self._waiting[request.request] = waiting
        self.send(request)
        try:
            while True:
                event = await waiting.get()
                if isinstance(event, EngineDied):
                    raise event
                if isinstance(event, messages.FailedEvent):
                    raise EngineError(event.message)
                yield event
        finally:
            del self._waiting[request.request]

    async def stream(self, request: messages.GenerateRequest) -> AsyncIterator[GenerationEvent]:
        """The events of one reply, up to its end."""
        async for event in self._ask(request):
            match event:
                case messages.TokenEvent():
                    yield event.step
                case messages.ProgressEvent():
                    yield event.progress
                case messages.PromptReadEvent():
                    yield event.read
                case messages.PausedEvent():
                    yield event.paused
                case messages.EndEvent():
                    yield event.end
                    return


class RemoteGeneration:
    """A reply under way in the engine process; implements `chatapp.session.Generation`."""

    def __init__(self, client: EngineClient, request: messages.GenerateRequest) -> None:
        self._client = client
        self._request = request
        self._over = False

    async def __aiter__(self) -> AsyncIterator[GenerationEvent]:
        """What comes of it. Raises EngineError, EngineDied when the process ended."""
        async for event in self._client.stream(self._request):
            self._over = isinstance(event, GenerationEnd)
            yield event

    def set_sampling(self, sampling: SamplingParams) -> None:
        """Draw with these from the next token on."""
        self._client.send(messages.SetSampling(request=self._request.request, sampling=sampling))

    def cancel(self) -> None:
        """End it within one token; nothing happens when it is over."""
        if not self._over:
            self._client.send(messages.Cancel(request=self._request.request))

    def pause(self) -> None:
        """Hold it before its next token."""
        self._client.send(messages.Pause(request=self._request.request, paused=True))

    def resume(self) -> None:
        """Let it go on by itself."""
        self._client.send(messages.Pause(request=self._request.request, paused=False))

    def step(self, token_id: int | None = None) -> None:
        """Take one token, drawn or this one, and hold again."""
        self._client.send(messages.StepOnce(request=self._request.request, token_id=token_id))
