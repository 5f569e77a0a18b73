"""The model titles a conversation once, never over a user's title, and gives way."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from chatapp.chat.prompt import PromptFormat
from chatapp.chat.record import FinishReason
from chatapp.chat.template import TemplateError
from chatapp.session.session import Session
from chatapp.session.titles import TitleWriter
from tests.session.test_session import WAIT, Store, collect, start
from tests.ui.scripted import ScriptedEngine


async def begun(engine: ScriptedEngine, store: Store | None = None) -> tuple[Session, TitleWriter]:
    """A session with one exchange in it."""
    session = await start(engine, store)
    titles = TitleWriter(session, PromptFormat)
    assert not titles.is_wanted
    await collect(session.send("how do I prune a plum tree"))
    return session, titles


async def until_asked(engine: ScriptedEngine, writing: asyncio.Future[object]) -> None:
    """Let the writing of a title go on until it has asked the engine."""
    while len(engine.requests) < 2:
        await asyncio.wait([writing], timeout=0)


async def test_a_conversation_gets_a_title_once() -> None:
    engine, store = ScriptedEngine("Gently.", "Pruning plum trees", "Another one"), Store()
    session, titles = await begun(engine, store)
    assert titles.is_wanted
    assert await titles.write() is None
    assert session.conversation.title == "Pruning plum trees"
    assert store.conversations[session.conversation.id].title == "Pruning plum trees"
    _, options = engine.requests[-1]
    assert options.is_aside and options.sampling.temperature == 0
    assert not titles.is_wanted
    await titles.write()
    assert len(engine.requests) == 2
    assert len(session.conversation.messages) == 2


async def test_what_is_no_title_changes_nothing_and_is_not_asked_for_again() -> None:
    engine = ScriptedEngine("Gently.", "...")
    session, titles = await begun(engine)
    await titles.write()
    assert session.conversation.title == "how do I prune a plum tree"
    assert not titles.is_wanted
    engine = ScriptedEngine("Gently.", "A sentence that goes on and")
    session, titles = await begun(engine)
    engine.reason = FinishReason.LENGTH
    await titles.write()
    assert session.conversation.title == "how do I prune a plum tree"


async def test_a_title_by_hand_stays_also_when_it_comes_in_between() -> None:
    engine = ScriptedEngine("Gently.", "Pruning plum trees")
    session, titles = await begun(engine)
    engine.hold()
    writing = asyncio.ensure_future(titles.write())
    async with asyncio.timeout(WAIT):
        await until_asked(engine, writing)
        engine.allow(2)
        await session.change(replace(session.conversation, title="My garden"))
        engine.allow_all()
        await writing
    assert session.conversation.title == "My garden"
    assert not titles.is_wanted


async def test_another_conversation_does_not_get_the_title_of_the_first() -> None:
    engine = ScriptedEngine("Gently.", "Pruning plum trees", "Fine.")
    session, titles = await begun(engine)
    engine.hold()
    writing = asyncio.ensure_future(titles.write())
    async with asyncio.timeout(WAIT):
        await until_asked(engine, writing)
        session.conversation = replace(session.conversation, id="another")
        engine.allow_all()
        await writing
    assert session.conversation.title == "how do I prune a plum tree"


async def test_it_gives_way_and_may_be_asked_again() -> None:
    engine = ScriptedEngine("Gently.", "Pruning plum trees", "Plum trees")
    session, titles = await begun(engine)
    engine.hold()
    writing = asyncio.ensure_future(titles.write())
    async with asyncio.timeout(WAIT):
        await until_asked(engine, writing)
        titles.cancel()
        await writing
        assert session.conversation.title == "how do I prune a plum tree"
        assert titles.is_wanted
        engine.allow_all()
        await titles.write()
    assert session.conversation.title == "Plum trees"


async def test_an_engine_that_dies_leaves_the_first_words() -> None:
    engine = ScriptedEngine("Gently.", "Pruning plum trees")
    session, titles = await begun(engine)
    engine.dead = True
    assert await titles.write() is None
    assert session.conversation.title == "how do I prune a plum tree"


async def test_a_conversation_whose_format_is_gone_keeps_its_first_words() -> None:
    def gone(name: str) -> PromptFormat:
        raise TemplateError(f"no format is called {name!r}")

    session, _ = await begun(ScriptedEngine("Gently.", "Pruning plum trees"))
    titles = TitleWriter(session, gone)
    assert await titles.write() is None
    assert session.conversation.title == "how do I prune a plum tree"
    assert not titles.is_wanted
