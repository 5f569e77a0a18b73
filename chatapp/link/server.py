"""The engine's side: reads requests from standard input, writes events to standard output.

Three threads. The main one reads requests and never works. One does the long work, loading and
generating, in turn. One answers what must not wait for it: counting tokens while a reply streams.

Native libraries print to file descriptor 1 when they please, so the real one is kept aside for
events and 1 is pointed to standard error, which the client sends to a log file. When standard input
ends, the interface is gone, and the process ends at once.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn, TypeVar

from chatapp.chat.errors import ChatappError, EngineError
from chatapp.chat.facts import Progress
from chatapp.chat.generation import GenerationEnd, GenerationEvent, Paused, PromptRead, TokenStep
from chatapp.engine.controls import Controls
from chatapp.link import messages

if TYPE_CHECKING:
    from chatapp.engine.engine import LocalEngine


_R = TypeVar("_R", bound=messages.Message)


class Server:
    """Dispatches requests to one engine and writes what comes of them."""

    def __init__(self, requests: BinaryIO, events: BinaryIO) -> None:
        self._requests = requests
        self._events = events
        self._write_lock = threading.Lock()
        self._engine: LocalEngine | None = None
        self._controls: dict[int, Controls] = {}
        self._long: queue.SimpleQueue[messages.LoadRequest | messages.GenerateRequest] = (
            queue.SimpleQueue()
        )
        self._short: queue.SimpleQueue[messages.TokenizeRequest | messages.RenderRequest] = (
            queue.SimpleQueue()
        )

    def serve(self) -> None:
        """Read requests until the input ends."""
        for work in (self._work_long, self._work_short):
            threading.Thread(target=work, daemon=True).start()
        while (request := self._read()) is not None:
            match request:
                case messages.LoadRequest():
                    self._long.put(request)
                case messages.GenerateRequest():
                    # Made here and not when its turn comes, so that a change or a stop that
                    # arrives while it waits is not lost.
                    self._controls[request.request] = Controls(request.options.sampling)
                    self._long.put(request)
                case messages.TokenizeRequest() | messages.RenderRequest():
                    self._short.put(request)
                case _:
                    self._steer(request)

    def _steer(
        self, request: messages.SetSampling | messages.Cancel | messages.Pause | messages.StepOnce
    ) -> None:
        """Change a reply that runs or waits; one that is over no longer cares."""
        controls = self._controls.get(request.request)
        if controls is None:
            return
        match request:
            case messages.SetSampling():
                controls.sampling = request.sampling
            case messages.Cancel():
                controls.cancel()
            case messages.Pause(paused=True):
                controls.pause()
            case messages.Pause():
                controls.resume()
            case messages.StepOnce():
                controls.step(request.token_id)

    def _read(self) -> messages.Request | None:
        header = self._requests.read(messages.LENGTH.size)
        if len(header) < messages.LENGTH.size:
            return None
        (length,) = messages.LENGTH.unpack(header)
        body = self._requests.read(length)
        return messages.read_request(body) if len(body) == length else None

    def _send(self, event: messages.Event) -> None:
        frame = messages.frame(event)
        with self._write_lock:
            self._events.write(frame)
            self._events.flush()

    def _work_long(self) -> None:
        while True:
            request = self._long.get()
            if isinstance(request, messages.LoadRequest):
                self._guard(self._load, request)
            else:
                self._guard(self._generate, request)

    def _work_short(self) -> None:
        while True:
            request = self._short.get()
            self._guard(self._answer, request)

    def _guard(self, work: Callable[[_R], None], request: _R) -> None:
        """Do one piece of work; whatever it raises becomes an event, never the end."""
        number = request.request
        try:
            work(request)
        except BrokenPipeError:
            os._exit(0)  # the interface is gone
        except ChatappError as error:
            self._send(messages.FailedEvent(request=number, message=str(error)))
        except Exception as error:
            traceback.print_exc()
            words = f"the engine failed: {type(error).__name__}: {error}; see the log"
            self._send(messages.FailedEvent(request=number, message=words))

    def _load(self, request: messages.LoadRequest) -> None:
        # torch and transformers take seconds to import; nothing before a load needs them.
        from chatapp.engine.engine import LocalEngine

        def report(progress: Progress) -> None:
            self._send(messages.ProgressEvent(request=request.request, progress=progress))

        report(Progress("starting the engine", 0, 0))
        engine = self._engine or LocalEngine(Path(request.prepared))
        facts = engine.load(request.source, request.options, report)
        self._engine = engine
        self._send(messages.LoadedEvent(request=request.request, facts=facts))

    def _generate(self, request: messages.GenerateRequest) -> None:
        number = request.request
        controls = self._controls[number]
        try:
            for event in self._running().generate(request.prompt, request.options, controls):
                self._send(_wrap(number, event))
        finally:
            del self._controls[number]

    def _answer(self, request: messages.TokenizeRequest | messages.RenderRequest) -> None:
        number = request.request
        if isinstance(request, messages.TokenizeRequest):
            tokens = self._running().tokenize(request.text)
            self._send(messages.TokenizedEvent(request=number, tokens=tokens))
        else:
            rendered = self._running().render(request.prompt)
            self._send(messages.RenderedEvent(request=number, rendered=rendered))

    def _running(self) -> LocalEngine:
        if self._engine is None:
            raise EngineError("no model is loaded")
        return self._engine


def _wrap(number: int, event: GenerationEvent) -> messages.Event:
    match event:
        case TokenStep():
            return messages.TokenEvent(request=number, step=event)
        case PromptRead():
            return messages.PromptReadEvent(request=number, read=event)
        case Paused():
            return messages.PausedEvent(request=number, paused=event)
        case GenerationEnd():
            return messages.EndEvent(request=number, end=event)
        case Progress():
            return messages.ProgressEvent(request=number, progress=event)


def main() -> NoReturn:
    """Serve over the standard streams until the input ends."""
    requests = os.fdopen(os.dup(0), "rb")
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    Server(requests, events).serve()
    sys.stderr.flush()
    # Work may be under way in a native call that no one waits for any more.
    os._exit(0)


if __name__ == "__main__":
    main()
