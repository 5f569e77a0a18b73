"""Copies of the database beside it, for the day that it is damaged.

A thread of its own makes them while the program runs: when there is none yet, when the newest is a
day old, and when the database has grown by half since. Each is checked from end to end before it
takes the place of an older one, so damage that opening had no time to see is found here too.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from chatapp.store.database import connect

KEPT = 2
"""How many there are at most."""

_OLD_SECONDS = 24 * 3600.0
_GROWTH = 1.5
_LOOK_EVERY_SECONDS = 3600.0
_PAGES_AT_ONCE = 1000
"""Who writes meanwhile waits no longer than these take."""


def backups_of(path: Path) -> tuple[Path, ...]:
    """The backups of a database, the newest first."""
    return tuple(place for place in _places(path) if place.exists())


class Backups:
    """Makes backups of one database until it is told to stop."""

    def __init__(self, path: Path, on_damage: Callable[[], None]) -> None:
        """Begin at once; `on_damage` is called, in their thread, where it is damaged."""
        self._path, self._on_damage = path, on_damage
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="backups", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it soon, and wait for that; a copy that is under way is given up."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with contextlib.suppress(OSError, sqlite3.Error):  # it will be tried again
                if is_due(self._path) and not back_up(self._path, self._stop):
                    self._on_damage()
            if self._stop.wait(_LOOK_EVERY_SECONDS):
                return


def is_due(path: Path) -> bool:
    """Whether a database wants another backup, and the disk has room. Raises OSError."""
    size = path.stat().st_size
    if shutil.disk_usage(path.parent).free < 2 * size:
        return False
    newest = next(iter(backups_of(path)), None)
    if newest is None:
        return True
    made = newest.stat()
    return time.time() - made.st_mtime > _OLD_SECONDS or size > _GROWTH * made.st_size


def back_up(path: Path, stop: threading.Event) -> bool:
    """Make a backup of a database.

    `stop`: once it is set, the backup is given up. Returns False where the database is damaged;
    there is no new backup then. Raises OSError, sqlite3.Error: it could not be made, or was given
    up.
    """
    fresh = path.with_name(f"{path.name}.backup-new")
    with contextlib.suppress(FileNotFoundError):
        if time.time() - fresh.stat().st_mtime > _LOOK_EVERY_SECONDS:
            fresh.unlink()  # of a program that died
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL, 0o600))  # else another program is at it
    try:
        with contextlib.closing(connect(path)) as old, contextlib.closing(connect(fresh)) as new:
            old.execute("PRAGMA busy_timeout = 0")  # it asks again by itself, and can be stopped
            new.execute("PRAGMA journal_mode = OFF")  # a file that fails is thrown away
            new.execute("PRAGMA synchronous = FULL")

            def go_on(*_: int) -> None:
                if stop.is_set():
                    raise sqlite3.OperationalError("the program ends")

            old.backup(new, pages=_PAGES_AT_ONCE, progress=go_on)
            (found,) = new.execute("PRAGMA quick_check(1)").fetchone()
        if found == "ok":
            for older, newer in itertools.pairwise(reversed(_places(path))):
                if newer.exists():
                    newer.replace(older)
            fresh.replace(_places(path)[0])
        return bool(found == "ok")
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        return False
    finally:
        fresh.unlink(missing_ok=True)


def _places(path: Path) -> tuple[Path, ...]:
    return tuple(path.with_name(f"{path.name}.backup-{number}") for number in range(1, KEPT + 1))
