"""The interface over a scripted engine and a real store in a temporary folder."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Static

from chatapp.chat.conversation import Conversation, Message
from chatapp.store.store import Store
from chatapp.ui.app import ChatApp
from tests.ui.host import make_services
from tests.ui.scripted import ScriptedEngine


@asynccontextmanager
async def open_store(folder: Path) -> AsyncIterator[Store]:
    """A store whose clock counts seconds."""
    seconds = itertools.count(1_700_000_000)
    store = await Store.open(folder / "chats.db", clock=lambda: float(next(seconds)))
    try:
        yield store
    finally:
        await store.close()


def make_kept_app(engine: ScriptedEngine, store: Store, **changes: Any) -> ChatApp:
    """The interface; conversations are kept in that store."""
    return ChatApp(make_services(engine, store=store, **changes))


def talk(conversation_id: str, *texts: str, title: str = "", at: float = 1000.0) -> Conversation:
    """A conversation in which the user and a model without records take turns."""
    conversation = Conversation(
        id=conversation_id, created=at, title=title or texts[0], model="Scripted-1M"
    )
    for number, text in enumerate(texts):
        message = Message(
            id=f"{conversation_id}-{number}",
            parent=conversation.leaf,
            role="assistant" if number % 2 else "user",
            text=text,
            created=at + number,
        )
        conversation = conversation.with_message(message)
    return conversation


async def fill(store: Store, conversations: Sequence[Conversation]) -> None:
    """Keep some conversations, the last one being the newest."""
    for conversation in conversations:
        await store.add(conversation)


def words(pilot: Pilot[Any], selector: str) -> str:
    """What a line of text on the present screen says."""
    return str(pilot.app.screen.query_one(selector, Static).visual)
