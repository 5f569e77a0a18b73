"""Messages that are sent while a reply streams wait for its end; nothing of them is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Static

from chatapp.ui.app import ChatApp
from chatapp.ui.chat.screen import ChatScreen
from chatapp.ui.widgets.prompt import PromptInput
from tests.ui.host import make_app, make_services, ready, until
from tests.ui.kept import open_store
from tests.ui.scripted import ScriptedEngine

SIZE = (100, 30)


def said(chat: ChatScreen) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in chat.session.conversation.path()]


def waiting(chat: ChatScreen) -> str:
    return str(chat.query_one("#waiting", Static).render())


async def stream(pilot: Pilot[Any], chat: ChatScreen, *messages: str) -> None:
    """Send messages; the reply to the first one is under way at the end."""
    for text in messages:
        chat.post_message(PromptInput.Submitted(text))
    await until(pilot, lambda: chat.turns.busy, "the reply")
    await pilot.pause()


async def test_they_are_sent_in_their_order() -> None:
    engine = ScriptedEngine("One.", "Two.", "Three.", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await stream(pilot, chat, "first", "second", "third")
        await until(pilot, lambda: "waits: third" in waiting(chat), "the line")
        assert "waits: second" in waiting(chat)
        engine.allow_all()
        await until(pilot, lambda: len(said(chat)) == 6 and not chat.turns.busy, "all of them")
        assert said(chat) == [
            ("user", "first"), ("assistant", "One."), ("user", "second"),
            ("assistant", "Two."), ("user", "third"), ("assistant", "Three."),
        ]  # fmt: skip
        assert not chat.query_one("#waiting").display


async def test_they_go_back_into_the_prompt_by_a_key_and_where_the_reply_is_stopped() -> None:
    engine = ScriptedEngine("One.", "Two.", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await stream(pilot, chat, "first", "second", "third")
        await pilot.press(*"dra", "alt+up")
        assert chat.prompt.text == "second\n\nthird\n\ndra"
        assert chat.turns.busy
        chat.prompt.take("")
        await stream(pilot, chat, "again")
        engine.allow(1)
        await pilot.press("escape")
        await until(pilot, lambda: not chat.turns.busy, "the stop")
        assert chat.prompt.text == "again"
        assert [text for role, text in said(chat) if role == "user"] == ["first"]


async def test_they_are_the_draft_of_their_chat_when_another_is_opened(tmp_path: Path) -> None:
    engine = ScriptedEngine("One.", held=True)
    async with open_store(tmp_path) as store:
        app = ChatApp(make_services(engine, store=store))
        async with app.run_test(size=SIZE) as pilot:
            chat = await ready(pilot)
            await stream(pilot, chat, "first", "second")
            before = chat.session.conversation.id
            await pilot.press("ctrl+n")
            await until(pilot, lambda: chat.session.conversation.id != before, "the new chat")
            assert chat.prompt.text == ""
            await chat.conversations.open(before)
            await until(pilot, lambda: chat.prompt.text == "second", "the draft")


async def test_they_stand_in_the_chat_when_the_program_ends(tmp_path: Path) -> None:
    engine = ScriptedEngine("One.", held=True)
    async with open_store(tmp_path) as store:
        app = ChatApp(make_services(engine, store=store))
        async with app.run_test(size=SIZE) as pilot:
            chat = await ready(pilot)
            await stream(pilot, chat, "first", "second")
            await app.action_quit()
        (summary,) = await store.list_conversations()
        kept = await store.load(summary.id)
        assert [m.text for m in kept.path() if m.role == "user"] == ["first", "second"]
