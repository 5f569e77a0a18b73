"""A message that doesn't fit any more: what to leave out is offered with its tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import OptionList

from chatapp.chat.record import FinishReason
from chatapp.ui.app import ChatApp
from chatapp.ui.chat.screen import ChatScreen
from chatapp.ui.dialogs.picker import PickerScreen
from chatapp.ui.widgets.prompt import PromptInput
from tests.ui.host import ask, make_services, notice, ready, until
from tests.ui.kept import open_store
from tests.ui.scripted import FACTS, ScriptedEngine, split

SIZE = (100, 30)
WORDS = "word " * 200


async def full(pilot: Pilot[Any]) -> ChatScreen:
    """A chat of five turns that nearly fills the context of 2,048 tokens, and one message more."""
    chat = await ready(pilot)
    for number in range(5):
        await ask(pilot, f"question {number} {WORDS}")
    chat.prompt.take(f"one more {WORDS}")
    chat.post_message(PromptInput.Submitted(chat.prompt.text))
    await until(pilot, lambda: isinstance(pilot.app.screen, PickerScreen), "the offer")
    return chat


def offers(app: Any) -> list[str]:
    options = app.screen.query_one(OptionList)
    return [str(options.get_option_at_index(n).prompt) for n in range(options.option_count)]


@pytest.mark.parametrize("key", ["drop", "sum", "new"])
async def test_each_way_goes_on_in_a_new_chat_and_keeps_the_old_one(
    tmp_path: Path, key: str
) -> None:
    replies = [f"reply {number} {WORDS}" for number in range(5)]
    last = ["It was about words.", "Done."] if key == "sum" else ["Done."]
    engine = ScriptedEngine(*replies, *last)
    async with open_store(tmp_path) as store:
        app = ChatApp(make_services(engine, store=store))
        async with app.run_test(size=SIZE) as pilot:
            chat = await full(pilot)
            old = chat.session.conversation
            before = len(engine.requests)
            drop, summed, new = offers(app)
            assert "the oldest" in drop and "tokens" in drop
            assert "sum up" in summed and "200 tokens" in summed
            assert "Begin anew" in new
            for _ in range(["drop", "sum", "new"].index(key)):
                await pilot.press("down")
            await pilot.press("enter")
            await until(pilot, lambda: len(engine.requests) == before + len(last), "the request")
            await until(pilot, lambda: not chat.turns.busy, "the reply")
            now = chat.session.conversation
            assert now.id != old.id
            said = [message.text for message in now.path()]
            assert said[-2:] == [f"one more {WORDS}", "Done."]
            kept = said[:-2]
            assert kept == ([] if key == "new" else [m.text for m in old.path()][-len(kept) :])
            assert (key == "new") == (not kept)
            assert ("Earlier in this conversation: It was about words." in now.system) == (
                key == "sum"
            )
            prompt, _ = engine.requests[-1]
            read = sum(len(split(f"{turn.role}\n{turn.text}")) + 1 for turn in prompt.turns)
            assert read < FACTS.context_length * 3 // 4 + 50
            assert chat.prompt.text == ""
            whole = await store.load(old.id)
            assert [m.text for m in whole.path()] == [m.text for m in old.path()]
            again = await store.load(now.id)
            assert [m.text for m in again.path()] == said


async def test_a_summary_that_fails_is_said_and_changes_nothing(tmp_path: Path) -> None:
    engine = ScriptedEngine(*[f"reply {number} {WORDS}" for number in range(5)], "Half of i")
    app = ChatApp(make_services(engine))
    async with app.run_test(size=SIZE) as pilot:
        chat = await full(pilot)
        old = chat.session.conversation
        engine.reason, engine.end_message = FinishReason.ERROR, "the model failed"
        await pilot.press("down", "enter")
        await until(pilot, lambda: "could not be summed up: the model failed" in notice(chat), "it")
        assert chat.session.conversation is old
        assert chat.prompt.text == f"one more {WORDS}"


async def test_a_summary_that_the_context_cannot_hold_is_not_offered() -> None:
    engine = ScriptedEngine("Yes.", "No.")
    app = ChatApp(make_services(engine))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "word " * 1900)
        await ask(pilot, "short")
        chat.prompt.take(WORDS)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, PickerScreen), "the offer")
        assert "not possible: it would have to read" in offers(app)[1]
        await pilot.press("down", "enter")
        assert isinstance(pilot.app.screen, PickerScreen)
        assert len(engine.requests) == 2


async def test_nothing_happens_where_the_user_leaves(tmp_path: Path) -> None:
    engine = ScriptedEngine(*[f"reply {number} {WORDS}" for number in range(5)])
    async with open_store(tmp_path) as store:
        app = ChatApp(make_services(engine, store=store))
        async with app.run_test(size=SIZE) as pilot:
            chat = await full(pilot)
            old = chat.session.conversation
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(app.screen, PickerScreen), "the end")
            assert chat.session.conversation.id == old.id
            assert chat.prompt.text == f"one more {WORDS}"
            assert len(engine.requests) == 5
