"""The whole text as a page: what is written anywhere in it is what the model goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.widgets import TextArea

from chatapp.chat.record import FinishReason
from chatapp.ui.app import ChatApp
from chatapp.ui.chat.screen import ChatScreen
from chatapp.ui.dialogs.write import WriteScreen
from tests.ui.host import ask, make_services, ready, say, until
from tests.ui.kept import open_store
from tests.ui.scripted import ScriptedEngine

SIZE = (100, 30)


async def go_on(
    pilot: Pilot[Any], chat: ChatScreen, engine: ScriptedEngine, text: str | None = None
) -> str:
    """Open the page, write a text in its place, and wait for the reply. Returns what it was."""
    await say(pilot, "/notebook")
    await until(pilot, lambda: isinstance(pilot.app.screen, WriteScreen), "the page")
    area = pilot.app.screen.query_one(TextArea)
    before = area.text
    if text is not None:
        area.text = text
    asked = len(engine.requests)
    await pilot.press("ctrl+s")
    await until(pilot, lambda: len(engine.requests) > asked, "the reply")
    await until(pilot, lambda: not chat.turns.busy, "its end")
    return before


def page(chat: ChatScreen) -> str:
    return "".join(message.text for message in chat.session.conversation.path())


async def test_a_page_is_written_on_edited_and_goes_on(tmp_path: Path) -> None:
    engine = ScriptedEngine("Yes.", " upon a time", " there was", " was a fox", " in a wood")
    engine.reason = FinishReason.LENGTH
    async with open_store(tmp_path) as store:
        app = ChatApp(make_services(engine, store=store))
        async with app.run_test(size=SIZE) as pilot:
            chat = await ready(pilot)
            await ask(pilot, "Are you there?")
            old = chat.session.conversation
            shown = await go_on(pilot, chat, engine, "Once")
            assert "Are you there?" in shown and "Yes." in shown  # the chat's own transcript
            now = chat.session.conversation
            assert now.id != old.id and now.format == "raw" and now.system == ""
            assert page(chat) == "Once upon a time"
            assert (await store.load(old.id)).path()[-1].text == "Yes."

            # Unchanged: it goes on from the exact ids of its last reply.
            assert await go_on(pilot, chat, engine) == "Once upon a time"
            prompt, _ = engine.requests[-1]
            assert prompt.continue_reply and prompt.turns[-1].ids is not None
            assert page(chat) == "Once upon a time there was"

            # Written on: what the model wrote keeps its tokens.
            await go_on(pilot, chat, engine, page(chat) + " and then")
            prompt, _ = engine.requests[-1]
            assert [turn.text for turn in prompt.turns] == [
                "Once", " upon a time there was", " and then",
            ]  # fmt: skip
            assert prompt.turns[1].ids is not None

            # Edited in the middle: a branch from there, and the page before it is in the tree.
            before = page(chat)
            await go_on(pilot, chat, engine, "Once upon a hill")
            assert page(chat) == "Once upon a hill in a wood"
            texts = [message.text for message in chat.session.conversation.messages.values()]
            assert " and then" in texts and before.endswith(" was a fox")
            kept = await store.load(chat.session.conversation.id)
            assert "".join(message.text for message in kept.path()) == page(chat)
