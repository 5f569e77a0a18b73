"""A title comes when it is quiet, and gives way to the next message."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chatapp.chat.prompt import PromptFormat
from chatapp.session.titles import TitleWriter
from chatapp.ui.app import ChatApp
from chatapp.ui.chat import titles as chat_titles
from tests.ui.host import ask, make_services, ready, say, until
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
