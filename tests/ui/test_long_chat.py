"""A conversation of 500 messages: opened at once, and no slower to type in than an empty one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from chatapp.chat.conversation import Conversation, Message, Reply
from chatapp.store.rows import StoredReply
from tests.store.samples import make_reply, reply_text
from tests.ui.host import make_app, ready, shown
from tests.ui.kept import make_kept_app, open_store
from tests.ui.scripted import ScriptedEngine

SIZE = (100, 30)
COUNT = 500


def long_conversation() -> Conversation:
    messages: dict[str, Message] = {}
    parent = None
    for number in range(COUNT):
        reply = make_reply(30, seed=number % 20) if number % 2 else None
        message = Message(
            id=f"m{number}",
            parent=parent,
            role="assistant" if reply else "user",
            text=reply_text(reply) if reply else f"question {number} " + "word " * 20,
            created=1000.0 + number,
            reply=reply,
        )
        messages[message.id] = message
        parent = message.id
    return Conversation(id="long", created=1.0, title="long", messages=messages, leaf=parent)


async def seconds_a_key(pilot: Pilot[Any]) -> float:
    await pilot.press(*"warm up ")
    started = time.process_time()
    await pilot.press(*"some words")
    return (time.process_time() - started) / len("some words")


def is_unpacked(reply: Reply) -> bool:
    assert isinstance(reply, StoredReply)
    try:
        Reply.__dict__["records"].__get__(reply)  # asking the reply itself would unpack them
    except AttributeError:
        return False
    return True


async def test_typing_is_as_quick_as_in_an_empty_chat(tmp_path: Path) -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        empty = await seconds_a_key(pilot)
    async with open_store(tmp_path) as store:
        await store.add(long_conversation())
        app = make_kept_app(ScriptedEngine(), store)
        session = app.services.session
        await session.open("long")
        async with app.run_test(size=SIZE) as pilot:
            chat = await ready(pilot)
            long = await seconds_a_key(pilot)
            print(f"{1000 * empty:.1f} ms a key when empty, {1000 * long:.1f} ms when long")
            assert long < 2 * empty + 0.005
            # Only what is looked at was unpacked and laid out.
            replies = [message.reply for message in session.conversation.path() if message.reply]
            unpacked = [reply for reply in replies if is_unpacked(reply)]
            assert len(replies) == COUNT // 2 and len(unpacked) < 5
            assert "question 498" in shown(chat) and "question 0 " not in shown(chat)
            # Older turns are drawn when scrolled to, all of them at last.
            chat.transcript.focus()
            await pilot.press("home")
            await pilot.pause()
            assert "question 0 " in shown(chat)
