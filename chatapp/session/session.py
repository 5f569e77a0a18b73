"""One turn: save, ask, save as it comes.

`Session` holds the current conversation and is the only place where the engine and the store meet.
Sending, regenerating, continuing and branching all end in the same streaming path, `_reply`. The
user's message is on disk before the model is asked; the reply is saved as it streams.

The interface and `chatapp ask` iterate over what a turn yields; neither knows where the engine runs
or how things are kept, since both are reached through `chatapp.session.protocols`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from chatapp.chat.conversation import Conversation, Message, Reply, new_id, title_from
from chatapp.chat.errors import EngineError, StoreError
from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource, Progress, Report
from chatapp.chat.generation import (
    GenerateOptions,
    GenerationEnd,
    Paused,
    PromptRead,
    TokenStep,
)
from chatapp.chat.inspection import PLAIN, WrittenReply
from chatapp.chat.prompt import Prompt, PromptFormat, Turn
from chatapp.chat.record import FinishReason, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.template import Template
from chatapp.chat.text import sanitise
from chatapp.session.growing import (
    GrowingReply,
    kept_to_continue,
    kept_within,
    spans_before,
)
from chatapp.session.protocols import ChatStore, Engine, Generation
from chatapp.session.saving import SaveFailed, saved_meanwhile

SAVE_EVERY_SECONDS = 0.5
"""How often a streaming reply is saved, also while its engine stalls; what is lost is no older."""


@dataclass(frozen=True, slots=True)
class MessageAdded:
    """A message joined the current path (the user's, or an empty reply about to stream)."""

    message: Message


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """The reply is complete, cut or failed, and saved as it is."""

    message: Message
    notice: str = ""
    """Words for the user about why, where the reason alone doesn't say it."""


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
        think: bool | None = None,
        top_logprobs: int = 20,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Start with an empty conversation made from a template.

        Args:
            store: where conversations are kept; None keeps them in memory only.
            formats: finds a format by name; raises ChatappError for an unknown one.
            seed: fixes every reply's draws; None takes a fresh seed a reply.
            max_tokens: limit of a reply; 0 is the context.
        """
        self.engine = engine
        self.store = store
        self.facts: ModelFacts | None = None
        self.sampling = sampling
        self.seed = seed
        self.max_tokens = max_tokens
        self.stop = tuple(stop)
        self.think = think
        self.top_logprobs = top_logprobs
        self.trace = False
        """Whether each token of a reply tells what every stage of the sampler did."""
        self._formats = formats
        self._clock = clock
        self._sleep = sleep
        self._generation: Generation | None = None
        self._growing: GrowingReply | None = None
        self._growing_id = ""
        self._unsaved: list[Message] = []
        """What the store was not given yet; what it was given it writes, sooner or later."""
        self._given = 0
        """How many records of the growing reply the store was given."""
        self.new_conversation(template)

    @property
    def conversation(self) -> Conversation:
        """The current one; a reply under way is in it up to its newest token when it is asked."""
        growing, message = self._growing, self._conversation.messages.get(self._growing_id)
        if growing and message and message.reply and len(message.reply.records) < growing.count:
            self._fold(growing)
        return self._conversation

    @conversation.setter
    def conversation(self, conversation: Conversation) -> None:
        self._conversation = conversation

    @property
    def replying(self) -> bool:
        return self._generation is not None

    async def load_model(
        self, source: ModelSource, options: LoadOptions, on_progress: Report
    ) -> ModelFacts:
        """Load a model into the engine; replies use it from then on. Raises EngineError."""
        self.facts = None  # the engine lets go of the old model before it reads the new one
        self.facts = await self.engine.load(source, options, on_progress)
        return self.facts

    def new_conversation(self, template: Template) -> None:
        """Begin an empty conversation; it is saved with its first message."""
        self._unsaved = []  # a save under way ends with its own
        self.conversation = Conversation(
            id=new_id(),
            created=self._clock(),
            template=template.name,
            system=template.system,
            format=template.format,
            stop=template.stop,
            think=self.think,
        )
        if template.first_message:
            self._add("assistant", template.first_message)

    async def open(self, conversation_id: str) -> None:
        """Make a kept conversation the current one, with what its last reply was drawn with.

        Raises StoreError: it cannot be read.
        """
        self.take(await self.load(conversation_id))

    async def load(self, conversation_id: str) -> Conversation:
        """A kept conversation, as it is on disk. Raises StoreError."""
        if self.store is None:
            raise StoreError("conversations are not kept in this session")
        return await self.store.load(conversation_id)

    def take(self, conversation: Conversation) -> None:
        """Make a loaded conversation the current one; no reply may be under way."""
        self.conversation = conversation
        self._unsaved = []
        if (sampling := self._last_drawn_with()) is not None:
            self.set_sampling(sampling)

    async def change(self, conversation: Conversation) -> SaveFailed | None:
        """Take a changed version of the current conversation, and save what changed.

        Another leaf, an edited or deleted message, a title, a system text. An empty conversation
        is saved with its first message.
        """
        before = self.conversation.messages
        self.conversation = conversation
        now = self.conversation.messages  # with what a reply under way says by now
        self._unsaved += [one for id_, one in now.items() if before.get(id_) is not one]
        return await self._save() if now else None

    def _last_drawn_with(self) -> SamplingParams | None:
        """The settings at the end of the newest drawn reply of the path; None where none was."""
        replies = [message.reply for message in reversed(self.conversation.path())]
        reply = next((one for one in replies if one is not None and _is_drawn(one)), None)
        if reply is None:
            return None
        sampling = reply.sampling[-1].sampling
        if sampling.end == "force":  # it was for that reply alone
            sampling = replace(sampling, end="allow")
        if self.facts is not None and self.facts.sha256 != reply.model_sha256:
            sampling = replace(sampling, banned=(), logit_bias=())  # ids of another model
        return sampling

    def set_sampling(self, sampling: SamplingParams) -> None:
        """Draw with these from the next token on, of the running reply too."""
        self.sampling = sampling
        if self._generation is not None:
            self._generation.set_sampling(sampling)

    def cancel(self) -> None:
        if self._generation is not None:
            self._generation.cancel()

    def pause(self) -> None:
        if self._generation is not None:
            self._generation.pause()

    def resume(self) -> None:
        if self._generation is not None:
            self._generation.resume()

    def step(self, token_ids: Sequence[int] = ()) -> None:
        if self._generation is not None:
            self._generation.step(token_ids)

    async def keep(self, text: str) -> tuple[Message, SaveFailed | None]:
        """Add a message of the user's, and ask for no reply."""
        first = not any(message.role == "user" for message in self.conversation.path())
        if first and not self.conversation.title:
            self.conversation = replace(self.conversation, title=title_from(text))
        return self._add("user", text), await self._save()

    async def send(self, text: str) -> AsyncGenerator[TurnEvent]:
        """Say something and stream the reply."""
        message, failed = await self.keep(text)
        if failed:
            yield failed
        yield MessageAdded(message)
        async with contextlib.aclosing(self._reply(message.id)) as events:
            async for event in events:
                yield event

    async def regenerate(self, message_id: str | None = None) -> AsyncGenerator[TurnEvent]:
        """Stream another reply beside an assistant's message (the last one by default)."""
        parent = self.parent_for_reply(message_id)
        async with contextlib.aclosing(self._reply(parent)) as events:
            async for event in events:
                yield event

    async def continue_reply(self, message_id: str) -> AsyncGenerator[TurnEvent]:
        """Go on from the exact ids of a reply that was cut; the old one stays beside it."""
        last = len(self._reply_of(message_id).records)
        async with contextlib.aclosing(self.branch(message_id, last, ())) as events:
            async for event in events:
                yield event

    async def branch(
        self, message_id: str, index: int, token_ids: Sequence[int]
    ) -> AsyncGenerator[TurnEvent]:
        """Take other tokens at a point of a reply, in order, and go on from there."""
        reply = self._reply_of(message_id)
        parent = self.parent_for_reply(message_id)
        kept = reply.records[:index]
        if index >= len(reply.records):
            kept, shown = kept_to_continue(reply, self._message(message_id).text)
            pieces = await self.engine.tokenize(shown, inside=True) if shown else ()
            token_ids = (*(piece.id for piece in pieces), *token_ids)
        listed = reply.records[index].candidates if index < len(reply.records) else ()
        texts = {candidate.id: candidate.bytes for candidate in listed}
        async with contextlib.aclosing(
            self._reply(
                parent,
                kept=kept,
                base=reply,
                forced=tuple(token_ids),
                forced_bytes=tuple(texts.get(token_id, b"") for token_id in token_ids),
            )
        ) as events:
            async for event in events:
                yield event

    async def reply_from(self, parent: str | None, text: str) -> AsyncGenerator[TurnEvent]:
        """Stream a reply to a message that begins with a text.

        Of the text, what a reply beside it begins with is taken over in its very tokens.
        """
        facts, kept, rest, base = self.facts, tuple[TokenRecord, ...](), text, None
        for beside in self.conversation.children(parent):
            reply = beside.reply
            if reply is None or facts is None or reply.model_sha256 != facts.sha256:
                continue
            records, left = kept_to_continue(reply, beside.text)
            if sanitise(beside.text) != text:
                records, left = kept_within(records, text, facts.control_ids)
            if len(records) > len(kept):
                kept, rest, base = records, left, reply
        pieces = await self.engine.tokenize(rest, inside=True) if rest else ()
        forced = tuple(piece.id for piece in pieces)
        spelt = tuple(piece.bytes for piece in pieces)
        events = self._reply(
            parent, kept=kept, base=base, forced=forced, forced_bytes=spelt, limits_forced=False
        )
        async with contextlib.aclosing(events):
            async for event in events:
                yield event

    async def adopt(self, reply: Reply, parent: str | None) -> AsyncGenerator[TurnEvent]:
        """Make a reply that came another way (a compared column, a beam) an answer to a message.

        It stands beside the other answers and is saved like them.
        """
        if self._generation is not None:
            raise EngineError("a reply is already under way; stop it first with Esc")
        if not reply.records:
            raise EngineError("this reply has no tokens yet, so there is nothing to take")
        if reply.finish_reason is None:  # it was still being written when it was taken
            reply = replace(reply, finish_reason=FinishReason.CANCELLED)
        text = "".join(record.text for record in reply.records)
        message = self._add("assistant", text, parent=parent, reply=reply)
        self.conversation = replace(self.conversation, model=reply.model)
        if failed := await self._save():
            yield failed
        yield MessageAdded(message)
        yield ReplyEnded(message)

    def options(self, sampling: SamplingParams | None = None) -> GenerateOptions:
        """What the next reply would be asked for with; other sampling parameters if given."""
        seed = self.seed if self.seed is not None else random.SystemRandom().getrandbits(48)
        return GenerateOptions(
            sampling=sampling or self.sampling,
            seed=seed,
            max_tokens=self.max_tokens,
            stop=(*self.stop, *self.conversation.stop),
            top_logprobs=self.top_logprobs,
            trace=self.trace,
        )

    def written(self, message_id: str) -> WrittenReply:
        """A reply as the engine can be asked about it, up to its newest token.

        Raises EngineError: the message has no tokens, or another model wrote them.
        """
        running = self._growing is not None and message_id == self._growing_id
        return self.as_written((self.reply if running else self._reply_of)(message_id))

    def as_written(self, reply: Reply) -> WrittenReply:
        """A reply to the conversation, one that is no message of it too, as the engine wants it."""
        stop = (*self.stop, *self.conversation.stop)
        return WrittenReply.of(reply, stop, self._formats(self.conversation.format))

    def reply(self, message_id: str) -> Reply:
        """A message's reply, up to its newest token. Raises EngineError: no model wrote it."""
        if self._growing is not None and message_id == self._growing_id:
            return self._growing.reply()  # its prompt is known before its first token
        reply = self._message(message_id).reply
        if reply is None:
            raise EngineError("no model wrote this message")
        return reply

    def prompt_for(
        self,
        leaf: str | None,
        kept: tuple[TokenRecord, ...] = (),
        of: Conversation | None = None,
    ) -> Prompt:
        """What the model reads after that message (and the kept start of a reply to it).

        `of`: a conversation besides the current one.

        Raises EngineError: the message is not in the conversation.
        """
        if leaf is not None and of is None:
            self._message(leaf)
        conversation = of or self.conversation
        # A reply that was stopped before its first token says nothing to the model.
        path = [m for m in conversation.path_to(leaf) if m.text or m.reply is None]
        turns = [_turn(message, self.facts) for message in path]
        if kept:
            text = "".join(record.text for record in kept)
            turns.append(Turn("assistant", text, tuple(record.id for record in kept)))
        return Prompt(
            system=conversation.system,
            turns=tuple(turns),
            format=self._formats(conversation.format),
            continue_reply=bool(kept),
            moment=conversation.created,
            think=conversation.think,
        )

    async def _reply(
        self,
        parent: str | None,
        *,
        kept: tuple[TokenRecord, ...] = (),
        base: Reply | None = None,
        forced: tuple[int, ...] = (),
        forced_bytes: tuple[bytes, ...] = (),
        limits_forced: bool = True,
    ) -> AsyncGenerator[TurnEvent]:
        """The one streaming path: ask, pass on what comes, save it as it comes.

        `limits_forced`: whether the most tokens a reply may have count those that are forced.
        """
        if self._generation is not None:
            raise EngineError("a reply is already under way; stop it first with Esc")
        start = self.empty_reply()
        options = replace(self.options(), forced_ids=forced, forced_bytes=forced_bytes)
        if options.max_tokens and not limits_forced:
            options = replace(options, max_tokens=options.max_tokens + len(forced))
        generation = self.engine.generate(self.prompt_for(parent, kept), options)
        self._generation = generation  # from here on a stop or a change reaches it
        start = replace(
            start,
            seed=options.seed,
            sampling=spans_before(base, len(kept)),
            thinking=base.thinking if base is not None and kept else None,
        )
        growing = GrowingReply(start, self.sampling, kept)
        message = self._add("assistant", growing.text, parent=parent, reply=growing.reply())
        self._growing, self._growing_id = growing, message.id
        self.conversation = replace(self.conversation, model=start.model)
        notice = ""
        try:
            if failed := await self._save():
                yield failed
            yield MessageAdded(message)
            saved = saved_meanwhile(generation, self._save_news, SAVE_EVERY_SECONDS, self._sleep)
            async with contextlib.aclosing(saved) as events:
                async for event in events:
                    if not isinstance(event, SaveFailed):
                        growing.take(event)
                    if isinstance(event, GenerationEnd):
                        notice = event.message
                        break
                    yield event
        except EngineError as error:
            growing.fail(str(error))
            notice = str(error)
        finally:
            # Also when the iteration is abandoned (the program is closing): what came is kept.
            self._fold(growing)
            self._generation = self._growing = None
            generation.cancel()
            self._unsaved.append(self.conversation.messages[message.id])
            failed = await self._save()
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
        self._unsaved.append(message)
        return message

    def _message(self, message_id: str) -> Message:
        """A message of the current conversation. Raises EngineError."""
        if (message := self.conversation.messages.get(message_id)) is None:
            raise EngineError("this message is not in the open chat any more")
        return message

    def _reply_of(self, message_id: str) -> Reply:
        """A reply that the loaded model can go on from, or be asked about, by its ids.

        Raises EngineError: the message has no tokens, or another model wrote them.
        """
        reply = self._message(message_id).reply
        if reply is None or not reply.records:
            raise EngineError("this message has no tokens to go on from; regenerate it instead")
        if self.facts is None or reply.model_sha256 != self.facts.sha256:
            raise EngineError(f"{reply.model} wrote this reply; load it to go on from its tokens")
        return reply

    def empty_reply(self) -> Reply:
        """A reply of the loaded model before its first token. Raises EngineError without one."""
        if (facts := self.facts) is None:
            raise EngineError("no model is loaded; choose one with Ctrl+L or /model")
        return Reply(model=facts.name, model_sha256=facts.sha256, runtime=facts.runtime, seed=0)

    def parent_for_reply(self, message_id: str | None = None) -> str | None:
        """The message that a new reply answers: beside that reply, or to that message.

        `message_id`: a reply, or a message of the user's; None is the current leaf. Raises
        EngineError: there is no message yet, or it is not in the conversation.
        """
        leaf = message_id if message_id is not None else self.conversation.leaf
        if leaf is None:
            raise EngineError("there is nothing to answer yet; write a message first")
        message = self._message(leaf)
        return message.parent if message.role == "assistant" else message.id

    def _fold(self, growing: GrowingReply) -> None:
        """Put what has come of the reply under way into the conversation; the leaf stays."""
        message = self._conversation.messages[self._growing_id]
        current = replace(message, text=growing.text, reply=growing.reply())
        leaf = self._conversation.leaf
        self._conversation = self._conversation.with_message(current).at(leaf)

    async def _save(self) -> SaveFailed | None:
        """Give the store the settings, and the messages that it was not given yet."""
        if self.store is None:
            return None
        conversation, unsaved, failed = self.conversation, self._unsaved, None
        try:
            await self.store.save_conversation(conversation)
        except StoreError as error:
            failed = SaveFailed(str(error))
        while unsaved:
            message = unsaved.pop(0)
            if message.id == self._growing_id and message.reply is not None:
                self._given = len(message.reply.records)
            try:
                await self.store.save_message(conversation.id, message)
            except StoreError as error:
                failed = SaveFailed(str(error))
        return failed

    async def _save_news(self) -> SaveFailed | None:
        """Give the store the records of the reply under way that it was not given yet."""
        growing, message = self._growing, self._conversation.messages.get(self._growing_id)
        if not (self.store and growing and message) or growing.count == self._given:
            return None
        news = replace(message, text=growing.text, reply=growing.reply(self._given))
        self._given = growing.count
        try:
            await self.store.append(self._conversation.id, news)
        except StoreError as error:
            return SaveFailed(str(error))
        return None


def _is_drawn(reply: Reply) -> bool:
    """Whether a reply's settings are somebody's: other decoders' replies carry the neutral ones."""
    if not reply.sampling:
        return False
    neutral = reply.sampling[-1].sampling == PLAIN
    return not neutral or any(record.draw is not None for record in reply.records)


def _turn(message: Message, facts: ModelFacts | None) -> Turn:
    """A message as the model reads it.

    The ids that a model wrote are given back to that same model as they are: text would be split
    anew, perhaps differently, and then neither the KV cache nor the reply's numbers would hold.
    """
    reply = message.reply
    if reply is None or facts is None or reply.model_sha256 != facts.sha256:
        return Turn(message.role, message.text)
    ids = reply.ids
    if ids and ids[-1] in facts.end_ids:
        ids = ids[:-1]  # the format writes the end of a turn itself
    if reply.finish_reason is FinishReason.STOP_SEQUENCE:
        return Turn(message.role, message.text)  # its ids hold the stop sequence too
    return Turn(message.role, message.text, ids or None)
