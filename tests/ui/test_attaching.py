"""Files that are sent with a message: shown with their cost before, refused with the numbers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from textual.widgets import Static

from chatapp.ui.chat.screen import ChatScreen
from tests.ui.host import ask, make_app, notice, ready, say, shown, until
from tests.ui.scripted import ScriptedEngine, split

SIZE = (100, 30)


def line(chat: ChatScreen) -> str:
    """What stands above the prompt about files; empty where nothing does."""
    widget = chat.query_one("#attachments", Static)
    return str(widget.visual) if widget.display else ""


def says(chat: ChatScreen, words: str) -> bool:
    return words in notice(chat)


def refuses(chat: ChatScreen, name: str) -> bool:
    return f"✗ {name}" in line(chat)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "notes.txt"
    file.write_text("Plums are blue.\n")
    return file


@pytest.mark.usefixtures("notes")
async def test_a_file_named_in_the_message_is_counted_and_sent() -> None:
    framed = "``` notes.txt\nPlums are blue.\n```"
    engine = ScriptedEngine("Blue.")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        chat.prompt.take("What colour, see @notes.txt?")
        tokens = len(split(framed))
        await until(pilot, lambda: f"notes.txt ({tokens} tokens, 16 B)" in line(chat), "the count")
        await ask(pilot, "What colour, see @notes.txt?")
        sent = chat.session.conversation.path()[0].text
        assert sent == f"What colour, see @notes.txt?\n\n{framed}"
        assert engine.requests[-1][0].turns[0].text == sent
        assert line(chat) == ""


async def test_a_file_put_there_by_the_command_goes_once(notes: Path) -> None:
    app = make_app(ScriptedEngine("Blue.", "Yes."))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, f"/attach {notes}")
        await until(pilot, lambda: "goes with your next message" in notice(chat), "the words")
        await until(pilot, lambda: "+ notes.txt (" in line(chat), "the line")
        await ask(pilot, "What colour?")
        await ask(pilot, "Really?")
        texts = [m.text for m in chat.session.conversation.path() if m.role == "user"]
        assert "Plums are blue." in texts[0] and texts[1] == "Really?"
        assert "Plums are blue." in shown(chat)


async def test_what_was_put_there_is_taken_away(notes: Path) -> None:
    app = make_app(ScriptedEngine("Yes."))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, f"/attach {notes}")
        await until(pilot, lambda: "+ notes.txt" in line(chat), "the line")
        await say(pilot, "/attach none")
        await until(pilot, lambda: line(chat) == "", "no line")
        await ask(pilot, "Nothing?")
        assert chat.session.conversation.path()[0].text == "Nothing?"


async def test_what_cannot_be_sent_is_refused_and_the_message_stays(notes: Path) -> None:
    engine = ScriptedEngine("Never.")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        (notes.parent / "big.txt").write_text("word " * 3000)
        (notes.parent / "picture.png").write_bytes(b"\x89PNG\0")
        for name, words in (
            ("big.txt", "room for 2048 of 2048"),
            ("picture.png", "is not UTF-8"),
        ):
            await say(pilot, f"See @{name}")
            await until(pilot, partial(says, chat, words), words)
            assert chat.prompt.text == f"See @{name}"
            await until(pilot, partial(refuses, chat, name), "the line")
        for argument, words in (("nowhere.txt", "No such file"), (".", "is a folder")):
            await say(pilot, f"/attach {argument}")
            await until(pilot, partial(says, chat, words), words)
        assert engine.requests == [] and not chat.session.conversation.messages


async def test_an_at_that_is_no_file_is_only_a_word() -> None:
    app = make_app(ScriptedEngine("Hello."))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Ask @nobody or me@home.org")
        assert chat.session.conversation.path()[0].text == "Ask @nobody or me@home.org"
