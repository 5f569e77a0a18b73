"""The database file: how it is opened, written and kept whole.

Durability is chosen knowingly:

- SQLite before 3.51.3 can corrupt a database in WAL mode when two connections write and checkpoint
  at once (Debian 12 ships 3.40.1), and a second chatapp on the same folder is allowed. So below
  that version a rollback journal is used, which has no such fault; from it on, WAL.
- `synchronous=FULL` in both: a commit that returned survives a power cut. The rollback journal is
  of the mode TRUNCATE, not DELETE: FULL syncs the truncated journal, but not the folder after a
  deletion, so that a deleted journal could come back and undo a commit. This holds on disks that
  have written what they say they have; tests/store/test_power.py takes away what was not synced, at
  every step of a turn. (With NORMAL, every sixth of its power cuts loses something.)
- No memory map: a fault in the mapped file would be a crash instead of an error.
- Every write is one short `BEGIN IMMEDIATE` transaction, so two programs take turns and neither
  reads, then finds that it may not write. Who waits asks again every few milliseconds: SQLite's own
  waiting grows to 100 ms a try, and starves beside a program that writes without a pause.
- The file is 0600 in a folder of 0700. SQLite gives its journals the same rights.

An error in the middle of a write rolls back; should even that fail, the connection is dropped and
the next use opens a new one, which rolls the journal back.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from chatapp.chat.errors import ChatappError, StoreError
from chatapp.settings.paths import make_folder
from chatapp.store.migrations import is_foreign, migrate, newer_steps

BUSY_SECONDS = 10.0
"""How long a transaction waits for another program's."""

_ASK_AGAIN_MILLISECONDS = 20
"""How long SQLite waits by itself each time; it asks some five times within these."""

WAL_SAFE = (3, 51, 3)
"""The first SQLite whose WAL mode stands two writers."""

Connect = Callable[[Path], sqlite3.Connection]
"""Makes a connection; tests put one here that fails on purpose."""


class DamagedDatabase(StoreError):
    """SQLite finds the file inconsistent."""


class Refused(StoreError):
    """What is asked for cannot be; trying again would not help."""


def journal_mode(
    version: tuple[int, ...] = sqlite3.sqlite_version_info,
) -> Literal["wal", "truncate"]:
    """Which journal is safe with two writers on that version of SQLite."""
    return "wal" if version >= WAL_SAFE else "truncate"


class _Connection(sqlite3.Connection):
    """Python fails to decode what SQLite says about a schema whose names are damaged."""

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        try:
            return super().execute(*arguments)
        except UnicodeDecodeError:
            error = sqlite3.DatabaseError("names in its schema are no text")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error from None


def connect(path: Path) -> sqlite3.Connection:
    """A connection that leaves transactions to us. Raises sqlite3.Error."""
    return sqlite3.connect(
        path,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        factory=_Connection,
    )


class Database:
    """One database file, used by one thread at a time."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        make_connection: Connect = connect,
    ) -> None:
        """Open the file, making it and bringing its schema up to date where needed.

        Raises DamagedDatabase: the file is no intact database. Raises StoreError: it cannot be
        made, read or brought up to date, or is another program's.
        """
        self.path = path
        self.read_only = ""
        """Why nothing can be written; empty where it can."""
        self._make_connection = make_connection
        self._connection: sqlite3.Connection | None = None
        prepare_file(path)
        with self._translated("opened"):
            connection = self._connected()
            connection.execute(f"PRAGMA busy_timeout = {1000 * BUSY_SECONDS:.0f}")
            if is_foreign(connection):
                raise StoreError(f"{path} is another program's database; move it away")
            if newer_steps(connection):
                self.read_only = f"{path} was written by a newer chatapp; update to write to it"
            elif not os.access(path, os.W_OK):
                self.read_only = f"{path} may only be read; give yourself the right to write to it"
            else:
                migrate(connection, clock)
            connection.execute(f"PRAGMA busy_timeout = {_ASK_AGAIN_MILLISECONDS}")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the file. Raises StoreError: it cannot be read."""
        with self._translated("read"):
            connection = self._connected()
            try:
                connection.execute("BEGIN")
                _patiently(connection, "SELECT 1 FROM sqlite_master")  # takes the lock to read
                yield connection
            finally:
                self._roll_back()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is on disk when the block ends, or none of it.

        Raises StoreError: it could not be written; what was committed before stands.
        """
        if self.read_only:
            raise StoreError(self.read_only)
        with self._translated("written"):
            connection = self._connected()
            try:
                _patiently(connection, "BEGIN IMMEDIATE")
                yield connection
                _patiently(connection, "COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = self._make_connection(self.path)
            try:
                set_up(connection)
                connection.execute(f"PRAGMA busy_timeout = {_ASK_AGAIN_MILLISECONDS}")
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _roll_back(self) -> None:
        """End the transaction; where that fails, drop the connection and let the journal do it."""
        if self._connection is None or not self._connection.in_transaction:
            return
        try:
            self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.close()

    @contextlib.contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OverflowError) as error:
            raise explain(error, self.path, verb) from error


def prepare_file(path: Path) -> None:
    """Make the folder and the empty file, for their owner alone. Raises StoreError."""
    try:
        make_folder(path.parent)
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT, 0o600))
    except ChatappError as error:
        raise StoreError(f"conversations cannot be kept: {error}") from None
    except OSError as error:
        raise StoreError(
            f"conversations cannot be kept: {path}: {error.strerror}; check the rights of its "
            "folder, or set CHATAPP_HOME to another one"
        ) from None


def set_up(connection: sqlite3.Connection) -> None:
    """What every connection to the file needs. Raises sqlite3.Error."""
    connection.execute("PRAGMA mmap_size = 0")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    # Busy when another program has it open in the other mode: then the mode stays as it is.
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute(f"PRAGMA journal_mode = {journal_mode()}")


def _patiently(connection: sqlite3.Connection, statement: str) -> None:
    """Run a statement that takes a lock, again and again while another program holds it."""
    give_up = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute(statement).fetchone()
            return
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > give_up:
                raise


def _is_busy(error: sqlite3.Error) -> bool:
    return (_code(error) & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _code(error: BaseException) -> int:
    return getattr(error, "sqlite_errorcode", None) or 0


_WORDS = {
    sqlite3.SQLITE_FULL: "the disk is full; make room",
    sqlite3.SQLITE_BUSY: "another program keeps it locked; close it, or try again",
    sqlite3.SQLITE_LOCKED: "another program keeps it locked; close it, or try again",
    sqlite3.SQLITE_READONLY: "it may not be written; check its rights and its folder's",
    sqlite3.SQLITE_PERM: "it may not be read; check its rights",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check its rights and its folder's",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
}


def explain(error: BaseException, path: Path, verb: str) -> StoreError:
    code = _code(error) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DamagedDatabase(
            f"{path} is damaged ({error}); start chatapp again: what is readable will be saved"
        )
    hopeless = isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | OverflowError)
    words = _WORDS.get(code, str(error))
    return (Refused if hopeless else StoreError)(f"{path} could not be {verb}: {words}")
