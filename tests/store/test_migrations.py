from __future__ import annotations

import hashlib
import sqlite3
import threading
from pathlib import Path

import pytest

from chatapp.chat.errors import StoreError
from chatapp.store.chats import Chats
from chatapp.store.database import Database, connect
from chatapp.store.migrations import MIGRATIONS, Migration, applied, migrate
from chatapp.store.store import Store
from tests.store.samples import make_conversation, make_message

FINGERPRINTS = {
    "0001 conversations, messages, replies": "d58df818aff28703",
    "0002 full-text search": "a8db9132c74bc04b",
    "0003 what ran the model": "9531d6000c3710dc",
    "0004 thinking": "9d5e8062cc3dd55a",
}
"""Of every step that was released. Never change one: add another step."""


def test_no_released_step_was_changed() -> None:
    found = {
        step.name: hashlib.sha256("\n".join(step.statements).encode()).hexdigest()[:16]
        for step in MIGRATIONS
    }
    assert found == FINGERPRINTS
    assert list(found) == sorted(found)


@pytest.mark.parametrize("steps", range(1, len(MIGRATIONS) + 1))
def test_a_database_of_every_earlier_schema_is_brought_up_to_date(path: Path, steps: int) -> None:
    path.parent.mkdir()
    old = connect(path)
    migrate(old, lambda: 1.0, MIGRATIONS[:steps])
    old.execute(
        "INSERT INTO conversation (id, created, changed, title, template, system, format, stop, "
        "model, leaf) VALUES ('c', 1, 2, 'old', 'none', '', 'auto', '[]', 'm', 'u')"
    )
    old.execute(
        "INSERT INTO message (conversation, id, role, text, created) "
        "VALUES (1, 'u', 'user', 'from the first days', 1)"
    )
    old.close()
    chats = Chats(Database(path))
    loaded = chats.load("c").conversation
    assert [message.text for message in loaded.path()] == ["from the first days"]
    assert [hit.message_id for hit in chats.search("first da")] == ["u"]
    chats.save_message("c", make_message("new", "u", "from today"))
    assert [hit.message_id for hit in chats.search("from")] == ["new", "u"]
    assert applied(chats.database._connected()) == tuple(step.name for step in MIGRATIONS)
    chats.database.close()


def test_a_step_that_fails_leaves_the_database_as_it_was(path: Path) -> None:
    path.parent.mkdir()
    connection = connect(path)
    bad = Migration("0003 bad", ("CREATE TABLE half (x)", "CREATE TABLE half (x)"))
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, lambda: 1.0, (*MIGRATIONS, bad))
    assert not connection.in_transaction
    assert applied(connection) == tuple(step.name for step in MIGRATIONS)
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert "message" in tables
    assert "half" not in tables
    connection.close()
    Database(path).close()


def test_two_programs_that_migrate_at_once_do_it_once(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    barrier, errors = threading.Barrier(4), []

    def run() -> None:
        connection = connect(path)
        barrier.wait(10)
        try:
            migrate(connection, lambda: 1.0)
        except sqlite3.Error as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    Database(path).close()


async def test_a_database_of_a_newer_version_is_read_and_never_written(path: Path) -> None:
    store = await Store.open(path)
    await store.add(make_conversation())
    await store.close()
    connection = connect(path)
    connection.execute("INSERT INTO migration VALUES ('9999 from the future', 1)")
    connection.close()
    newer = await Store.open(path)
    assert "newer chatapp" in newer.read_only
    assert newer.notices == (newer.read_only,)
    assert await newer.load("c1") == make_conversation()
    assert len(await newer.search("question")) == 2
    for write in (
        newer.save_message("c1", make_message("m", None)),
        newer.rename("c1", "t"),
        newer.delete("c1"),
        newer.duplicate("c1"),
    ):
        with pytest.raises(StoreError, match="newer chatapp"):
            await write
    await newer.close()
