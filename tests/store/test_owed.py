"""What could not be written stays in memory and is written when there is room, also at the end."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chatapp.chat.conversation import Conversation, Message
from chatapp.chat.errors import StoreError
from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.chat.prompt import PromptFormat
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.template import NO_TEMPLATE
from chatapp.session.session import SaveFailed, Session, TurnEvent
from chatapp.store.rows import as_kept
from chatapp.store.store import Store
from tests.store.samples import make_message, make_reply
from tests.store.test_durability import FailingConnection, failing
from tests.ui.scripted import ScriptedEngine


class FullDisk:
    """A disk that is full until told otherwise, to everything that writes."""

    def __init__(self) -> None:
        self.full = False

    def __call__(self, path: Path) -> sqlite3.Connection:
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:  # type: ignore[override]
                if disk.full and sql == "BEGIN IMMEDIATE":
                    error = sqlite3.OperationalError("database or disk is full")
                    error.sqlite_errorcode = sqlite3.SQLITE_FULL
                    raise error
                return super().execute(sql, *args)

        return sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, factory=Connection
        )


async def start(store: Store, *replies: str) -> Session:
    session = Session(
        ScriptedEngine(*replies),
        store,
        template=NO_TEMPLATE,
        formats=PromptFormat,
        sampling=SamplingParams(),
        seed=7,
        sleep=lambda _: asyncio.sleep(0),  # so that much is appended
    )
    await session.load_model(ModelSource("m", "/nowhere", "gguf"), LoadOptions(), lambda _: None)
    return session


async def collect(events: AsyncIterator[TurnEvent]) -> list[TurnEvent]:
    return [event async for event in events]


async def on_disk(path: Path, conversation_id: str) -> Conversation:
    store = await Store.open(path)
    try:
        return await store.load(conversation_id)
    finally:
        await store.close()


async def test_what_is_owed_is_written_when_the_program_is_left(path: Path) -> None:
    disk = FullDisk()
    store = await Store.open(path, make_connection=disk)
    session = await start(store, "before", "one two three")
    await collect(session.send("first"))
    disk.full = True
    events = await collect(session.send("second"))
    assert any(isinstance(event, SaveFailed) and "full" in event.message for event in events)
    disk.full = False
    await store.close()
    assert store.lost == ""
    assert await on_disk(path, session.conversation.id) == as_kept(session.conversation)


async def test_another_chat_may_be_opened_before_there_is_room(path: Path) -> None:
    disk = FullDisk()
    store = await Store.open(path, make_connection=disk)
    session = await start(store, "before", "in memory", "elsewhere", "again")
    await collect(session.send("first"))
    disk.full = True
    await collect(session.send("second"))
    first = session.conversation
    session.new_conversation(NO_TEMPLATE)
    await collect(session.send("another chat"))
    second = session.conversation
    # Back to the first: it stands as it was left, though the disk has not all of it.
    await session.open(first.id)
    assert session.conversation == first
    disk.full = False
    await collect(session.send("third"))
    await store.close()
    assert await on_disk(path, first.id) == as_kept(session.conversation)
    assert len(session.conversation.messages) == 6
    assert await on_disk(path, second.id) == as_kept(second)


async def test_the_newest_wording_is_written_not_the_one_that_failed(path: Path) -> None:
    disk = FullDisk()
    store = await Store.open(path, make_connection=disk)
    conversation = Conversation(id="c", created=1.0)
    await store.save_conversation(conversation)
    disk.full = True
    with pytest.raises(StoreError):
        await store.save_message("c", make_message("m", None, "old"))
    disk.full = False
    await store.save_message("c", make_message("m", None, "new"))
    await store.close()
    assert (await on_disk(path, "c")).messages["m"].text == "new"


async def test_what_no_database_takes_holds_nothing_else_up(path: Path) -> None:
    disk = FullDisk()
    store = await Store.open(path, make_connection=disk)
    await store.save_conversation(Conversation(id="c", created=1.0))
    reply = make_reply(1, candidates=2)
    bad = replace(reply, records=(replace(reply.records[0], rank=-1),))
    disk.full = True
    for message in (make_message("bad", None, reply=bad), make_message("good", None)):
        with pytest.raises(StoreError, match="full"):
            await store.save_message("c", message)
    disk.full = False
    await store.close()
    assert "out of range" in store.lost
    assert list((await on_disk(path, "c")).messages) == ["good"]


async def test_a_chat_that_was_deleted_is_not_brought_back(path: Path) -> None:
    disk = FullDisk()
    store = await Store.open(path, make_connection=disk)
    await store.save_conversation(Conversation(id="c", created=1.0))
    disk.full = True
    with pytest.raises(StoreError):
        await store.save_message("c", make_message("m", None, "said"))
    disk.full = False
    await store.delete("c")
    await store.close()
    store = await Store.open(path)
    assert await store.list_conversations() == ()
    (deleted,) = await store.list_conversations(deleted=True)
    assert deleted.messages == 1  # it had room before it was deleted, so undoing brings all back
    await store.close()


async def test_what_never_had_room_is_told_at_the_end(path: Path) -> None:
    disk = FullDisk()
    store = await Store.open(path, make_connection=disk)
    session = await start(store, "reply")
    disk.full = True
    await collect(session.send("hello"))
    await store.close()
    assert "the disk is full" in store.lost
    assert "1 conversation(s) are lost" in store.lost


@pytest.mark.parametrize("after", [False, True])
async def test_any_write_of_a_streamed_turn_may_fail(path: Path, after: bool) -> None:
    """As `test_durability` does for saves alone: here a session streams, and leaves at once."""
    FailingConnection.fail_at, FailingConnection.after = 0, after
    fail_at, told, failed = 0, 0, True
    while failed:
        fail_at += 1
        store = await Store.open(path, make_connection=failing)
        session = await start(store, "one two three four", "five")
        FailingConnection.count, FailingConnection.fail_at = 0, fail_at
        events = await collect(session.send("first"))
        failed = FailingConnection.count >= fail_at
        told += any(isinstance(event, SaveFailed) for event in events)
        FailingConnection.fail_at = 0
        await store.close()
        assert store.lost == ""
        assert await on_disk(path, session.conversation.id) == as_kept(session.conversation)
    assert told > 10


async def test_what_a_reply_said_while_the_disk_was_full_is_appended_in_order(path: Path) -> None:
    disk = FullDisk()
    store = await Store.open(path, make_connection=disk)
    whole = make_message("m", None, reply=make_reply(40, finished=False))
    await store.save_conversation(Conversation(id="c", created=1.0))
    disk.full = True
    for before, count in ((0, 10), (10, 20)):
        with pytest.raises(StoreError):
            await store.append("c", part(whole, before, count))
    disk.full = False
    await store.append("c", part(whole, 20, 40))
    assert (await store.load("c")).messages["m"] == whole
    # The same where its beginning is on disk.
    await store.save_message("c", part(replace(whole, id="n"), 0, 10))
    disk.full = True
    for before, count in ((10, 20), (20, 30)):
        with pytest.raises(StoreError):
            await store.append("c", part(replace(whole, id="n"), before, count))
    disk.full = False
    await store.close()
    assert (await on_disk(path, "c")).messages["n"] == part(replace(whole, id="n"), 0, 30)


def part(message: Message, before: int, count: int) -> Message:
    """A message as a session appends it: the text so far, and only some records."""
    assert message.reply is not None
    records = message.reply.records
    text = "".join(record.text for record in records[:count])
    reply = replace(message.reply, records=records[before:count])
    return replace(message, text=text, reply=reply)
