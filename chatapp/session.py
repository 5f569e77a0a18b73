"""One turn: save, ask, save as it comes.

`Session` holds the current conversation and is the only place where the engine and the store meet.
Sending, regenerating, continuing and branching all end in the same streaming path, `_reply`. The
person's message is on disk before the model is asked; the reply is saved as it streams.

The interface and `chatapp ask` iterate over what a turn yields; neither knows where the engine runs
or how things are kept, since both are reached through the Protocols here.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from chatapp.chat.conversation import Conversation, Message, Reply, new_id, title_from
from chatapp.chat.errors import EngineError, StoreError
from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource, Progress
from chatapp.chat.generation import (
    GenerateOptions,
    GenerationEnd,
    GenerationEvent,
    Paused,
    PromptRead,
    TokenStep,
)
from chatapp.chat.prompt import Prompt, PromptFormat, RenderedPrompt, TokenPiece, Turn
from chatapp.chat.record import FinishReason, SamplingSpan, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.template import Template

SAVE_EVERY_SECONDS = 0.5
"""How often a streaming reply is saved; at most this much of it can be lost."""


class Generation(Protocol):
    """A reply under way."""

    def __aiter__(self) -> AsyncIterator[GenerationEvent]:
        """What comes of it, until its `GenerationEnd`."""

    def set_sampling(self, sampling: SamplingParams) -> None:
        """Draw the next token with these."""

    def cancel(self) -> None:
        """End it within one token."""

    def pause(self) -> None:
        """Hold it before its next token."""

    def resume(self) -> None:
        """Let it go on by itself."""

    def step(self, token_id: int | None = None) -> None:
        """Take one token, drawn or this one, and hold again."""


class Engine(Protocol):
    """What can read and write tokens, wherever it runs."""

    async def load(
        self, source: ModelSource, options: LoadOptions, on_progress: Callable[[Progress], None]
    ) -> ModelFacts:
        """Load a model. Raises EngineError."""

    def generate(self, prompt: Prompt, options: GenerateOptions) -> Generation:
        """Begin a reply. Iterating raises EngineError (EngineDied when the process ended)."""

    async def tokenize(self, text: str) -> tuple[TokenPiece, ...]:
        """Split a text as ordinary text. Raises EngineError."""

    async def render(self, prompt: Prompt) -> RenderedPrompt:
        """What the model would read. Raises EngineError."""

    async def close(self) -> None:
        """End it and wait for it."""


class ChatStore(Protocol):
    """Where conversations are kept. Every method raises StoreError."""

    async def save_conversation(self, conversation: Conversation) -> None:
        """Save everything but the messages: settings, title, current leaf."""

    async def save_message(self, conversation_id: str, message: Message) -> None:
        """Save a message, in place of the one of the same id; on disk when this returns."""

    async def load(self, conversation_id: str) -> Conversation:
        """A conversation with all of its messages."""

    async def latest(self) -> str | None:
        """The id of the conversation that changed last."""

    async def resolve(self, prefix: str) -> str:
        """The id of the one conversation whose id begins so."""

    async def close(self) -> None:
        """Write what is left and let go of the file."""


@dataclass(frozen=True, slots=True)
class MessageAdded:
    """A message joined the current path (the person's, or an empty reply about to stream)."""

    message: Message


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """The reply is complete, cut or failed, and saved as it is."""

    message: Message
    notice: str = ""
    """Words for the person about why, where the reason alone doesn't say it."""


@dataclass(frozen=True, slots=True)
class SaveFailed:
    """Something could not be written; the conversation goes on in memory."""

    message: str


TurnEvent = MessageAdded | Progress | PromptRead | TokenStep | Paused | ReplyEnded | SaveFailed


class Session:
    """The current conversation, and the turns taken in it."""

    def __init__(
        self,
        engine: Engine,
        store: ChatStore | None,
        *,
        template: Template,
        formats: Callable[[str], PromptFormat],
        sampling: SamplingParams,
        seed: int | None = None,
        max_tokens: int = 0,
        stop: Sequence[str] = (),
        top_logprobs: int = 20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start with an empty conversation made from a template.

        Args:
            engine: what writes replies.
            store: where conversations are kept; None keeps them in memory only.
            template: what new conversations are made from.
            formats: finds a format by name; raises ChatappError for an unknown one.
            sampling: what replies are drawn with, until changed.
            seed: fixes every reply's draws; None takes a fresh seed a reply.
            max_tokens: limit of a reply; 0 is the context.
            stop: stop sequences besides the template's.
            top_logprobs: how many candidates each record carries.
            clock: seconds since the epoch.
        """
        self.engine = engine
        self.store = store
        self.facts: ModelFacts | None = None
        self.sampling = sampling
        self.seed = seed
        self.max_tokens = max_tokens
        self.stop = tuple(stop)
        self.top_logprobs = top_logprobs
        self._formats = formats
        self._clock = clock
        self._generation: Generation | None = None
        self.new_conversation(template)

    @property
    def replying(self) -> bool:
        """Whether a reply is under way."""
        return self._generation is not None

    async def load_model(
        self, source: ModelSource, options: LoadOptions, on_progress: Callable[[Progress], None]
    ) -> ModelFacts:
        """Load a model into the engine; replies use it from then on. Raises EngineError."""
        self.facts = await self.engine.load(source, options, on_progress)
        return self.facts

    def new_conversation(self, template: Template) -> None:
        """Begin an empty conversation; it is saved with its first message."""
        self._unsaved: dict[str, None] = {}  # ids, in order
        self.conversation = Conversation(
            id=new_id(),
            created=self._clock(),
            template=template.name,
            system=template.system,
            format=template.format,
            stop=template.stop,
        )
        if template.first_message:
            self._add("assistant", template.first_message)

    async def open(self, conversation_id: str) -> None:
        """Make a kept conversation the current one. Raises StoreError."""
        if self.store is None:
            raise StoreError("conversations are not kept in this session")
        self.conversation = await self.store.load(conversation_id)
        self._unsaved = {}

    async def change(self, conversation: Conversation) -> SaveFailed | None:
        """Take a changed version of the current conversation, and save what changed.

        Another leaf, an edited or deleted message, a title, a system text. An empty conversation
        is saved with its first message.
        """
        before = self.conversation.messages
        for message_id, message in conversation.messages.items():
            if before.get(message_id) is not message:
                self._unsaved[message_id] = None
        self.conversation = conversation
        return await self._save_new() if conversation.messages else None

    def set_sampling(self, sampling: SamplingParams) -> None:
        """Draw with these from the next token on, of the running reply too."""
        self.sampling = sampling
        if self._generation is not None:
            self._generation.set_sampling(sampling)

    def cancel(self) -> None:
        """Stop the running reply within one token; what came is kept."""
        if self._generation is not None:
            self._generation.cancel()

    def pause(self) -> None:
        """Hold the running reply before its next token; a `Paused` shows what could come."""
        if self._generation is not None:
            self._generation.pause()

    def resume(self) -> None:
        """Let a held reply go on by itself."""
        if self._generation is not None:
            self._generation.resume()

    def step(self, token_id: int | None = None) -> None:
        """Let a held reply take one token: drawn, or this one."""
        if self._generation is not None:
            self._generation.step(token_id)

    async def send(self, text: str) -> AsyncIterator[TurnEvent]:
        """Say something and stream the reply."""
        first = not any(message.role == "user" for message in self.conversation.path())
        if first and not self.conversation.title:
            self.conversation = replace(self.conversation, title=title_from(text))
        message = self._add("user", text)
        if failed := await self._save_new():
            yield failed
        yield MessageAdded(message)
        async for event in self._reply(message.id):
            yield event

    async def regenerate(self, message_id: str | None = None) -> AsyncIterator[TurnEvent]:
        """Stream another reply beside an assistant's message (the last one by default)."""
        parent = self._parent_for_reply(message_id)
        async for event in self._reply(parent):
            yield event

    async def continue_reply(self, message_id: str) -> AsyncIterator[TurnEvent]:
        """Go on from the exact ids of a reply that was cut; the old one stays beside it."""
        reply = self._reply_of(message_id)
        kept = reply.records
        if kept and reply.finish_reason is FinishReason.STOP:
            kept = kept[:-1]  # without its end token
        async for event in self._reply(self._parent_for_reply(message_id), kept=kept, base=reply):
            yield event

    async def branch(self, message_id: str, index: int, token_id: int) -> AsyncIterator[TurnEvent]:
        """Take another token at a point of a reply and go on from there."""
        reply = self._reply_of(message_id)
        parent = self._parent_for_reply(message_id)
        kept = reply.records[:index]
        async for event in self._reply(parent, kept=kept, base=reply, forced=(token_id,)):
            yield event

    def prompt_for(self, leaf: str | None, kept: tuple[TokenRecord, ...] = ()) -> Prompt:
        """What the model reads after that message (and the kept start of a reply to it)."""
        turns = [self._turn(message) for message in self.conversation.path_to(leaf)]
        if kept:
            text = "".join(record.text for record in kept)
            turns.append(Turn("assistant", text, tuple(record.id for record in kept)))
        return Prompt(
            system=self.conversation.system,
            turns=tuple(turns),
            format=self._formats(self.conversation.format),
            continue_reply=bool(kept),
        )

    async def _reply(
        self,
        parent: str | None,
        *,
        kept: tuple[TokenRecord, ...] = (),
        base: Reply | None = None,
        forced: tuple[int, ...] = (),
    ) -> AsyncIterator[TurnEvent]:
        """The one streaming path: ask, pass on what comes, save it as it comes."""
        if self._generation is not None:
            raise EngineError("a reply is already under way; stop it first with Esc")
        facts = self.facts
        if facts is None:
            raise EngineError("no model is loaded; choose one with Ctrl+L or /model")
        seed = self.seed if self.seed is not None else random.SystemRandom().getrandbits(48)
        options = GenerateOptions(
            sampling=self.sampling,
            seed=seed,
            max_tokens=self.max_tokens,
            stop=(*self.stop, *self.conversation.stop),
            top_logprobs=self.top_logprobs,
            forced_ids=forced,
        )
        generation = self.engine.generate(self.prompt_for(parent, kept), options)
        self._generation = generation  # from here on a stop or a change reaches it
        growing = _GrowingReply(
            kept,
            Reply(
                model=facts.name,
                model_sha256=facts.sha256,
                seed=seed,
                sampling=_spans_before(base, len(kept)),
            ),
            self.sampling,
        )
        message = self._add("assistant", growing.text, parent=parent, reply=growing.reply())
        self.conversation = replace(self.conversation, model=facts.name)
        notice = ""
        try:
            if failed := await self._save_new():
                yield failed
            yield MessageAdded(message)
            saved_at = self._clock()
            async for event in generation:
                growing.take(event)
                if isinstance(event, GenerationEnd):
                    notice = event.message
                    break
                yield event
                if self._clock() - saved_at >= SAVE_EVERY_SECONDS:
                    saved_at = self._clock()
                    if failed := await self._save_reply(message, growing):
                        yield failed
        except EngineError as error:
            growing.fail(str(error))
            notice = str(error)
        finally:
            # Also when the iteration is abandoned (the program is closing): what came is kept.
            self._generation = None
            generation.cancel()
            failed = await self._save_reply(message, growing)
        if failed:
            yield failed
        yield ReplyEnded(self.conversation.messages[message.id], notice)

    def _add(
        self, role: str, text: str, *, parent: str | None = None, reply: Reply | None = None
    ) -> Message:
        """Add a message below a parent (the current leaf by default) and stand on it."""
        message = Message(
            id=new_id(),
            parent=parent if reply is not None else self.conversation.leaf,
            role="assistant" if role == "assistant" else "user",
            text=text,
            created=self._clock(),
            reply=reply,
        )
        self.conversation = self.conversation.with_message(message)
        self._unsaved[message.id] = None
        return message

    def _turn(self, message: Message) -> Turn:
        """A message as the model reads it: exact ids where this same model wrote them."""
        reply = message.reply
        if reply is None or self.facts is None or reply.model_sha256 != self.facts.sha256:
            return Turn(message.role, message.text)
        ids = reply.ids
        if ids and ids[-1] in self.facts.end_ids:
            ids = ids[:-1]  # the format writes the end of a turn itself
        if reply.finish_reason is FinishReason.STOP_SEQUENCE:
            return Turn(message.role, message.text)  # its ids hold the stop sequence too
        return Turn(message.role, message.text, ids or None)

    def _reply_of(self, message_id: str) -> Reply:
        message = self.conversation.messages[message_id]
        if message.reply is None or not message.reply.records:
            raise EngineError("this message has no tokens to go on from; regenerate it instead")
        if self.facts is None or message.reply.model_sha256 != self.facts.sha256:
            raise EngineError(
                f"{message.reply.model} wrote this reply; load it to go on from its tokens"
            )
        return message.reply

    def _parent_for_reply(self, message_id: str | None) -> str | None:
        """The message a new sibling of that reply answers."""
        leaf = message_id if message_id is not None else self.conversation.leaf
        if leaf is None:
            raise EngineError("there is nothing to answer yet; write a message first")
        message = self.conversation.messages[leaf]
        return message.parent if message.role == "assistant" else message.id

    async def _save_new(self) -> SaveFailed | None:
        """Save the conversation and the messages that are not on disk yet."""
        if self.store is None:
            return None
        try:
            await self.store.save_conversation(self.conversation)
            for message_id in tuple(self._unsaved):
                message = self.conversation.messages[message_id]
                await self.store.save_message(self.conversation.id, message)
                del self._unsaved[message_id]
        except StoreError as error:
            return SaveFailed(str(error))
        return None

    async def _save_reply(self, message: Message, growing: _GrowingReply) -> SaveFailed | None:
        """Put what has come of a reply into the conversation, and on disk."""
        current = replace(message, text=growing.text, reply=growing.reply())
        leaf = self.conversation.leaf
        self.conversation = self.conversation.with_message(current).at(leaf)
        if self.store is None:
            return None
        self._unsaved[message.id] = None
        return await self._save_new()


class _GrowingReply:
    """A reply while it streams: appends cheaply, makes the immutable value when asked."""

    def __init__(
        self, kept: tuple[TokenRecord, ...], start: Reply, sampling: SamplingParams
    ) -> None:
        self._start = start
        self._records = list(kept)
        self._text = [record.text for record in kept]
        self._spans = [*start.sampling, SamplingSpan(len(kept), sampling)]

    @property
    def text(self) -> str:
        return "".join(self._text)

    def take(self, event: GenerationEvent) -> None:
        match event:
            case PromptRead():
                self._start = replace(
                    self._start, prompt_ids=event.prompt_ids, cached_tokens=event.cached_tokens
                )
            case TokenStep():
                if event.sampling is not None and self._spans[-1].sampling != event.sampling:
                    self._spans.append(SamplingSpan(event.record.index, event.sampling))
                self._records.append(event.record)
                self._text.append(event.record.text)
            case GenerationEnd():
                self._start = replace(
                    self._start,
                    finish_reason=event.reason,
                    seconds=event.seconds,
                    time_to_first_token=event.time_to_first_token,
                    error=event.message if event.reason is FinishReason.ERROR else "",
                )
            case Progress() | Paused():
                pass

    def fail(self, message: str) -> None:
        self._start = replace(self._start, finish_reason=FinishReason.ERROR, error=message)

    def reply(self) -> Reply:
        return replace(self._start, records=tuple(self._records), sampling=tuple(self._spans))


def _spans_before(base: Reply | None, count: int) -> tuple[SamplingSpan, ...]:
    """The parameters the kept tokens of another reply were drawn with."""
    return tuple(span for span in base.sampling if span.start < count) if base else ()
