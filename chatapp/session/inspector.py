"""Questions about the replies of a conversation, asked by message and token.

The session knows the messages, the engine knows the model; this stands between them, so that a
screen or a command names a token by where it is seen and gets numbers back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from chatapp.chat.conversation import Reply
from chatapp.chat.errors import EngineError
from chatapp.chat.generation import GenerateOptions, PromptRead
from chatapp.chat.inspection import PLAIN, ReplyStep, ScoreEvent, WhatIf
from chatapp.chat.prompt import TokenPiece
from chatapp.chat.record import FinishReason, SamplingSpan, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.search import (
    BeamEvent,
    BeamOptions,
    ColumnEvent,
    ContrastiveEvent,
    ContrastiveOptions,
    SeveralEvent,
)
from chatapp.session.growing import GrowingReply
from chatapp.session.protocols import Comparison, Running
from chatapp.session.session import Session


class Inspector:
    """Asks about one session's replies. Methods raise EngineError."""

    def __init__(self, session: Session) -> None:
        self._session = session
        engine = session.engine
        self.trace, self.candidates = engine.trace, engine.candidates
        self.find_tokens, self.spell = engine.find_tokens, engine.spell

    def step(
        self, message_id: str, index: int, sampling: SamplingParams | None = None
    ) -> ReplyStep:
        """One token of a reply, as the engine is asked about it.

        `index`: which of its tokens, from 0; the one behind the last is not taken yet. `sampling`:
        other settings to look at it with; None takes those it was drawn with, or would be.
        """
        reply = self._session.written(message_id)
        if not 0 <= index <= len(reply.ids):
            raise EngineError(f"the reply has no token {index}; it has {len(reply.ids)} so far")
        if index == len(reply.ids):
            span = SamplingSpan(index, sampling or self._session.sampling)
            return ReplyStep(reply=replace(reply, spans=(*reply.spans, span)), index=index)
        return ReplyStep(reply=reply, index=index, sampling=sampling)

    def step_of(self, reply: Reply, index: int) -> ReplyStep:
        """One token of a reply that is no message of the conversation (yet)."""
        return ReplyStep(reply=self._session.as_written(reply), index=index)

    async def what_if(self, message_id: str, sampling: SamplingParams) -> WhatIf:
        return await self._session.engine.what_if(self._session.written(message_id), sampling)

    async def prompt_tokens(self, leaf: str | None = None) -> tuple[TokenPiece, ...]:
        """What the model reads up to a message (the current one by default), in tokens."""
        session = self._session
        prompt = session.prompt_for(leaf if leaf is not None else session.conversation.leaf)
        return (await session.engine.render(prompt)).tokens

    def score(
        self,
        leaf: str | None = None,
        top_logprobs: int = 0,
        *,
        places: Sequence[int] | None = None,
        background: bool = False,
    ) -> Running[ScoreEvent]:
        """How probable each token of the prompt is: the system text and all messages.

        Args:
            leaf: the last message to read; None is the current one.
            places: which of the `prompt_tokens` are wanted; None is all of them.
            background: only what costs no reading and holds nothing up; see `Engine.score_prompt`.
        """
        session = self._session
        prompt = session.prompt_for(leaf if leaf is not None else session.conversation.leaf)
        return session.engine.score_prompt(
            prompt, top_logprobs, places=places, background=background
        )

    def compare(
        self, parent: str | None, columns: Sequence[SamplingParams | GenerateOptions]
    ) -> Columns:
        """Write several replies to a message side by side.

        `columns`: each one's settings, or all of its options.
        """
        options = tuple(
            one if isinstance(one, GenerateOptions) else self._session.options(one)
            for one in columns
        )
        running = self._session.engine.compare(self._session.prompt_for(parent), options)
        return Columns(running, options, self._session.empty_reply())

    def beam(self, parent: str | None, options: BeamOptions) -> Running[BeamEvent]:
        return self._session.engine.beam(self._session.prompt_for(parent), options)

    def contrastive(
        self, parent: str | None, options: ContrastiveOptions
    ) -> Running[ContrastiveEvent]:
        stop = self._session.options().stop
        return self._session.engine.contrastive(self._session.prompt_for(parent), options, stop)

    async def reply_of_ids(
        self, prompt_ids: Sequence[int], ids: Sequence[int], reason: FinishReason
    ) -> Reply:
        """A reply out of the ids that a search found, with a record for each of them.

        The records tell the model's own distribution, since nothing was sampled.

        `prompt_ids`: what the search read, as its `PromptRead` tells. `ids`: what it found, with
        the end token where there is one.
        """
        engine = self._session.engine
        records = [
            event
            async for event in engine.score_ids(prompt_ids, ids, self._session.top_logprobs)
            if isinstance(event, TokenRecord)
        ]
        return replace(
            self._session.empty_reply(),
            prompt_ids=tuple(prompt_ids),
            records=tuple(records),
            sampling=(SamplingSpan(0, PLAIN),),
            finish_reason=reason,
        )


class Columns:
    """Several replies under way side by side, each kept as it grows."""

    def __init__(
        self, running: Comparison, options: Sequence[GenerateOptions], start: Reply
    ) -> None:
        """`start` is what all of them have in common."""
        self._running = running
        self._sampling = [one.sampling for one in options]
        self._growing = [
            GrowingReply(replace(start, seed=one.seed), one.sampling) for one in options
        ]

    async def __aiter__(self) -> AsyncIterator[SeveralEvent]:
        """What comes of them. Raises EngineError, EngineDied."""
        async for event in self._running:
            match event:
                case ColumnEvent():
                    self._growing[event.column].take(event.event)
                case PromptRead():
                    for growing in self._growing:
                        growing.take(event)
            yield event

    def reply(self, column: int) -> Reply:
        """One of them as far as it has come; `Session.adopt` makes it an answer."""
        return self._growing[column].reply()

    def sampling(self, column: int) -> SamplingParams:
        return self._sampling[column]

    def set_sampling(self, column: int, sampling: SamplingParams) -> None:
        self._sampling[column] = sampling
        self._running.set_sampling(column, sampling)

    def cancel(self, column: int | None = None) -> None:
        self._running.cancel(column)
