"""A damaged database: noticed when it is opened, set aside untouched, read as far as it goes.

The damaged file is never changed and never deleted. It gets a second, dated name; a copy of it is
read row by row around what is broken, and what was read becomes the new database, put in the
damaged one's place in one step. What is looked at when opening is bounded in time, so that a large
database does not hold up the start; damage found later leaves a mark, and the next start looks at
all of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from chatapp.chat.errors import StoreError
from chatapp.store.database import BUSY_SECONDS, Database, connect, explain
from chatapp.store.migrations import migrate

CHECK_SECONDS = 0.25
"""How long opening may look for damage."""

_MAGIC = b"SQLite format 3\0"
_PAGE = 4096
_JOURNALS = ("-journal", "-wal", "-shm")


def mark_damaged(path: Path) -> None:
    """Have the next start look at the whole file."""
    with contextlib.suppress(OSError):
        _mark(path).touch(mode=0o600)


def find_damage(path: Path) -> str:
    """What is wrong with a database file, in SQLite's words; empty where nothing was found.

    Raises:
        StoreError: it cannot be looked at.
    """
    try:
        if not path.exists() or path.stat().st_size == 0:
            return ""
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                return "file is not a database"
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None
    seconds = None if _mark(path).exists() else CHECK_SECONDS
    try:
        with contextlib.closing(connect(path)) as connection:
            connection.execute("BEGIN")  # nobody writes while we look
            found = _quick_check(connection, seconds)
            (page,) = connection.execute("PRAGMA page_size").fetchone()
            # SQLite itself reads zeros where the last page is cut short.
            return found or ("the file is cut short" if path.stat().st_size % page else "")
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (
            sqlite3.SQLITE_CORRUPT,
            sqlite3.SQLITE_NOTADB,
        ):
            return str(error)
        raise explain(error, path, "opened") from error


def recover(path: Path, clock: Callable[[], float] = time.time) -> str:
    """Set a damaged database aside and save what can be read of it.

    Returns:
        What was done, in words for the person.

    Raises:
        StoreError: the folder cannot be written; the damaged file is as it was.
    """
    aside = _free_name(path, clock())
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="recovering-") as folder:
            copy, fresh = Path(folder) / "damaged.db", Path(folder) / "fresh.db"
            for ending in ("", *_JOURNALS):
                if (source := _beside(path, ending)).exists():
                    shutil.copyfile(source, _beside(copy, ending))
            Database(fresh, clock=clock).close()
            saved = _save_readable(copy, fresh, clock)
            _swap(path, aside, fresh)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path} is damaged and could not be set aside: {error}") from error
    with contextlib.suppress(OSError):
        _mark(path).unlink(missing_ok=True)
    return (
        f"{path.name} was damaged. It is kept untouched as {aside.name}; {saved[0]} conversations "
        f"with {saved[1]} messages could be read and are here"
    )


@contextlib.contextmanager
def opening(path: Path) -> Iterator[None]:
    """Let one program at a time check, recover and migrate a database.

    Raises:
        StoreError: another one has been at it for too long.
    """
    try:
        import fcntl
    except ImportError:  # not on this system: SQLite's own locks remain
        yield
        return
    try:
        lock = os.open(_beside(path, ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:  # a folder that may only be read: nothing will be changed either
        yield
        return
    try:
        give_up = time.monotonic() + 2 * BUSY_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > give_up:
                    raise StoreError(
                        f"another chatapp is still opening {path}; try again"
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(lock)


def _quick_check(connection: sqlite3.Connection, seconds: float | None) -> str:
    """What quick_check finds first within a time (None: all of it)."""
    timer = threading.Timer(seconds, connection.interrupt) if seconds is not None else None
    if timer is not None:
        timer.start()
    try:
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return ""
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY):
            return ""  # another program is writing to it, or only reading is allowed
        raise
    finally:
        if timer is not None:
            timer.cancel()
            timer.join()
    return "" if answer == "ok" else str(answer)


def _swap(path: Path, aside: Path, fresh: Path) -> None:
    """Give the damaged file its dated name and put the new one in its place."""
    try:
        os.link(path, aside)
    except OSError:  # a file system without hard links
        shutil.copy2(path, aside)
    for ending in _JOURNALS:
        # A journal must not stay: it would be played into the new file.
        if not (journal := _beside(path, ending)).exists():
            continue
        if journal.stat().st_size:
            journal.replace(_beside(aside, ending))
        else:
            journal.unlink()
    fresh.chmod(0o600)
    fresh.replace(path)


def _save_readable(copy: Path, fresh: Path, clock: Callable[[], float]) -> tuple[int, int]:
    """Carry over what can be read. Returns how many conversations and messages."""
    with contextlib.closing(connect(fresh)) as new:
        new.execute("PRAGMA foreign_keys = OFF")
        for attempt in (copy, _with_our_first_page(copy, clock)):
            with contextlib.closing(connect(attempt)) as old:
                old.text_factory = lambda raw: raw.decode("utf-8", "replace")
                new.execute("BEGIN")
                for table in ("conversation", "message", "reply", "prompt", "chunk"):
                    _carry(old, new, table)
                _mend(new, clock())
                new.execute("COMMIT")
            counts = tuple(
                new.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("conversation", "message")
            )
            if any(counts):
                break
        return counts[0], counts[1]


def _with_our_first_page(copy: Path, clock: Callable[[], float]) -> Path:
    """The file with a sound first page: ours are alike, so a new database's fits an old one.

    The first page holds the header and the schema, which says where each table begins. The tables
    are made by the migrations, in one order, before any row: they begin at the same pages always.
    """
    patched, template = copy.with_name("patched.db"), copy.with_name("template.db")
    with contextlib.closing(connect(template)) as connection:
        migrate(connection, clock)
    raw = bytearray(copy.read_bytes())
    page = bytearray(template.read_bytes()[:_PAGE])
    pages = max(1, len(raw) // _PAGE)
    page[28:32] = pages.to_bytes(4, "big")  # the database's size, in the header
    page[32:40] = bytes(8)  # no free pages: what they hold is not known
    raw[: len(page)] = page
    patched.write_bytes(raw)
    return patched


def _carry(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> None:
    """Copy a table's readable rows."""
    columns = [name for _, name, *_ in new.execute(f"PRAGMA table_info({table})")]
    marks = ", ".join("?" * len(columns))
    for row in _readable_rows(old, table, columns):
        # A row that breaks a rule of the schema (twice the same id, nothing where something must
        # be) is damage too.
        with contextlib.suppress(sqlite3.IntegrityError):
            new.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", row)


