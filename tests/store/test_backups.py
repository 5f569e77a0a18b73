"""Copies that are made while the program runs, and what they are for."""

from __future__ import annotations

import asyncio
import os
import random
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from chatapp.chat.conversation import Conversation
from chatapp.store.backups import KEPT, Backups, back_up, backups_of, is_due
from chatapp.store.chats import Chats
from chatapp.store.database import Database, connect
from chatapp.store.migrations import MIGRATIONS, migrate
from chatapp.store.store import Store
from tests.store.conftest import Clock
from tests.store.samples import make_conversation, make_message
from tests.store.test_durability import ROOT
from tests.store.test_recovery import PAGE, fill, reopen

DAY = 24 * 3600


def messages(path: Path, conversation_id: str) -> object:
    chats = Chats(Database(path))
    try:
        return chats.load(conversation_id).conversation.messages
    finally:
        chats.database.close()


def make_older(path: Path, seconds: float) -> None:
    for backup in backups_of(path):
        made = backup.stat().st_mtime - seconds
        os.utime(backup, (made, made))


def test_a_backup_is_the_database_as_it_was_and_two_are_kept(path: Path, tmp_path: Path) -> None:
    chats = Chats(Database(path))
    for number in range(KEPT + 2):
        chats.add(make_conversation(f"c{number}", turns=3, tokens=20))
        assert back_up(path, threading.Event())
        assert len(backups_of(path)) == min(number + 1, KEPT)
    chats.database.close()
    for age, backup in enumerate(backups_of(path)):
        copy = Path(shutil.copyfile(backup, tmp_path / f"copy{age}.db"))
        newest = KEPT + 1 - age
        assert messages(copy, f"c{newest}") == messages(path, f"c{newest}")
        connection = connect(copy)
        (count,) = connection.execute("SELECT count(*) FROM conversation").fetchone()
        connection.close()
        assert count == newest + 1
        assert backup.stat().st_mode & 0o777 == 0o600


def test_when_another_one_is_due(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path, conversations=2)
    assert is_due(path)
    assert back_up(path, threading.Event())
    assert not is_due(path)
    make_older(path, DAY + 60)
    assert is_due(path)
    assert back_up(path, threading.Event())
    chats = Chats(Database(path))
    for number in range(2, 5):
        chats.add(make_conversation(f"c{number}", turns=4, tokens=40))
    chats.database.close()
    assert is_due(path)  # it has grown by more than half
    no_room = shutil.disk_usage(path.parent)._replace(free=path.stat().st_size)
    monkeypatch.setattr("chatapp.store.backups.shutil.disk_usage", lambda _: no_room)
    assert not is_due(path)


async def test_the_store_makes_one_by_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = threading.Event()

    def tell(database: Path, stop: threading.Event) -> bool:
        sound = back_up(database, stop)
        made.set()
        return sound

    monkeypatch.setattr("chatapp.store.backups.back_up", tell)
    store = await Store.open(path)
    assert await asyncio.to_thread(made.wait, 10)
    await store.close()
    assert len(backups_of(path)) == 1
    assert not path.with_name("chats.db.backup-new").exists()


def test_a_damaged_database_takes_the_place_of_no_backup(path: Path) -> None:
    fill(path)
    assert back_up(path, threading.Event())
    good = backups_of(path)[0].read_bytes()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // PAGE // 2 * PAGE)
        file.write(random.Random(1).randbytes(3 * PAGE))
    assert not back_up(path, threading.Event())
    assert [backup.read_bytes() for backup in backups_of(path)] == [good]


def test_one_that_is_given_up_or_failed_leaves_nothing(path: Path) -> None:
    fill(path, conversations=1)
    stop = threading.Event()
    stop.set()
    with pytest.raises(sqlite3.OperationalError):
        back_up(path, stop)
    assert {file.name for file in path.parent.iterdir()} <= {"chats.db", "chats.db-journal"}
    # Another program is making one; one that died over it holds up nobody for long.
    fresh = path.with_name("chats.db.backup-new")
    fresh.touch()
    with pytest.raises(FileExistsError):
        back_up(path, threading.Event())
    os.utime(fresh, (time.time() - DAY, time.time() - DAY))
    assert back_up(path, threading.Event())


def test_one_that_waits_for_another_program_can_be_stopped(path: Path) -> None:
    fill(path, conversations=1)
    other = connect(path)
    other.execute("BEGIN EXCLUSIVE")
    backups = Backups(path, lambda: None)
    backups.stop()
    other.execute("ROLLBACK")
    other.close()
    assert backups_of(path) == ()


