"""A damaged database: noticed when it is opened, set aside untouched, read as far as it goes.

The damaged file is never changed and never deleted. It gets a second, dated name; what can be read
of a copy of it (`chatapp.store.salvage`) becomes the new database, put in the damaged one's place
in one step. What is looked at when opening is bounded in time, so that a large
database does not hold up the start; damage found later (`chatapp.store.backups` looks at all of it)
leaves a mark, and the next start looks at all of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from chatapp.chat.errors import StoreError
from chatapp.store.backups import backups_of
from chatapp.store.database import BUSY_SECONDS, DamagedDatabase, Database, connect, explain
from chatapp.store.salvage import MAGIC, save_readable

CHECK_SECONDS = 0.25
"""How long opening may look for damage."""

_JOURNALS = ("-journal", "-wal", "-shm")


def mark_damaged(path: Path) -> None:
    """Have the next start look at the whole file."""
    with contextlib.suppress(OSError):
        _mark(path).touch(mode=0o600)


def find_damage(path: Path) -> str:
    """What is wrong with a database file, in SQLite's words; empty where nothing was found.

    Raises StoreError: it cannot be looked at.
    """
    try:
        if path.stat().st_size == 0:
            return "file is empty" if backups_of(path) else ""
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
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
        explained = explain(error, path, "opened")
        if isinstance(explained, DamagedDatabase):
            return str(error)
        raise explained from error


def recover(path: Path, clock: Callable[[], float] = time.time) -> str:
    """Set a damaged database aside and save what can be read of it.

    Returns what was done, in words for the user. Raises StoreError: the folder cannot be written;
    the damaged file is as it was.
    """
    aside = _free_name(path, clock())
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="recovering-") as folder:
            copy, fresh = Path(folder) / "damaged.db", Path(folder) / "fresh.db"
            for ending in ("", *_JOURNALS):
                if (source := _beside(path, ending)).exists():
                    shutil.copyfile(source, _beside(copy, ending))
            Database(fresh, clock=clock).close()
            saved = save_readable(copy, fresh, clock, backups_of(path))
            _swap(path, aside, fresh)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path} is damaged and could not be set aside: {error}") from error
    with contextlib.suppress(OSError):
        _mark(path).unlink(missing_ok=True)
    out_of_backup = f", {saved.filled} of them out of a backup" if saved.filled else ""
    return (
        f"{path.name} was damaged. It is kept untouched as {aside.name}; {saved.conversations} "
        f"conversations with {saved.messages} messages could be read and are here{out_of_backup}"
    )


@contextlib.contextmanager
def opening(path: Path) -> Iterator[None]:
    """Let one program at a time check, recover and migrate a database.

    Raises StoreError: another one has been at it for too long.
    """
    lock = filelock.FileLock(_beside(path, ".lock"), 2 * BUSY_SECONDS, mode=0o600)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise StoreError(f"another chatapp is still opening {path}; try again") from None
    except OSError:  # a folder that may only be read: nothing will be changed either
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _quick_check(connection: sqlite3.Connection, seconds: float | None) -> str:
    """What quick_check finds first within a time (None: all of it)."""
    timer = threading.Timer(seconds or 0, connection.interrupt)
    if seconds is not None:
        timer.start()
    try:
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (
            sqlite3.SQLITE_INTERRUPT,  # the time is over
            sqlite3.SQLITE_BUSY,  # another program is writing to it
            sqlite3.SQLITE_READONLY,
        ):
            return ""
        raise
    finally:
        if seconds is not None:
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


def _free_name(path: Path, now: float) -> Path:
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
