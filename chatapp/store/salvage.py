"""What can be read of a damaged database, put into a new one.

First SQLite reads each table row by row, around what it cannot read. Then every page is looked at
without it (`chatapp.store.pages`) for the rows it could not reach: those below a broken page of
their table, or all of them where the schema is gone. What SQLite read is never replaced by that,
since a page may hold an older version of a row. And nothing that was deleted comes back: what
stands in a free page counts for nothing; where the list of free pages is broken too, nothing is
added to a table that SQLite read from end to end.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatapp.store.database import connect
from chatapp.store.migrations import migrate
from chatapp.store.packing import PackingError, unpack_prompt
from chatapp.store.pages import DEFAULT_PAGE_SIZE, Pages, free_pages, table_rows

LAST_ROWID = 2**63 - 1
"""The largest key of a row in SQLite; damage can make any key look like it."""

_KINDS: dict[str, tuple[type, ...]] = {
    "INTEGER": (int,),
    "REAL": (float, int),  # a whole number is stored as an integer
    "TEXT": (str,),
    "BLOB": (bytes,),
}

_RIVALS = {
    "conversation": "key = :key OR id = :id",
    "message": "key = :key OR (conversation = :conversation AND id = :id)",
    "reply": "message = :message",
    "prompt": "message = :message",
    "chunk": "key = :key OR (message = :message AND start < :start + :count "
    "AND start + count > :start)",
}
"""By table, which rows cannot stand beside a row: the same one, or the same token records."""


@dataclass(frozen=True, slots=True)
class Saved:
    """How much could be read."""

    conversations: int
    messages: int


@dataclass(frozen=True, slots=True)
class Table:
    """A table by the shape of its rows: which kinds of values stand in which column."""

    name: str
    columns: tuple[str, ...]
    """The first one is the key, which is the row id."""
    kinds: tuple[tuple[type, ...], ...]
    least: int
    """How many values a row has at least: those of columns that came later may be missing."""

    @classmethod
    def of(cls, connection: sqlite3.Connection, name: str) -> Table:
        """A table of a sound database."""
        columns, kinds, least = [], [], 0
        for _, column, kind, needed, default, _ in connection.execute(f"PRAGMA table_info({name})"):
            columns.append(column)
            kinds.append(_KINDS[kind] if needed or not least else (*_KINDS[kind], type(None)))
            if not least or (needed and default is None):
                least = len(columns)
        return cls(name, tuple(columns), tuple(kinds), least)

    def fits(self, row: Sequence[object]) -> bool:
        """Whether a row, its key first, is one of this table and is sound."""
        if not self.least <= len(row) <= len(self.columns):
            return False
        if not all(isinstance(value, kinds) for value, kinds in zip(row, self.kinds, strict=False)):
            return False
        return self._is_sound(self.named(row))

    def named(self, row: Sequence[object]) -> dict[str, Any]:
        """The values by their columns."""
        return dict(zip(self.columns, row, strict=False))

    def insert(self, connection: sqlite3.Connection, row: Sequence[object]) -> None:
        """Add a row, unless it breaks a rule of the schema; that is damage too."""
        names = ", ".join(self.columns[: len(row)])
        marks = ", ".join("?" * len(row))
        with contextlib.suppress(sqlite3.IntegrityError):
            connection.execute(f"INSERT INTO {self.name} ({names}) VALUES ({marks})", row)

    def _is_sound(self, row: dict[str, Any]) -> bool:
        """What can be told of a row beyond its shape."""
        match self.name:
            case "message":
                return bool(row["role"] in ("system", "user", "assistant"))
            case "chunk":
                return bool(zlib.crc32(row["data"]) == row["crc"])
            case "prompt":  # the search index has tables of this shape; their blobs are no ids
                try:
                    unpack_prompt(row["ids"])
                except PackingError:
                    return False
        return True


def save_readable(damaged: Path, fresh: Path, clock: Callable[[], float]) -> Saved:
    """Carry over what can be read.

    Args:
        damaged: a copy of the damaged file, with its journal; it may be changed.
        fresh: an empty database with our schema.
        clock: seconds since the epoch.

    Raises:
        OSError, sqlite3.Error: the new database cannot be written.
    """
    with contextlib.closing(connect(fresh)) as new:
        new.execute("PRAGMA foreign_keys = OFF")
        tables = tuple(Table.of(new, name) for name in _RIVALS)
        new.execute("BEGIN")
        unread = _carry_all(damaged, new, tables)
        if not any(_counts(new)):
            unread = _carry_all(_with_our_first_page(damaged, clock), new, tables)
        _add_from_pages(damaged, new, tables, unread)
        _mend(new, clock())
        new.execute("COMMIT")
        return Saved(*_counts(new))


def _counts(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many conversations and messages there are."""
    query = "SELECT (SELECT count(*) FROM conversation), (SELECT count(*) FROM message)"
    conversations, messages = connection.execute(query).fetchone()
    return conversations, messages