BACKS_UP_FOR_EVER = """
import sys, threading
from pathlib import Path
from chatapp.store.backups import back_up
while True:
    Path(sys.argv[1] + ".backup-new").unlink(missing_ok=True)
    back_up(Path(sys.argv[1]), threading.Event())
    print("made", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_kill_9_at_random_moments_leaves_sound_backups(path: Path) -> None:
    fill(path, conversations=3)
    rng = random.Random(3)
    for _ in range(5):
        command = [sys.executable, "-c", BACKS_UP_FOR_EVER, str(path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            for _ in range(KEPT):
                assert program.stdout.readline() == "made\n"
            select.select([], [], [], rng.random() * 0.02)  # some moment of those that follow
            program.kill()
        assert backups_of(path)
        for backup in backups_of(path):
            connection = connect(backup)
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            (count,) = connection.execute("SELECT count(*) FROM conversation").fetchone()
            connection.close()
            assert count == 3


def test_who_writes_meanwhile_loses_nothing(path: Path) -> None:
    fill(path, conversations=3)
    chats = Chats(Database(path))
    done = threading.Event()
    threads = [threading.Thread(target=lambda: (back_up(path, threading.Event()), done.set()))]
    threads[0].start()
    said = 0
    while not done.is_set() or said < 20:
        chats.save_message("c0", make_message(f"during-{said}", None))
        said += 1
    threads[0].join()
    kept = chats.load("c0").conversation.messages
    assert all(f"during-{number}" in kept for number in range(said))
    chats.database.close()
    assert backups_of(path)


def test_what_cannot_be_read_comes_out_of_the_backup(path: Path) -> None:
    """Half of the file is gone: its first half is read, the rest is as it was when backed up."""
    data = fill(path)
    before = {f"c{number}": messages(path, f"c{number}") for number in range(12)}
    assert back_up(path, threading.Event())
    chats = Chats(Database(path))
    chats.save_message("c0", make_message("since", "c0-a3", "said since the backup"))
    chats.database.close()
    with path.open("r+b") as file:
        file.seek(len(data) // 2)
        file.write(bytes(len(data) // 2 - PAGE))
    store, counts = reopen(path)
    assert "damaged" in store.notices[0] and "out of a backup" in store.notices[0]
    assert set(counts) == set(before)
    for name, expected in before.items():
        found = messages(path, name)
        assert isinstance(found, type(expected)) and isinstance(expected, type(before["c1"]))
        assert {id_: found[id_] for id_ in expected} == expected  # type: ignore[index]


@pytest.mark.parametrize("size", [0, 50_000])
def test_a_file_of_nothing_or_noise_is_the_backup_again(path: Path, size: int) -> None:
    fill(path)
    before = messages(path, "c7")
    assert back_up(path, threading.Event())
    path.write_bytes(random.Random(2).randbytes(size))
    _, counts = reopen(path)
    assert counts == {f"c{number}": 8 for number in range(12)}
    assert messages(path, "c7") == before


def test_who_takes_the_file_away_begins_anew(path: Path) -> None:
    fill(path)
    assert back_up(path, threading.Event())
    path.unlink()
    store, counts = reopen(path)
    assert (store.notices, counts) == ((), {})


def test_a_database_in_wal_mode_is_backed_up_with_what_is_in_its_log(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatapp.store.database.journal_mode", lambda: "wal")
    chats = Chats(Database(path))
    chats.add(make_conversation("c"))
    assert path.with_name("chats.db-wal").stat().st_size
    assert back_up(path, threading.Event())
    chats.database.close()
    (backup,) = backups_of(path)
    assert {file.name for file in path.parent.iterdir()} == {"chats.db", backup.name}
    path.write_bytes(b"")
    reopen(path)
    assert messages(path, "c") == make_conversation("c").messages


def test_of_what_is_read_and_what_was_backed_up_the_first_stays(path: Path) -> None:
    """A key may be another row's by now: nothing of a chat that was purged comes into another."""
    chats = Chats(Database(path), clock=lambda: 0.0)
    chats.add(make_conversation("old", turns=2, tokens=10))
    assert back_up(path, threading.Event())
    chats.delete("old")
    chats.database.close()
    chats = Chats(Database(path))
    assert chats.purge() == 1
    conversation = Conversation(id="later", created=1.0, title="later")
    chats.add(conversation.with_message(make_message("u", None, "one")))
    chats.save_message("later", make_message("u2", "u", "two"))
    chats.database.close()
    with path.open("r+b") as file:
        file.write(bytes(100))
    reopen(path)
    chats = Chats(Database(path))
    kept = chats.load("later").conversation
    assert {message.text for message in kept.messages.values()} == {"one", "two"}
    assert all(message.reply is None for message in kept.messages.values())
    chats.database.close()


async def test_a_backup_of_an_earlier_schema_is_read(path: Path, clock: Clock) -> None:
    path.parent.mkdir()
    old = connect(path)
    migrate(old, lambda: 1.0, MIGRATIONS[:1])
    old.execute(
        "INSERT INTO conversation (id, created, changed, title, template, system, format, stop, "
        "model, leaf) VALUES ('c', 1, 2, 'old', 'none', '', 'auto', '[]', 'm', 'u')"
    )
    old.execute(
        "INSERT INTO message (conversation, id, role, text, created) "
        "VALUES (1, 'u', 'user', 'from the first days', 1)"
    )
    old.close()
    assert back_up(path, threading.Event())
    await asyncio.to_thread(path.write_bytes, b"no database")
    store = await Store.open(path, clock=clock)
    assert [m.text for m in (await store.load("c")).path()] == ["from the first days"]
    await store.rename("c", "still here")
    await store.close()


def test_records_that_the_disk_lost_come_out_of_the_backup(path: Path) -> None:
    chats = Chats(Database(path))
    conversation = make_conversation("c", turns=1, tokens=600)
    chats.add(conversation)
    assert back_up(path, threading.Event())
    chats.database.close()
    connection = connect(path)
    connection.execute("UPDATE chunk SET data = zeroblob(length(data)) WHERE start = 256")
    connection.close()
    with path.open("r+b") as file:  # and it is found to be damaged
        file.write(bytes(100))
    reopen(path)
    chats = Chats(Database(path))
    assert replace(chats.load("c").conversation, leaf=None) == replace(conversation, leaf=None)
    chats.database.close()
