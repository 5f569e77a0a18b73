"""Work under way in the engine process, as those who asked for it see it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Generic, TypeVar

from chatapp.chat.bench import BenchEvent
from chatapp.chat.errors import EngineError
from chatapp.chat.generation import GenerationEvent
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.scoring import ScoreEvent
from chatapp.chat.search import BeamEvent, ColumnEvent, ContrastiveEvent, SeveralEvent
from chatapp.link import messages
from chatapp.link.connection import Connection

_Event = TypeVar("_Event")


class RemoteStream(Generic[_Event]):
    """What comes of one request; implements `chatapp.session.protocols.Running`."""

    def __init__(
        self,
        connection: Connection,
        request: messages.LongWork,
        read: Callable[[messages.Event], _Event | None],
    ) -> None:
        """`read` takes an event out of its message; None where the message is none of its."""
        self._connection = connection
        self._number = request.request
        self._request = request
        self._read = read
        self._over = False
        self._early: list[messages.Request] | None = []
        """What was asked before the request went out, to follow it; None once it is out."""

    async def __aiter__(self) -> AsyncIterator[_Event]:
        """What comes of it. Raises EngineError, EngineDied when the process ended.

        Who stops iterating before the end stops the work.
        """
        try:
            early, self._early = tuple(self._early or ()), None
            answers = self._connection.ask(self._request, early)
            async with contextlib.aclosing(answers) as messages_:
                async for message in messages_:
                    event = self._read(message)
                    if event is None:
                        continue
                    self._over = self._is_last(message)
                    yield event
                    if self._over:
                        return
        finally:
            self._over = True
        raise EngineError("the engine did not answer")

    def cancel(self) -> None:
        """End it soon; nothing happens when it is over."""
        if not self._over:
            self._steer(messages.Cancel(request=self._number))

    def _steer(self, message: messages.Request) -> None:
        """Send what changes the work; not before the work itself, which it would miss."""
        if self._early is None:
            self._connection.send(message)
        else:
            self._early.append(message)

    def _is_last(self, message: messages.Event) -> bool:
        return isinstance(message, messages.LAST)


class RemoteGeneration(RemoteStream[GenerationEvent]):
    """A reply under way; implements `chatapp.session.protocols.Generation`."""

    def __init__(self, connection: Connection, request: messages.GenerateRequest) -> None:
        super().__init__(connection, request, generation_event)

    def set_sampling(self, sampling: SamplingParams) -> None:
        """Draw with these from the next token on."""
        self._steer(messages.SetSampling(request=self._number, sampling=sampling))

    def pause(self) -> None:
        """Hold it before its next token."""
        self._steer(messages.Pause(request=self._number, paused=True))

    def resume(self) -> None:
        """Let it go on by itself."""
        self._steer(messages.Pause(request=self._number, paused=False))

    def step(self, token_ids: Sequence[int] = ()) -> None:
        """Take one drawn token, or all of these in order, and hold again."""
        self._steer(messages.StepOnce(request=self._number, token_ids=tuple(token_ids)))


class RemoteComparison(RemoteStream[SeveralEvent]):
    """Several replies under way; implements `chatapp.session.protocols.Comparison`."""

    def __init__(self, connection: Connection, request: messages.CompareRequest) -> None:
        super().__init__(connection, request, several_event)
        self._running = len(request.columns)

    def set_sampling(self, column: int, sampling: SamplingParams) -> None:
        """Draw with these from the next token of a column on."""
        self._steer(messages.SetSampling(request=self._number, sampling=sampling, column=column))

    def cancel(self, column: int | None = None) -> None:
        """End one column, or all; nothing happens when they are over."""
        if not self._over:
            self._steer(messages.Cancel(request=self._number, column=column))

    def _is_last(self, message: messages.Event) -> bool:
        self._running -= isinstance(message, messages.ColumnEndEvent)
        return self._running == 0


def generation_event(message: messages.Event) -> GenerationEvent | None:
    """What a message tells of a reply."""
    match message:
        case messages.TokenEvent():
            return message.step
        case messages.ProgressEvent():
            return message.progress
        case messages.PromptReadEvent():
            return message.read
        case messages.PausedEvent():
            return message.paused
        case messages.EndEvent():
            return message.end
    return None


def several_event(message: messages.Event) -> SeveralEvent | None:
    """What a message tells of several replies."""
    match message:
        case messages.ColumnTokenEvent():
            return ColumnEvent(message.column, message.step)
        case messages.ColumnEndEvent():
            return ColumnEvent(message.column, message.end)
        case messages.ProgressEvent():
            return message.progress
        case messages.PromptReadEvent():
            return message.read
    return None


def score_event(message: messages.Event) -> ScoreEvent | None:
    """What a message tells of a text that is scored."""
    match message:
        case messages.ScoredEvent():
            return message.record
        case messages.ScoreStartEvent():
            return message.start
        case messages.ScoreEndEvent():
            return message.end
        case messages.ProgressEvent():
            return message.progress
    return None


def beam_event(message: messages.Event) -> BeamEvent | None:
    """What a message tells of a beam search."""
    match message:
        case messages.BeamStepEvent():
            return message.step
        case messages.BeamEndEvent():
            return message.end
        case messages.ProgressEvent():
            return message.progress
        case messages.PromptReadEvent():
            return message.read
    return None


def contrastive_event(message: messages.Event) -> ContrastiveEvent | None:
    """What a message tells of a contrastive search."""
    match message:
        case messages.ContrastiveStepEvent():
            return message.step
        case messages.ContrastiveEndEvent():
            return message.end
        case messages.ProgressEvent():
            return message.progress
        case messages.PromptReadEvent():
            return message.read
    return None


def bench_event(message: messages.Event) -> BenchEvent | None:
    """What a message tells of a measurement."""
    match message:
        case messages.BenchEvent():
            return message.result
        case messages.ProgressEvent():
            return message.progress
    return None
