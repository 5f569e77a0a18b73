"""A turn, with an engine that writes what the test tells it and a store that may fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from chatapp.chat.conversation import Conversation, Message, Reply
from chatapp.chat.errors import EngineError, StoreError
from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.chat.generation import PromptRead, TokenStep
from chatapp.chat.prompt import PromptFormat
from chatapp.chat.record import FinishReason, SamplingSpan
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.template import NO_TEMPLATE
from chatapp.session.saving import SaveFailed
from chatapp.session.session import MessageAdded, ReplyEnded, Session, TurnEvent
from chatapp.store.chats import grown
from tests.ui.scripted import END_ID, FACTS, ScriptedEngine, make_records, token_id

WAIT = 60.0


class Store:
    """Remembers every save, in order; fails while told to, and holds on to what it was given."""

    def __init__(self) -> None:
        self.conversations: dict[str, Conversation] = {}
        self.messages: dict[str, Message] = {}
        self.saves: list[Message] = []
        self.failure = ""
        self._waiting: dict[str, Message] = {}
        self._changed = asyncio.Event()

    async def saved(self, text: str) -> None:
        """Wait until the message that was saved last says this."""
        while not self.saves or self.saves[-1].text != text:
            self._changed.clear()
            await self._changed.wait()

    async def save_conversation(self, conversation: Conversation) -> None:
        self._check()
        self.conversations[conversation.id] = conversation

    async def save_message(self, conversation_id: str, message: Message) -> None:
        self._waiting[message.id] = message
        self._check()
        self.messages |= self._waiting
        self.saves += self._waiting.values()
        self._waiting.clear()
        self._changed.set()

    async def append(self, conversation_id: str, message: Message) -> None:
        before = self._waiting.get(message.id) or self.messages[message.id]
        await self.save_message(conversation_id, grown(before, message))

    async def load(self, conversation_id: str) -> Conversation:
        return self.conversations[conversation_id]

    async def latest(self) -> str | None:
        return next(reversed(self.conversations), None)

    async def resolve(self, prefix: str) -> str:
        return prefix

    async def close(self) -> None:
        pass

    def _check(self) -> None:
        if self.failure:
            raise StoreError(self.failure)


class Timer:
    """Seconds that pass only when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps = asyncio.Semaphore(0)
        """One more for every sleep that was begun."""
        self._waiting: list[tuple[float, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        until: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((self.now + seconds, until))
        self.sleeps.release()
        await until

    def let_pass(self, seconds: float) -> None:
        self.now += seconds
        for when, until in self._waiting:
            if when <= self.now and not until.done():
                until.set_result(None)


async def start(
    engine: ScriptedEngine, store: Store | None = None, timer: Timer | None = None
) -> Session:
    session = Session(
        engine,
        store,
        template=NO_TEMPLATE,
        formats=PromptFormat,
        sampling=SamplingParams(),
        seed=7,
        clock=lambda: 1000.0,
        sleep=(timer or Timer()).sleep,
    )
    await session.load_model(ModelSource("m", "/nowhere", "gguf"), LoadOptions(), lambda _: None)
    return session


async def collect(events: AsyncIterator[TurnEvent]) -> list[TurnEvent]:
    return [event async for event in events]


def reply_of(session: Session) -> Reply:
    reply = session.conversation.path()[-1].reply
    assert reply is not None
    return reply


async def test_the_message_is_on_disk_before_the_model_is_asked() -> None:
    engine, store = ScriptedEngine("Hello there.", held=True), Store()
    session = await start(engine, store)
    turn = aiter(session.send("hi"))
    assert isinstance(await anext(turn), MessageAdded)
    assert engine.requests == []
    assert [message.text for message in store.saves] == ["hi"]
    engine.allow_all()
    events = [event async for event in turn]
    assert isinstance(events[-1], ReplyEnded)
    said, answered = session.conversation.path()
    assert (said.text, answered.text) == ("hi", "Hello there.")
    assert store.messages[answered.id] == answered
    assert session.conversation.title == "hi"


async def test_a_streaming_reply_is_saved_at_least_each_second() -> None:
    engine, store, timer = ScriptedEngine("one two three four five six"), Store(), Timer()
    session = await start(engine, store, timer)
    came: list[float] = []
    async for event in session.send("count"):
        if isinstance(event, TokenStep):
            came.append(timer.now)
            saved = store.messages[session.conversation.path()[-1].id].reply
            assert saved is not None and saved.finish_reason is None
            assert all(timer.now - when <= 1.0 for when in came[len(saved.records) :])
            timer.let_pass(0.4)
    assert reply_of(session).finish_reason is FinishReason.STOP
    streamed = [message for message in store.saves if message.role == "assistant"]
    assert len(streamed) >= 4
    lengths = [len(message.text) for message in streamed]
    assert lengths == sorted(lengths)


async def until_token(turn: AsyncIterator[TurnEvent], index: int) -> None:
    async for event in turn:
        if isinstance(event, TokenStep) and event.record.index == index:
            return


async def test_what_came_is_saved_within_a_second_also_when_the_engine_stalls() -> None:
    engine, store, timer = ScriptedEngine("one two three", held=True), Store(), Timer()
    session = await start(engine, store, timer)
    turn = aiter(session.send("count"))
    async with asyncio.timeout(WAIT):
        engine.allow(2)
        await until_token(turn, 1)
        await timer.sleeps.acquire()
        coming = asyncio.ensure_future(anext(turn))  # the third token, which does not come
        timer.let_pass(1.0)
        await timer.sleeps.acquire()  # it waits again, so the time was noticed
        await store.saved("one two")
        saves = len(store.saves)
        timer.let_pass(1.0)
        await timer.sleeps.acquire()
        timer.let_pass(1.0)
        await timer.sleeps.acquire()
        assert len(store.saves) == saves  # nothing came, nothing is written
        assert not coming.done()
        engine.allow_all()
        assert isinstance(await coming, TokenStep)
        await collect(turn)
    assert store.messages[session.conversation.path()[-1].id].text == "one two three"


async def test_a_slow_disk_holds_no_token_up_and_gets_each_record_once() -> None:
    class SlowStore(Store):
        def __init__(self) -> None:
            super().__init__()
            self.given: list[list[int]] = []
            self.ready = asyncio.Event()

        async def append(self, conversation_id: str, message: Message) -> None:
            assert message.reply is not None
            self.given.append([record.index for record in message.reply.records])
            await self.ready.wait()
            await super().append(conversation_id, message)

    engine, store, timer = ScriptedEngine("one two three four", held=True), SlowStore(), Timer()
    session = await start(engine, store, timer)
    turn = aiter(session.send("count"))
    async with asyncio.timeout(WAIT):
        engine.allow(2)
        await until_token(turn, 1)
        await timer.sleeps.acquire()
        engine.allow(1)
        timer.let_pass(1.0)
        await until_token(turn, 2)  # while the disk is at the first two
        assert session.conversation.path()[-1].text == "one two three"
        store.ready.set()
        await timer.sleeps.acquire()
        timer.let_pass(1.0)
        await timer.sleeps.acquire()
        assert store.given == [[0, 1], [2]]
        assert store.saves[-1].text == "one two three"
        engine.allow_all()
        await collect(turn)
    assert store.messages[session.conversation.path()[-1].id].text == "one two three four"


async def test_a_save_that_fails_while_the_engine_stalls_is_said_at_once() -> None:
    engine, store, timer = ScriptedEngine("one two", held=True), Store(), Timer()
    session = await start(engine, store, timer)
    turn = aiter(session.send("count"))
    async with asyncio.timeout(WAIT):
        engine.allow(1)
        await until_token(turn, 0)
        store.failure = "the disk is full"
        timer.let_pass(1.0)
        assert await anext(turn) == SaveFailed("the disk is full")
        store.failure = ""
        engine.allow_all()
        await collect(turn)
    assert store.messages[session.conversation.path()[-1].id].text == "one two"


async def test_a_stop_before_the_first_token_leaves_an_empty_reply_that_says_so() -> None:
    engine, store = ScriptedEngine("never seen", held=True), Store()
    session = await start(engine, store)
    events = []
    async with asyncio.timeout(WAIT):
        async for event in session.send("hi"):
            events.append(event)
            if isinstance(event, PromptRead):
                session.cancel()
    assert not any(isinstance(event, TokenStep) for event in events)
    reply = reply_of(session)
    assert reply.records == ()
    assert reply.finish_reason is FinishReason.CANCELLED
    assert store.messages[session.conversation.path()[-1].id].reply == reply
    engine.allow_all()
    await collect(session.send("again"))
    assert len(session.conversation.path()) == 4


async def test_a_stopped_reply_goes_on_from_its_exact_ids() -> None:
    engine = ScriptedEngine("one two three", " four five")
    session = await start(engine, Store())
    async for event in session.send("count"):
        if isinstance(event, TokenStep) and event.record.index == 1:
            session.cancel()
    first = session.conversation.path()[-1]
    kept = first.reply
    assert kept is not None and kept.finish_reason is FinishReason.CANCELLED
    await collect(session.continue_reply(first.id))
    prompt, _ = engine.requests[-1]
    assert prompt.continue_reply
    assert prompt.turns[-1].ids == kept.ids
    longer = session.conversation.path()[-1]
    assert longer.id != first.id and longer.parent == first.parent
    assert longer.reply is not None
    assert longer.reply.ids[: len(kept.ids)] == kept.ids
    assert longer.text == kept_text(kept) + " four five"
    assert [record.index for record in longer.reply.records] == list(
        range(len(longer.reply.records))
    )
    assert session.conversation.messages[first.id] == first


def kept_text(reply: Reply) -> str:
    return "".join(record.text for record in reply.records)


async def test_the_end_token_of_a_complete_reply_is_not_gone_on_from() -> None:
    engine = ScriptedEngine("done", " and more")
    session = await start(engine, Store())
    await collect(session.send("go"))
    message = session.conversation.path()[-1]
    assert message.reply is not None
    end = replace(message.reply.records[-1], index=len(message.reply.records), id=END_ID, text="")
    ended = replace(message.reply, records=(*message.reply.records, end))
    await session.change(session.conversation.with_message(replace(message, reply=ended)))
    await collect(session.continue_reply(message.id))
    assert engine.requests[-1][0].turns[-1].ids == message.reply.ids


async def test_a_branch_keeps_the_ids_before_it_also_inside_an_emoji() -> None:
    emoji = "🦊".encode()
    script = [b"A", b" fox", b" ", emoji[:1], emoji[1:2], emoji[2:], b"!"]
    engine = ScriptedEngine(script, " after")
    session = await start(engine, Store())
    await collect(session.send("draw"))
    message = session.conversation.path()[-1]
    assert message.text == "A fox 🦊!"
    assert message.reply is not None
    place = 4  # one byte of the emoji is there, and three are not
    await collect(session.branch(message.id, place, (999, 998)))
    prompt, options = engine.requests[-1]
    assert prompt.turns[-1].ids == message.reply.ids[:place]
    assert options.forced_ids == (999, 998)
    branched = session.conversation.path()[-1]
    assert branched.reply is not None
    assert branched.reply.ids[:place] == tuple(map(token_id, script[:place]))
    assert branched.parent == message.parent
    assert session.conversation.messages[message.id] == message
    assert len(session.conversation.siblings(message.id)) == 2


async def test_regenerating_makes_a_sibling() -> None:
    engine = ScriptedEngine("first", "second")
    session = await start(engine, Store())
    await collect(session.send("hi"))
    first = session.conversation.path()[-1]
    await collect(session.regenerate())
    second = session.conversation.path()[-1]
    assert (first.text, second.text) == ("first", "second")
    assert first.parent == second.parent
    assert [turn.text for turn in engine.requests[-1][0].turns] == ["hi"]


async def test_a_dead_engine_leaves_what_came_and_the_conversation_goes_on() -> None:
    engine, store = ScriptedEngine("one two three", "fine again"), Store()
    session = await start(engine, store)
    events = []
    async for event in session.send("hi"):
        events.append(event)
        if isinstance(event, TokenStep) and event.record.index == 0:
            engine.dead = True
    ended = events[-1]
    assert isinstance(ended, ReplyEnded)
    assert "ended" in ended.notice
    assert ended.message.text == "one"
    assert ended.message.reply is not None
    assert ended.message.reply.finish_reason is FinishReason.ERROR
    assert store.messages[ended.message.id] == ended.message
    assert not session.replying
    await session.load_model(ModelSource("m", "/nowhere", "gguf"), LoadOptions(), lambda _: None)
    await collect(session.send("still there?"))
    assert session.conversation.path()[-1].text == "fine again"


async def test_what_could_not_be_saved_is_said_and_saved_later() -> None:
    engine, store = ScriptedEngine("reply", "other"), Store()
    session = await start(engine, store)
    store.failure = "the disk is full"
    events = await collect(session.send("hi"))
    failures = [event for event in events if isinstance(event, SaveFailed)]
    assert failures and failures[0].message == "the disk is full"
    assert isinstance(events[-1], ReplyEnded)
    assert [message.text for message in session.conversation.path()] == ["hi", "reply"]
    assert store.messages == {}
    store.failure = ""
    events = await collect(session.send("more"))
    assert not any(isinstance(event, SaveFailed) for event in events)
    assert list(store.messages) == [message.id for message in session.conversation.path()]
    assert [message.text for message in store.messages.values()] == ["hi", "reply", "more", "other"]


async def test_abandoning_a_turn_keeps_what_came() -> None:
    engine, store = ScriptedEngine("one two three"), Store()
    session = await start(engine, store)
    turn = session.send("hi")
    async for event in turn:
        if isinstance(event, TokenStep) and event.record.index == 1:
            break
    await turn.aclose()
    assert not session.replying
    assert store.messages[session.conversation.path()[-1].id].text == "one two"


async def test_a_reply_that_came_another_way_is_adopted_like_any_other() -> None:
    engine, store = ScriptedEngine("first"), Store()
    session = await start(engine, store)
    await collect(session.send("hi"))
    first = session.conversation.path()[-1]
    records = make_records("from a column")
    reply = replace(
        session.empty_reply(), records=records, prompt_ids=(1, 2), finish_reason=FinishReason.STOP
    )
    events = await collect(session.adopt(reply, session.parent_for_reply(first.id)))
    assert [type(event) for event in events] == [MessageAdded, ReplyEnded]
    adopted = session.conversation.path()[-1]
    assert adopted.text == "from a column"
    assert adopted.parent == first.parent and adopted.id != first.id
    assert store.messages[adopted.id] == adopted
    assert session.conversation.model == FACTS.name
    written = session.written(adopted.id)
    assert (written.prompt_ids, written.ids) == ((1, 2), reply.ids)
    with pytest.raises(EngineError, match="no tokens yet"):
        await collect(session.adopt(session.empty_reply(), first.parent))


async def test_a_reply_under_way_can_be_asked_about_up_to_its_newest_token() -> None:
    engine = ScriptedEngine("one two three")
    session = await start(engine)
    async for event in session.send("hi"):
        if isinstance(event, TokenStep):
            written = session.written(session.conversation.path()[-1].id)
            assert len(written.ids) == event.record.index + 1
            assert written.ids[-1] == event.record.id


async def test_the_prompt_of_a_reply_under_way_is_known_before_its_first_token() -> None:
    session = await start(ScriptedEngine("one two three"))
    async for event in session.send("hi"):
        if isinstance(event, PromptRead):
            reply = session.reply(session.conversation.path()[-1].id)
            assert (reply.prompt_ids, reply.records) == (event.prompt_ids, ())


async def test_settings_changed_in_mid_reply_are_kept_by_token() -> None:
    engine = ScriptedEngine("one two three four")
    session = await start(engine)
    cold = SamplingParams(temperature=0)
    async for event in session.send("hi"):
        if isinstance(event, TokenStep) and event.record.index == 1:
            session.set_sampling(cold)
    spans = reply_of(session).sampling
    assert [span.start for span in spans] == [0, 2]
    assert spans[1].sampling == cold
    assert session.written(session.conversation.path()[-1].id).sampling_at(3) == cold


async def test_the_start_of_a_continued_reply_is_no_part_of_its_prompt() -> None:
    engine = ScriptedEngine("one two", " three")
    session = await start(engine)
    await collect(session.send("hi"))
    first = session.conversation.path()[-1]
    assert first.reply is not None
    await collect(session.continue_reply(first.id))
    # The scripted engine reads the kept words as its prompt's last two ids, as the real one does.
    assert reply_of(session).prompt_ids == first.reply.prompt_ids


async def test_a_second_reply_at_once_and_a_reply_without_a_model_are_refused() -> None:
    engine = ScriptedEngine("one", held=True)
    session = await start(engine)
    turn = aiter(session.send("hi"))
    async with asyncio.timeout(WAIT):
        while not session.replying:
            await anext(turn)
        with pytest.raises(EngineError, match="already under way"):
            await collect(session.regenerate())
        engine.allow_all()
        async for _ in turn:
            pass
    session.facts = None
    with pytest.raises(EngineError, match="no model is loaded"):
        await collect(session.send("hi"))


async def test_a_message_of_another_conversation_is_refused_in_words() -> None:
    session = await start(ScriptedEngine("one two"), Store())
    await collect(session.send("count"))
    reply = session.conversation.path()[-1].id
    session.new_conversation(NO_TEMPLATE)
    for ask in (session.reply, session.written, session.prompt_for, session.parent_for_reply):
        with pytest.raises(EngineError, match="not in the open chat"):
            ask(reply)
    for turn in (session.regenerate, session.continue_reply):
        with pytest.raises(EngineError, match="not in the open chat"):
            await collect(turn(reply))


def kept_chat(store: Store, sampling: SamplingParams, *, sha256: str = FACTS.sha256) -> None:
    """Put a chat of two messages into the store, whose reply was drawn so at its end."""
    reply = Reply(
        model=FACTS.name,
        model_sha256=sha256,
        seed=1,
        records=make_records("yes"),
        sampling=(SamplingSpan(0, SamplingParams(temperature=2.0)), SamplingSpan(1, sampling)),
    )
    asked = Message(id="a", parent=None, role="user", text="hi", created=0)
    answer = Message(id="b", parent="a", role="assistant", text="yes", created=0, reply=reply)
    conversation = Conversation(id="kept", created=0).with_message(asked).with_message(answer)
    store.conversations["kept"] = conversation


async def test_an_opened_chat_brings_back_what_its_last_reply_was_drawn_with() -> None:
    store = Store()
    session = await start(ScriptedEngine(), store)
    mine = SamplingParams(temperature=0.6, top_k=7, banned=(3,), end="force")
    kept_chat(store, mine)
    await session.open("kept")
    assert session.sampling == replace(mine, end="allow")


async def test_rules_for_single_tokens_do_not_move_to_another_model() -> None:
    store = Store()
    session = await start(ScriptedEngine(), store)
    kept_chat(store, SamplingParams(top_k=7, banned=(3,), logit_bias=((4, 1.0),)), sha256="other")
    await session.open("kept")
    assert session.sampling == SamplingParams(top_k=7)


async def test_an_opened_chat_without_a_drawn_reply_changes_no_setting() -> None:
    store = Store()
    session = await start(ScriptedEngine(), store)
    session.set_sampling(SamplingParams(temperature=0.1))
    store.conversations["kept"] = Conversation(id="kept", created=0)
    await session.open("kept")
    assert session.sampling == SamplingParams(temperature=0.1)
