from __future__ import annotations

import asyncio
import functools
import random
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from chatapp.chat.errors import StoreError
from chatapp.store.chats import Chats
from chatapp.store.database import Database, connect
from chatapp.store.recovery import find_damage
from chatapp.store.store import Store
from tests.store.samples import make_conversation, make_message

PAGE = 4096


@functools.cache
def filled(conversations: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data" / "chats.db"
        chats = Chats(Database(path))
        for number in range(conversations):
            chats.add(make_conversation(f"c{number}", turns=4, tokens=40))
        chats.database.close()
        return path.read_bytes()


def fill(path: Path, conversations: int = 12) -> bytes:
    """A database of some 150 pages, made once. Returns its bytes."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(filled(conversations))
    return filled(conversations)


def reopen(path: Path) -> tuple[Store, dict[str, int]]:
    """Open it; how many messages each conversation has."""

    async def open_and_read() -> tuple[Store, dict[str, int]]:
        store = await Store.open(path)
        counts = {}
        for summary in await store.list_conversations():
            conversation = await store.load(summary.id)
            conversation.check()
            for message in conversation.messages.values():
                if message.reply is not None:
                    assert len(message.reply.ids) == len(message.reply.records)
            counts[summary.id] = len(conversation.messages)
        await store.save_conversation(make_conversation("new"))
        await store.save_message("new", make_message("n", None, "goes on"))
        assert len(await store.search("goes on")) == 1
        await store.close()
        return store, counts

    result = asyncio.run(open_and_read())
    connection = connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()
    return result


def set_aside(path: Path) -> list[bytes]:
    files = sorted(path.parent.glob("chats.db.damaged-*"))
    return [file.read_bytes() for file in files if not file.name.endswith(("-journal", "-wal"))]


def zero_header(data: bytearray) -> None:
    data[:100] = bytes(100)


def zero_first_page(data: bytearray) -> None:
    data[:PAGE] = bytes(PAGE)


def garble_names(data: bytearray) -> None:
    data[:] = data.replace(b"CREATE TABLE chunk", b"CREATE TABLE\x80chunk")


def truncate(data: bytearray) -> None:
    del data[len(data) // 2 :]


def cut_odd(data: bytearray) -> None:
    del data[len(data) - 1000 :]


def noise_in_the_middle(data: bytearray) -> None:
    middle = len(data) // PAGE // 2 * PAGE
    data[middle : middle + 3 * PAGE] = random.Random(1).randbytes(3 * PAGE)


@pytest.mark.parametrize(
    ("damage", "least"),
    [
        (zero_header, 96),
        (zero_first_page, 96),
        (garble_names, 96),
        (truncate, 30),
        (cut_odd, 90),
        (noise_in_the_middle, 60),
    ],
)
def test_a_damaged_file_is_set_aside_and_what_is_readable_is_saved(
    path: Path, damage: Callable[[bytearray], None], least: int
) -> None:
    data = bytearray(fill(path))
    damage(data)
    path.write_bytes(data)
    store, counts = reopen(path)
    assert set_aside(path) == [bytes(data)]
    (notice,) = store.notices
    assert "damaged" in notice
    assert "\n" not in notice
    assert sum(counts.values()) >= least
    assert f"{len(counts)} conversations with {sum(counts.values())} messages" in notice
    assert reopen(path)[0].notices == ()
    leftovers = {
        file.name
        for file in path.parent.iterdir()
        if "damaged" not in file.name and "backup" not in file.name
    }
    assert leftovers <= {"chats.db", "chats.db-journal", "chats.db-wal", "chats.db.lock"} | {
        "chats.db-shm"
    }


def test_a_file_that_is_no_database_is_set_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("These are not the chats you are looking for.\n" * 200)
    before = path.read_bytes()
    store, counts = reopen(path)
    assert counts == {}
    assert set_aside(path) == [before]
    assert "0 conversations" in store.notices[0]


def test_an_empty_file_is_a_new_database(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    store, _ = reopen(path)
    assert store.notices == ()


@pytest.mark.parametrize("seed", range(25))
def test_random_damage_never_keeps_it_from_opening(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(fill(path, conversations=4))
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data))
        size = rng.choice((1, 50, PAGE, 3 * PAGE))
        data[place : place + size] = rng.randbytes(len(data[place : place + size]))
    path.write_bytes(data)
    try:
        reopen(path)
    except StoreError as error:
        # Damage that quick_check cannot see and that shows when a row is read: it is said, and the
        # next start looks at all of it and mends it.
        assert "damaged" in str(error)
        reopen(path)
    if asides := set_aside(path):
        assert asides[0] == bytes(data)


def test_damage_found_while_running_is_looked_at_by_the_next_start(path: Path) -> None:
    fill(path)

    async def use_while_it_breaks() -> None:
        store = await Store.open(path)
        data = bytearray(await asyncio.to_thread(path.read_bytes))
        # All pages but the first: what is read next is broken, whatever SQLite has cached.
        data[PAGE:] = bytes(len(data) - PAGE)
        await asyncio.to_thread(path.write_bytes, data)
        store._chats.database.close()
        with pytest.raises(StoreError, match=r"damaged.*start chatapp again"):
            await store.load("c0")
        await store.close()

    asyncio.run(use_while_it_breaks())
    assert path.with_name("chats.db.check").exists()
    store, _ = reopen(path)
    assert "damaged" in store.notices[0]
    assert not path.with_name("chats.db.check").exists()


def test_a_sound_database_is_not_touched_by_looking(path: Path) -> None:
    before = fill(path)
    assert find_damage(path) == ""
    assert path.read_bytes() == before


def test_where_nothing_can_be_written_the_damaged_file_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path)
    path.write_bytes(b"damaged" * 1000)

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("chatapp.store.recovery.tempfile.TemporaryDirectory", refuse)
    with pytest.raises(StoreError, match="could not be set aside"):
        asyncio.run(Store.open(path))
    assert path.read_bytes() == b"damaged" * 1000


def test_a_journal_left_by_a_crash_is_played_back_not_called_damage(path: Path) -> None:
    """A process that died inside a transaction leaves a journal; opening undoes the half write."""
    fill(path, conversations=2)
    before = path.read_bytes()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")  # so that pages are written before the commit
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE message SET text = text || hex(randomblob(2000))")
    half, journal = path.read_bytes(), path.with_name("chats.db-journal").read_bytes()
    connection.execute("ROLLBACK")
    connection.close()
    assert half != before
    path.write_bytes(half)
    path.with_name("chats.db-journal").write_bytes(journal)
    store, counts = reopen(path)
    assert store.notices == ()
    assert counts == {"c0": 8, "c1": 8}