# By SQLite


def _carry_all(path: Path, new: sqlite3.Connection, tables: Sequence[Table]) -> frozenset[str]:
    """Copy what SQLite can read. Returns the tables that it could not read to the end."""
    with contextlib.closing(connect(path)) as old:
        old.text_factory = lambda raw: raw.decode("utf-8", "replace")
        return frozenset(table.name for table in tables if not _carry(old, new, table))


def _carry(old: sqlite3.Connection, new: sqlite3.Connection, table: Table) -> bool:
    """Copy a table's rows by their keys; where reading fails, go on behind the damage.

    Returns:
        Whether nothing failed.
    """
    try:
        known = old.execute(f"PRAGMA table_info({table.name})").fetchall()
    except sqlite3.Error:
        return False
    columns = table.columns[: len(known)]  # an older schema has fewer
    if not columns:
        return False
    query = f"SELECT {', '.join(columns)} FROM {table.name} NOT INDEXED WHERE rowid >= ? "
    start, whole = 0, True
    while True:
        try:
            for row in old.execute(query + "ORDER BY rowid", (start,)):
                if table.fits(row):
                    table.insert(new, row)
                start = min(row[0] + 1, LAST_ROWID)
            return whole
        except sqlite3.Error:
            whole = False
            if start == LAST_ROWID:
                return False
            behind = _behind_damage(old, query, start)
            if behind is None:
                return False
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
    while fails(min(start + step, LAST_ROWID)):
        step *= 2
        if step > 1 << 40 or start + step > LAST_ROWID:
            return None
    low, high = start + step // 2, min(start + step, LAST_ROWID)  # fails, reads
    while high - low > 1:
        middle = (low + high) // 2
        if fails(middle):
            low = middle
        else:
            high = middle
    return high


def _with_our_first_page(damaged: Path, clock: Callable[[], float]) -> Path:
    """The file with a sound first page: ours are alike, so a new database's fits an old one.

    The first page holds the header and the schema, which says where each table begins. The tables
    are made by the migrations, in one order, before any row: they begin at the same pages always.
    """
    patched, template = damaged.with_name("patched.db"), damaged.with_name("template.db")
    with contextlib.closing(connect(template)) as connection:
        migrate(connection, clock)
    with template.open("rb") as file:
        page = bytearray(file.read(DEFAULT_PAGE_SIZE))
    shutil.copyfile(damaged, patched)
    pages = max(1, damaged.stat().st_size // DEFAULT_PAGE_SIZE)
    page[28:32] = pages.to_bytes(4, "big")  # the database's size, in the header
    page[32:40] = bytes(8)  # no free pages: which ones are is not known
    with patched.open("r+b") as file:
        file.write(page)
    return patched


# By pages


def _add_from_pages(
    path: Path, new: sqlite3.Connection, tables: Sequence[Table], unread: frozenset[str]
) -> None:
    """Add the rows that SQLite did not reach.

    Args:
        path: the damaged file. SQLite has had it open, so a journal is played back by now.
        new: where to, inside a transaction.
        tables: whose rows.
        unread: the tables that SQLite could not read to the end.
    """
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        pages = Pages.of(data)
        free = free_pages(pages)
        open_to_more = [table for table in tables if free is not None or table.name in unread]
        added: dict[tuple[str, int], int] = {}
        for row in table_rows(pages, free or frozenset()) if open_to_more else ():
            if row.values[:1] != (None,):
                continue  # every key of ours is the row id, which is not stored twice
            values = (row.rowid, *row.values[1:])
            for table in open_to_more:
                if table.fits(values):
                    _add(new, table, values, added)


def _add(
    new: sqlite3.Connection,
    table: Table,
    row: Sequence[object],
    added: dict[tuple[str, int], int],
) -> None:
    """Add a row out of a page, unless SQLite read it; of two versions the longer stays.

    Two versions can be met only where free pages are not known. Replies grow, so the longer one is
    the later.

    Args:
        new: where to.
        table: whose row it is.
        row: its values, the key first.
        added: the lengths of those that came out of pages, by table and key; brought up to date.
    """
    key = table.columns[0]
    length = sum(len(value) for value in row if isinstance(value, str | bytes))
    found = new.execute(
        f"SELECT {key} FROM {table.name} WHERE {_RIVALS[table.name]}", table.named(row)
    )
    rivals = [(table.name, rival) for (rival,) in found]
    if any(added.get(rival, math.inf) >= length for rival in rivals):
        return
    for rival in rivals:
        new.execute(f"DELETE FROM {table.name} WHERE {key} = ?", (rival[1],))
    table.insert(new, row)
    added[table.name, int(str(row[0]))] = length


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
    connection.execute("INSERT INTO message_text (message_text) VALUES ('rebuild')")
