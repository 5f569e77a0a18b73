"""Nothing that was acknowledged is ever lost: killed, out of space, failing at any write.

    python -m tests.store.test_durability kill TIMES
    python -m tests.store.test_durability two SECONDS

run the two long versions by hand.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chatapp.chat.conversation import Conversation, Message
from chatapp.chat.errors import StoreError
from chatapp.chat.record import FinishReason
from chatapp.store.chats import Chats
from chatapp.store.database import Database, connect
from tests.store.samples import make_message, make_reply, news
from tests.store.writer import STEP

ROOT = Path(__file__).resolve().parents[2]

Acknowledged = dict[tuple[str, str], int]
"""By conversation and message, how many token records are known to be on disk."""


def start_writer(path: Path, name: str, conversations: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.store.writer", str(path), name, str(conversations)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def note(line: str, acknowledged: Acknowledged) -> None:
    conversation, message, count = line.split()
    acknowledged[conversation, message] = int(count)


def check(path: Path, acknowledged: Acknowledged) -> None:
    """The file is sound and holds everything acknowledged; the next save may have come too."""
    connection = connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.execute("INSERT INTO message_text (message_text) VALUES ('integrity-check')")
    connection.close()
    chats = Chats(Database(path))
    loaded: dict[str, Conversation] = {}
    for (conversation_id, message_id), count in acknowledged.items():
        if conversation_id not in loaded:
            loaded[conversation_id] = chats.load(conversation_id).conversation
        message = loaded[conversation_id].messages[message_id]
        if message.reply is not None:
            records = message.reply.records
            whole = make_reply(len(records), seed=message.reply.seed, candidates=5)
            assert count <= len(records) <= count + STEP
            assert records == whole.records
            assert message.text == "".join(record.text for record in records)
    chats.database.close()


def kill_again_and_again(path: Path, times: int, rng: random.Random) -> int:
    """Kill a writer at random moments. Returns how many messages were acknowledged."""
    acknowledged: Acknowledged = {}
    for number in range(times):
        writer = start_writer(path, f"run{number}", 1000)
        try:
            assert writer.stdout is not None
            for _ in range(rng.randint(1, 60)):
                note(writer.stdout.readline(), acknowledged)
            # Some moment of the saves that follow; what they acknowledge meanwhile counts too.
            select.select([], [], [], rng.random() * 0.01)
        finally:
            writer.kill()
        for line in writer.stdout.read().splitlines(keepends=True):
            if line.endswith("\n"):
                note(line, acknowledged)
        assert writer.wait(30) == -signal.SIGKILL
        writer.stdout.close()
        recent = {key: n for key, n in acknowledged.items() if key[0] == f"run{number}"}
        check(path, recent)
    check(path, acknowledged)
    return len(acknowledged)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("times", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments_loses_nothing_acknowledged(path: Path, times: int) -> None:
    path.parent.mkdir()
    assert kill_again_and_again(path, times, random.Random(9)) > times


def write_together(path: Path, seconds: float, least: int) -> tuple[int, int]:
    """Two programs write at once until the time is over and each wrote that much.

    Returns:
        How many messages each had acknowledged.
    """
    counts = []
    acknowledged: Acknowledged = {}
    writers = [start_writer(path, name, 1_000_000) for name in ("left", "right")]
    lines: list[list[str]] = [[], []]

    def listen(place: int) -> None:
        stream = writers[place].stdout
        assert stream is not None
        lines[place].extend(stream)

    threads = [threading.Thread(target=listen, args=(place,)) for place in range(2)]
    try:
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        while time.monotonic() - begun < seconds or min(map(len, lines)) < least:
            assert all(writer.poll() is None for writer in writers)
            assert time.monotonic() - begun < seconds + 60
            select.select([], [], [], 0.05)
    finally:
        for writer in writers:
            writer.kill()
            writer.wait(30)
        for thread in threads:
            thread.join(30)
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.close()
    for said in lines:
        for line in said:
            if line.endswith("\n"):
                note(line, acknowledged)
        counts.append(len(said))
    check(path, acknowledged)
    return counts[0], counts[1]


def test_two_programs_write_without_losing_a_message(path: Path) -> None:
    path.parent.mkdir()
    assert min(write_together(path, seconds=1.0, least=60)) >= 60


class FailingConnection(sqlite3.Connection):
    """Fails the n-th statement that writes, and counts them."""

    count = 0
    fail_at = 0
    after = False
    """Whether the statement is carried out before it fails: a commit whose answer was lost."""

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:  # type: ignore[override]
        # typeshed names the parameters positional only; they are passed on as they came.
        cls = FailingConnection
        if sql.split(maxsplit=1)[0] in ("BEGIN", "COMMIT", "INSERT", "UPDATE", "DELETE"):
            cls.count += 1
            if cls.count == cls.fail_at:
                if cls.after:
                    super().execute(sql, *args)
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise error
        return super().execute(sql, *args)


def failing(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path,
        timeout=1,
        isolation_level=None,
        check_same_thread=False,
        factory=FailingConnection,
    )


Save = Callable[[Chats], None]


def a_turn(candidates: int = 3) -> Iterator[tuple[Conversation, Message, tuple[Save, ...]]]:
    """One turn, step by step: what must be on disk then, and how a session saves it."""
    whole = make_reply(21, candidates=candidates, finished=False)
    question = make_message("u", None, "a question")
    conversation = Conversation(id="c", created=1.0, title="t", leaf="u")
    yield conversation, question, saves(conversation, question)
    conversation = replace(conversation, leaf="a", model="m")
    for count in (0, 7, 14, 21):
        reply = replace(whole, records=whole.records[:count])
        if count == 21:
            reply = replace(reply, finish_reason=FinishReason.STOP)
        answer = make_message("a", "u", reply=reply)
        grows = 0 < count < 21
        yield conversation, answer, saves(conversation, answer, count - 7 if grows else None)


def saves(
    conversation: Conversation, message: Message, since: int | None = None
) -> tuple[Save, ...]:
    """`since`: from which record on the message has grown, where it was saved before."""
    if since is not None:
        return (lambda chats: chats.append(conversation.id, news(message, since)),)
    return (
        lambda chats: chats.save_conversation(conversation),
        lambda chats: chats.save_message(conversation.id, message),
    )


def save_with_retries(chats: Chats, make_room: Callable[[], None]) -> tuple[Conversation, int]:
    """Save a turn as a session does, once each: what fails is held on to and is tried again.

    Returns:
        What must be on disk now, and how many saves failed.
    """
    held = Conversation(id="c", created=1.0)
    failures = 0
    for conversation, message, steps in a_turn():
        held = replace(conversation, messages={**held.messages, message.id: message})
        for step in steps:
            save = step
            while True:
                try:
                    save(chats)
                    break
                except StoreError as error:
                    assert "\n" not in str(error)
                    failures += 1
                    assert failures < 100
                    make_room()
                    save = Chats.settle
        assert chats.unwritten == 0
    return held, failures


@pytest.mark.parametrize("after", [False, True])
def test_any_write_may_fail_and_nothing_is_lost(path: Path, after: bool) -> None:
    FailingConnection.fail_at, FailingConnection.after = 0, after
    Database(path).close()
    fail_at = 0
    failures = 1
    while failures:
        fail_at += 1
        connection = connect(path)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM conversation")
        connection.close()
        chats = Chats(Database(path, make_connection=failing))
        FailingConnection.count, FailingConnection.fail_at = 0, fail_at
        held, failures = save_with_retries(chats, lambda: None)
        FailingConnection.fail_at = 0
        chats.database.close()
        check_equal(path, held)
    assert fail_at > 30  # every write of the turn had its go


def check_equal(path: Path, held: Conversation) -> None:
    connection = connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    chats = Chats(Database(path))
    assert chats.load(held.id).conversation == held
    assert len(chats.search("question")) == 1
    chats.database.close()


@pytest.mark.parametrize("pages", range(36, 48, 2))
def test_a_full_database_keeps_what_it_has_and_goes_on_with_room(path: Path, pages: int) -> None:
    limit = [pages]

    def limited(file: Path) -> sqlite3.Connection:
        connection = connect(file)
        connection.execute(f"PRAGMA max_page_count = {limit[0]}")
        return connection

    Database(path).close()
    chats = Chats(Database(path, make_connection=limited))
    said: list[str] = []

    def make_room() -> None:
        limit[0] += 1
        chats.database.close()

    chats.save_conversation(Conversation(id="before", created=1.0))
    for size in (400, 1):  # until not even a word has room
        with contextlib.suppress(StoreError):
            for number in range(1000):
                message = make_message(f"m{size}-{number}", None, "filler " * size)
                said.append(message.id)  # the one that fails, too: it is held on to
                chats.save_message("before", message)
    held, failures = save_with_retries(chats, make_room)
    assert failures
    assert set(said) == set(chats.load("before").conversation.messages)
    chats.database.close()
    check_equal(path, held)


def test_a_write_cut_short_by_the_system_at_any_size_loses_nothing(path: Path) -> None:
    """The system refuses to let a file grow past a limit: a real failing write, half done."""
    resource = pytest.importorskip("resource")
    Database(path).close()
    size = path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    failed = 0
    try:
        for limit in range(512, size + 40_000, 3001):
            connection = connect(path)
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("DELETE FROM conversation")
            connection.execute("VACUUM")
            connection.close()
            chats = Chats(Database(path))
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                held, failures = save_with_retries(
                    chats, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
                )
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            failed += failures
            chats.database.close()
            check_equal(path, held)
    finally:
        signal.signal(signal.SIGXFSZ, handler)
    assert failed > 5


def test_a_full_disk_keeps_what_it_has_and_goes_on_with_room(tmp_path: Path) -> None:
    """A real one: a file system of 400 KB that fills up."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can make a small file system")
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"no small file system can be made here: {done.stderr!r}")
    try:
        path = disk / "data" / "chats.db"
        chats = Chats(Database(path))
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(60_000))
        chats.save_conversation(Conversation(id="before", created=1.0))
        said = []
        with pytest.raises(StoreError, match="the disk is full; make room"):
            for number in range(1000):
                said.append(f"m{number}")  # the one that fails, too: it is held on to
                chats.save_message("before", make_message(f"m{number}", None, "filler " * 400))
        held, failures = save_with_retries(chats, lambda: ballast.write_bytes(b""))
        assert failures
        assert set(said) == set(chats.load("before").conversation.messages)
        chats.database.close()
        check_equal(path, held)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "chats.db"
        if sys.argv[1] == "kill":
            print(kill_again_and_again(database, int(sys.argv[2]), random.Random()), "messages")
        else:
            print(write_together(database, float(sys.argv[2]), 1), "saves")
