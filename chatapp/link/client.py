"""The interface's side of the engine: calls out, answers and events in; nothing is computed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource, Report
from chatapp.chat.generation import GenerationEvent
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.search import SeveralEvent
from chatapp.link.connection import Connection
from chatapp.link.wire import CALLS, STEERING, Call, encode
from chatapp.session.protocols import Comparison, Engine, Generation
from chatapp.settings.paths import Paths

_Event = TypeVar("_Event")

LOAD_SECONDS = 120.0
"""What loading the smallest model may take, libraries on a slow disk included."""
_LOAD_BYTES_PER_SECOND = 1e6
"""Far less than the slowest disk reads, and than a slow machine converts."""


class RemoteStream(Generic[_Event]):
    """What comes of one request; implements `chatapp.session.protocols.Running`."""

    def __init__(self, connection: Connection, call: Call, arguments: dict[str, Any]) -> None:
        self._connection = connection
        self._number = connection.new_request()
        self._call = call
        self._arguments = arguments
        self._over = False
        self._early: list[bytes] | None = []
        """What was asked before the request went out, to follow it; None once it is out."""

    async def __aiter__(self) -> AsyncIterator[_Event]:
        """What comes of it. Raises EngineError, EngineDied when the process ended.

        Who stops iterating before the end stops the work.
        """
        try:
            with self._connection.ask(self._number, self._call, self._arguments) as answers:
                early, self._early = self._early or [], None
                self._connection.send(b"".join(early))
                while events := await answers.more():
                    for event in events:
                        yield event
        finally:
            self._over = True

    def cancel(self) -> None:
        """End it soon; nothing happens when it is over."""
        self._steer("cancel")

    def _steer(self, name: str, *arguments: object, column: int | None = None) -> None:
        """Send what changes the work; not before the work itself, which it would miss."""
        frame = encode(self._number, name, STEERING[name].pack(*arguments), column)
        if self._early is not None:
            self._early.append(frame)
        elif not self._over:
            self._connection.send(frame)


class RemoteGeneration(RemoteStream[GenerationEvent]):
    """A reply under way; implements `chatapp.session.protocols.Generation`."""

    def set_sampling(self, sampling: SamplingParams) -> None:
        self._steer("set_sampling", sampling)

    def pause(self) -> None:
        self._steer("pause")

    def resume(self) -> None:
        self._steer("resume")

    def step(self, token_ids: Sequence[int] = ()) -> None:
        self._steer("step", token_ids)


class RemoteComparison(RemoteStream[SeveralEvent]):
    """Several replies under way; implements `chatapp.session.protocols.Comparison`."""

    def set_sampling(self, column: int, sampling: SamplingParams) -> None:
        self._steer("set_sampling", sampling, column=column)

    def cancel(self, column: int | None = None) -> None:
        self._steer("cancel", column=column)


_STREAMS: dict[Any, type[RemoteStream[Any]]] = {
    Generation: RemoteGeneration,
    Comparison: RemoteComparison,
}


class EngineClient(Connection, Engine):
    """An engine in a process of its own. Every method but these is made of its signature, below."""

    @classmethod
    def at(cls, paths: Paths) -> Self:
        """One at work; for type checkers, which don't see the methods that are made below."""
        return cls(paths)

    async def load(
        self, source: ModelSource, options: LoadOptions, on_progress: Report
    ) -> ModelFacts:
        """Load a model; starts the process when none runs. Raises EngineError.

        A damaged file can keep a library busy for ever, where no request to stop is heard: then the
        process is ended.
        """
        await self.start()
        call, limit = CALLS["load"], _load_seconds(source)
        try:
            async with asyncio.timeout(limit):
                facts: ModelFacts = await self._answer(
                    call, call.pack(source, options), on_progress
                )
        except TimeoutError:
            await self.close()
            raise EngineError(
                f"the model cannot be loaded: {source.path} was not ready after {limit:.0f} s, and"
                " its size needs no such time; it is damaged, or this machine is very busy"
            ) from None
        return facts

    async def _answer(
        self, call: Call, arguments: dict[str, Any], on_progress: Report = lambda _: None
    ) -> Any:
        """Ask, and wait; a caller who no longer waits withdraws the question."""
        with self.ask(self.new_request(), call, arguments) as answers:
            while events := await answers.more():
                for event in events:
                    on_progress(event)
        if answers.answer is None:
            raise EngineError("the engine did not answer")
        return answers.answer


def _load_seconds(source: ModelSource) -> float | None:
    """How long loading may take at most; None for a server, which has limits of its own."""
    if source.kind == "server":
        return None
    path = Path(source.path)
    files = [path] if source.kind == "gguf" else path.glob("*")
    with contextlib.suppress(OSError):
        return LOAD_SECONDS + sum(file.stat().st_size for file in files) / _LOAD_BYTES_PER_SECOND
    return LOAD_SECONDS  # the engine says what is wrong with it


def _method(call: Call) -> Callable[..., Any]:
    """A method of `EngineClient` that asks the engine."""
    stream = _STREAMS.get(call.returns, RemoteStream)

    @functools.wraps(getattr(Engine, call.name))
    def begin(client: EngineClient, *positional: Any, **named: Any) -> RemoteStream[Any]:
        return stream(client, call, call.pack(*positional, **named))

    @functools.wraps(getattr(Engine, call.name))
    async def ask(client: EngineClient, *positional: Any, **named: Any) -> Any:
        on_progress = named.pop("on_progress", lambda _: None)
        return await client._answer(call, call.pack(*positional, **named), on_progress)

    return begin if call.answer is None else ask


for _name in CALLS.keys() - vars(EngineClient).keys():
    setattr(EngineClient, _name, _method(CALLS[_name]))
