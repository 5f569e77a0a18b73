"""The chat as one text: edited anywhere, and gone on from there."""

from __future__ import annotations

from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from chatapp.ui.app import ChatApp
from chatapp.ui.dialogs.notebook import NotebookScreen
from tests.ui.host import MemoryStore, ask, make_app, ready, say, shown, until
from tests.ui.scripted import ScriptedEngine

SIZE = (100, 30)


async def opened(pilot: Pilot[Any]) -> NotebookScreen:
    """Open the chat as one text."""
    app = pilot.app
    assert isinstance(app, ChatApp)
    await say(pilot, "/notebook")
    await until(pilot, lambda: isinstance(app.screen, NotebookScreen), "the text")
    await pilot.pause()
    screen = app.screen
    assert isinstance(screen, NotebookScreen)
    return screen


def words(screen: NotebookScreen) -> str:
    return str(screen.query_one("#notebook-words", Static).content)


async def test_a_word_of_a_reply_is_changed_and_the_model_goes_on_there() -> None:
    engine = ScriptedEngine("Red and blue.", " yes", held=True)
    engine.allow(50)
    app = make_app(engine, store=MemoryStore())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Colours?")
        old = chat.session.conversation.path()[-1]
        engine.hold()
        screen = await opened(pilot)
        assert screen.area.text == "=== user\nColours?\n\n=== assistant\nRed and blue."
        await pilot.press(*["backspace"] * 5, *"green", "ctrl+r")
        await until(pilot, lambda: len(engine.requests) == 2, "the request")
        prompt, options = engine.requests[-1]
        assert old.reply is not None
        # Its first tokens are read back as they are; only what was changed is cut into tokens anew.
        assert prompt.turns[-1].ids == old.reply.ids[:2]
        assert prompt.continue_reply and len(options.forced_ids) == 1
        engine.allow(1)
        await until(pilot, lambda: screen.area.text.endswith("Red and forced"), "a token")
        assert screen.area.read_only and "esc stops it" in words(screen)
        engine.allow_all()
        await until(pilot, lambda: not screen.area.read_only, "the end")
        assert screen.area.text.endswith("=== assistant\nRed and forced yes")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is chat, "the chat")
        assert "Red and forced yes" in shown(chat) and "2/2" in shown(chat)
        assert chat.session.conversation.messages[old.id] == old


async def test_it_goes_on_at_the_cursor() -> None:
    engine = ScriptedEngine("One two three.", " four")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Count")
        await opened(pilot)
        await pilot.press(*["left"] * 7, "ctrl+t")
        await until(pilot, lambda: len(engine.requests) == 2 and not chat.turns.busy, "the reply")
        assert engine.requests[-1][1].forced_ids == ()
        assert chat.session.conversation.path()[-1].text == "One two four"


async def test_a_chat_is_written_from_nothing_and_answered() -> None:
    engine = ScriptedEngine("Ahoy!")
    app = make_app(engine, store=MemoryStore())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        screen = await opened(pilot)
        assert screen.area.text == "=== user\n"
        await pilot.press("ctrl+r")
        assert "nothing to go on from" in words(screen)
        screen.area.text = (
            "=== system\nA pirate.\n\n=== user\nHi\n\n=== assistant\nArr\n\n=== user\nHo"
        )
        await pilot.press("ctrl+r")
        await until(pilot, lambda: screen.area.text.endswith("=== assistant\nAhoy!"), "the reply")
        prompt = engine.requests[-1][0]
        assert prompt.system == "A pirate."
        assert [turn.text for turn in prompt.turns] == ["Hi", "Arr", "Ho"]
        assert chat.session.conversation.title == "Hi"
        assert "A pirate." in shown(chat) and "Arr" in shown(chat)


async def test_what_is_only_kept_is_not_answered_and_what_is_not_kept_is_asked_about() -> None:
    engine = ScriptedEngine("Answer.")
    app = make_app(engine, store=MemoryStore())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Question")
        screen = await opened(pilot)
        screen.area.text = "nonsense"
        await pilot.press("ctrl+s")
        assert "line 1: a turn begins with a line === user" in words(screen)
        assert chat.session.conversation.path()[-1].text == "Answer."
        screen.area.text = "=== user\nQuestion!\n\n=== assistant\nAnswer."
        await pilot.press("escape")
        assert "not kept yet" in words(screen) and app.screen is screen
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "kept; the words before" in words(screen), "the words")
        assert [m.text for m in chat.session.conversation.path()] == ["Question!", "Answer."]
        assert len(engine.requests) == 1
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is chat, "the chat")
        assert "Question!" in shown(chat)


@pytest.mark.parametrize("key", ["ctrl+r", "ctrl+t"])
async def test_a_failure_is_told_there_and_the_text_stays(key: str) -> None:
    engine = ScriptedEngine("Answer.")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Question")
        before = chat.session.conversation
        screen = await opened(pilot)
        engine.dead = True
        await pilot.press(*" and", key)
        await until(pilot, lambda: "the engine process ended" in words(screen), "the words")
        assert screen.area.text.endswith("=== assistant\nAnswer. and")
        assert not screen.area.read_only
        assert chat.session.conversation == before


async def test_esc_stops_the_reply_and_what_came_is_kept() -> None:
    engine = ScriptedEngine("One two three four", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        screen = await opened(pilot)
        await pilot.press(*"Hi", "ctrl+r")
        engine.allow(2)
        await until(pilot, lambda: screen.area.text.endswith("One two"), "two tokens")
        await pilot.press(*"xyz", "escape")
        await until(pilot, lambda: not screen.area.read_only, "the stop")
        assert app.screen is screen
        assert screen.area.text == "=== user\nHi\n\n=== assistant\nOne two"
        assert chat.session.conversation.path()[-1].text == "One two"


async def test_what_a_terminal_would_obey_is_shown_and_stays_as_it_was() -> None:
    told = "Red \x1b[2J and \u202eblue."
    app = make_app(ScriptedEngine(told, " Yes."), vim=True)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Colours?")
        old = chat.session.conversation.path()[-1]
        screen = await opened(pilot)
        assert screen.area.text.endswith("Red ␛[2J and ⟨U+202E⟩blue.")
        await pilot.press("escape", *"GoMore.", "ctrl+r")  # o begins a row in Vim's normal mode
        await until(pilot, lambda: not chat.turns.busy and len(chat.transcript.messages) == 2, "it")
        await until(pilot, lambda: not screen.area.read_only, "the end")
        assert chat.session.conversation.messages[old.id].text == told
        await pilot.press("escape", "escape")
        await until(pilot, lambda: app.screen is chat, "the chat")