def _readable_rows(
    connection: sqlite3.Connection, table: str, columns: list[str]
) -> Iterator[tuple[object, ...]]:
    """Rows in the order of their keys; where reading fails, on behind the damage."""
    query = f"SELECT rowid, {', '.join(columns)} FROM {table} NOT INDEXED WHERE rowid >= ? "
    start = 0
    while True:
        try:
            for rowid, *row in connection.execute(query + "ORDER BY rowid", (start,)):
                yield tuple(row)
                start = rowid + 1
            return
        except sqlite3.Error:
            behind = _behind_damage(connection, query, start)
            if behind is None:
                return
            start = behind


def _behind_damage(connection: sqlite3.Connection, query: str, start: int) -> int | None:
    """The first row key that can be read again; None where nothing more can."""

    def readable(key: int) -> bool:
        connection.execute(query + "ORDER BY rowid LIMIT 1", (key,)).fetchone()
        return True

    def fails(key: int) -> bool:
        try:
            return not readable(key)
        except sqlite3.Error:
            return True

    step = 1
    while fails(start + step):
        step *= 2
        if step > 1 << 40:
            return None
    low, high = start + step // 2, start + step  # fails, reads
    while high - low > 1:
        middle = (low + high) // 2
        if fails(middle):
            low = middle
        else:
            high = middle
    return high


def _mend(connection: sqlite3.Connection, now: float) -> None:
    """Make a sound tree of the rows that were saved."""
    connection.execute(
        """
        INSERT INTO conversation (key, id, created, changed, title, template, system, format, stop,
                                  model)
        SELECT conversation, 'recovered-' || lower(hex(randomblob(8))), min(created), max(created),
               'Recovered conversation', 'none', '', 'auto', '[]', ''
        FROM message WHERE conversation NOT IN (SELECT key FROM conversation) GROUP BY conversation
        """
    )
    connection.execute("DELETE FROM message WHERE role NOT IN ('system', 'user', 'assistant')")
    connection.execute(
        """
        UPDATE message SET parent = NULL WHERE parent IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM message AS above WHERE above.conversation = message.conversation
            AND above.id = message.parent AND above.key < message.key)
        """
    )
    for table in ("reply", "prompt", "chunk"):
        connection.execute(f"DELETE FROM {table} WHERE message NOT IN (SELECT key FROM message)")
    connection.execute("DELETE FROM chunk WHERE message NOT IN (SELECT message FROM reply)")
    broken = [
        key
        for key, crc, data in connection.execute("SELECT key, crc, data FROM chunk")
        if zlib.crc32(data) != crc
    ]
    connection.executemany("DELETE FROM chunk WHERE key = ?", [(key,) for key in broken])
    connection.execute("INSERT INTO message_text (message_text) VALUES ('rebuild')")


def _free_name(path: Path, now: float) -> Path:
    """A dated name beside the file that nothing has."""
    date = time.strftime("%Y-%m-%d-%H%M%S", time.localtime(now))
    name, number = f"{path.name}.damaged-{date}", 1
    while path.with_name(name).exists():
        number += 1
        name = f"{path.name}.damaged-{date}-{number}"
    return path.with_name(name)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _mark(path: Path) -> Path:
    return _beside(path, ".check")
