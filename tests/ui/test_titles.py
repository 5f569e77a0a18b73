"""A title comes when it is quiet, and gives way to the next message."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chatapp.chat.prompt import PromptFormat
from chatapp.session.titles import TitleWriter
from chatapp.ui.app import ChatApp
from chatapp.ui.chat import titles as chat_titles
from tests.ui.host import MemoryStore, ask, make_services, ready, say, until
from tests.ui.scripted import ScriptedEngine, split


def make_app(engine: ScriptedEngine) -> ChatApp:
    services = make_services(engine)
    return ChatApp(replace(services, titles=TitleWriter(services.session, PromptFormat)))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_titles, "IDLE_SECONDS", 0.01)


async def test_a_chat_is_titled_when_it_is_quiet() -> None:
    app = make_app(ScriptedEngine("Gently.", "Pruning plum trees"))
    async with app.run_test() as pilot:
        chat = await ready(pilot)
        await ask(pilot, "how do I prune a plum tree")
        title = "Pruning plum trees"
        await until(pilot, lambda: chat.session.conversation.title == title, "the title")


async def test_a_title_gives_way_to_a_message() -> None:
    script = ("Gently.", "Pruning plum trees", "Then water it.", "Plum trees")
    engine = ScriptedEngine(*script, held=True)
    app = make_app(engine)
    async with app.run_test() as pilot:
        chat = await ready(pilot)
        await say(pilot, "how do I prune a plum tree")
        engine.allow(len(split("Gently.")) + 1)  # its tokens, and its end
        await until(pilot, lambda: len(engine.requests) == 2, "the title asked for")
        assert chat.session.conversation.title == "how do I prune a plum tree"
        await say(pilot, "and then?")
        await until(pilot, lambda: len(engine.requests) == 3, "the second reply")
        assert chat.session.conversation.title == "how do I prune a plum tree"
        engine.allow_all()
        await until(pilot, lambda: chat.session.conversation.title == "Plum trees", "the title")
        assert [message.text for message in chat.session.conversation.path()][
            -1
        ] == "Then water it."


async def test_the_header_shows_the_title_and_what_the_chat_was_made_from() -> None:
    app = ChatApp(make_services(ScriptedEngine("Yes."), store=MemoryStore()))
    async with app.run_test(size=(160, 30)) as pilot:
        chat = await ready(pilot)
        await say(pilot, "Count to three")
        await until(pilot, lambda: "Count to three" in str(chat.header.render()), "the title")
        assert "none" not in str(chat.header.render())
        chat.session.conversation = replace(chat.session.conversation, template="tutor")
        chat.show_status()
        await until(pilot, lambda: "tutor" in str(chat.header.render()), "the template")
        await say(pilot, "/rename Other words")
        await until(pilot, lambda: "Other words" in str(chat.header.render()), "the new title")
        await pilot.press("ctrl+n")
        await until(pilot, lambda: "Other words" not in str(chat.header.render()), "a new chat")
