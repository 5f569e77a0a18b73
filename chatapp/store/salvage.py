"""What can be read of a damaged database, put into a new one; what cannot, out of a copy of it.

SQLite does all the reading. First it reads each table row by row, around what it cannot read. Then
every page that holds rows is given to it as all there is of a table, for the rows it could not
reach: those below a broken page of their table, or all of them where the schema is gone. Last
come the backups, newest first. What was read earlier is never replaced by what is read later.

Nothing that was deleted comes back: what stands in a free page counts for nothing; where the list
of free pages is broken too, nothing is added to a table that SQLite read from end to end.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatapp.store.database import connect
from chatapp.store.migrations import migrate
from chatapp.store.packing import PackingError, unpack_prompt

MAGIC = b"SQLite format 3\0"

_LAST_ROWID = 2**63 - 1
"""The largest key of a row in SQLite; damage can make any key look like it."""

SHAPES = {
    "conversation": "it[ir][ir]t{6}[tn]i[irn][in]",
    "message": "iit[tn]tt[ir][irn]",
    "reply": "itttib[tn]t[ir][ir][tn][tn]",  # the last columns came later
    "prompt": "ib",
    "chunk": "iiiiib",
}
"""By table, the kinds of its columns, the key first; a whole number may be stored as an integer."""

_KINDS = {int: "i", float: "r", str: "t", bytes: "b", type(None): "n"}
_WIDTH = 14
"""The most columns that a table has."""

_HOLDS_ROWS = b"\x0d"
"""What a page of rows begins with."""

_PARENTS = {"message": "conversation", "reply": "message", "prompt": "message", "chunk": "message"}

_NO_OVERLAP = """
    CREATE TEMP TRIGGER no_overlap BEFORE INSERT ON main.chunk WHEN EXISTS (
        SELECT 1 FROM main.chunk WHERE message = new.message
        AND start < new.start + new.count AND start + count > new.start
    ) BEGIN SELECT RAISE(IGNORE); END
"""
"""Of several rows with the same token records the first one stays."""

_Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Saved:
    """How much could be read."""

    conversations: int
    messages: int
    filled: int
    """How many of the messages came out of a backup."""


def save_readable(
    damaged: Path, fresh: Path, clock: Callable[[], float], backups: Sequence[Path] = ()
) -> Saved:
    """Carry over what can be read.

    Raises OSError, sqlite3.Error: the new database cannot be written.

    Args:
        damaged: a copy of the damaged file, with its journal; it may be changed.
        fresh: an empty database with our schema.
        backups: sound copies of earlier states, the newest first; they are not changed.
    """
    free = free_pages(damaged)
    with contextlib.closing(connect(fresh)) as new:
        new.execute("PRAGMA foreign_keys = OFF")
        new.execute(_NO_OVERLAP)
        unread: set[str] = set()
        _add(new, _rows_of_tables(damaged, unread))
        if not any(_counts(new)):
            # The tables are made by the migrations, in one order, before any row: they begin at the
            # same pages always, so that a new database's schema fits an old one.
            _replace_first_page(damaged, lambda connection: migrate(connection, clock))
            unread.clear()
            _add(new, _rows_of_tables(damaged, unread))
        tables = unread if free is None else set(SHAPES)
        rows = rows_of_pages(damaged, free or frozenset()) if tables else ()
        _add(new, ((table, row) for row in rows for table in tables))
        _, read = _counts(new)
        for backup in backups:
            copy = shutil.copyfile(backup, damaged.with_name(backup.name))
            with contextlib.closing(connect(copy)) as connection:
                migrate(connection, clock)
            new.execute("ATTACH ? AS old", (str(copy),))
            _fill(new)
        _mend(new)
        conversations, messages = _counts(new)
        return Saved(conversations, messages, messages - read)


def _counts(connection: sqlite3.Connection) -> tuple[int, int]:
    query = "SELECT (SELECT count(*) FROM conversation), (SELECT count(*) FROM message)"
    conversations, messages = connection.execute(query).fetchone()
    return conversations, messages


def _add(new: sqlite3.Connection, rows: Iterable[tuple[str, _Row]]) -> None:
    """Add rows to the tables they may be of, where they are sound and nothing is in their place."""
    new.execute("ATTACH '' AS old")
    for table in SHAPES:
        new.execute(f"CREATE TABLE old.{table} AS SELECT * FROM main.{table} WHERE false")
    marks = {table: ", ".join("?" * len(_columns(new, table))) for table in SHAPES}
    new.execute("BEGIN")
    for table, row in rows:
        if _is_sound(table, row):
            values = row[: marks[table].count("?")]
            new.execute(f"INSERT INTO old.{table} VALUES ({marks[table]})", values)
    new.execute("UPDATE old.reply SET runtime = '' WHERE runtime IS NULL")
    new.execute("COMMIT")
    _fill(new)


def _fill(new: sqlite3.Connection) -> None:
    """Add what `old` has alone, and let go of it; of two versions of a row the longer comes first.

    Replies grow, so the longer version is the later. A key may be another row's by now: what is
    known to belong to that one stays away.
    """
    new.execute("BEGIN")
    for table in SHAPES:
        key, *others = _columns(new, table)
        columns = ", ".join(["NULL" if table == "chunk" else key, *others])
        size = " + ".join(f"ifnull(length({column}), 0)" for column in others)
        known = ""
        if parent := _PARENTS.get(table):
            known = (
                f"WHERE {parent} NOT IN (SELECT key FROM old.{parent}) OR {parent} IN "
                f"(SELECT key FROM old.{parent} JOIN main.{parent} USING (key, id))"
            )
        new.execute(
            f"INSERT OR IGNORE INTO main.{table} "
            f"SELECT {columns} FROM old.{table} {known} ORDER BY {size} DESC"
        )
    new.execute("COMMIT")
    new.execute("DETACH old")


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    found = connection.execute(f"SELECT * FROM main.{table} LIMIT 0").description
    return [column[0] for column in found]


def _filled_up(row: _Row) -> _Row:
    return (*row, *[None] * (_WIDTH - len(row)))


def _is_sound(table: str, row: _Row) -> bool:
    """Whether a row, its key first, can be one of that table."""
    kinds = "".join(_KINDS[type(value)] for value in row)
    if not re.fullmatch(SHAPES[table] + "n*", kinds):
        return False
    match table:
        case "message":
            return row[4] in ("system", "user", "assistant")
        case "chunk":
            return bool(zlib.crc32(row[5]) == row[4])
        case "prompt":  # the search index has tables of this shape; their blobs are no ids
            try:
                unpack_prompt(row[1])
            except PackingError:
                return False
    return True


def _rows_of_tables(path: Path, unread: set[str]) -> Iterator[tuple[str, _Row]]:
    """The rows of each table by their keys; a table that cannot be read to its end is noted."""
    with contextlib.closing(connect(path)) as connection:
        for table in SHAPES:
            for row in _rows(connection, f"SELECT rowid, * FROM {table} NOT INDEXED"):
                if row is None:
                    unread.add(table)
                else:
                    yield table, _filled_up((row[0], *row[2:]))


def rows_of_pages(path: Path, free: frozenset[int]) -> Iterator[_Row]:
    """Every row in every page that holds rows of a table whose key is the row id.

    `path`: the file, whose first pages are overwritten.
    """
    columns = [f"c{place}" for place in range(_WIDTH)]
    create = f"CREATE TABLE page ({', '.join(columns)})"
    size, count = _replace_first_page(path, lambda connection: connection.execute(create))
    with (
        contextlib.closing(connect(path)) as connection,
        path.open("r+b", buffering=0) as file,
    ):
        for number in range(2, count + 1):
            file.seek((number - 1) * size)
            page = file.read(size)
            if number in free or not page.startswith(_HOLDS_ROWS):
                continue
            # Each in turn is put where the table begins: at the second page, as any first table, so
            # that no row of another page goes on there.
            file.seek(size)
            file.write(page)
            file.seek(24)
            file.write(number.to_bytes(4, "big"))  # the counter of changes: SQLite looks again
            for row in _rows(connection, "SELECT rowid, * FROM page"):
                if row is not None and row[1] is None:  # the key is the row id, not stored twice
                    yield _filled_up((row[0], *row[2:]))


def _rows(connection: sqlite3.Connection, query: str) -> Iterator[_Row | None]:
    """The rows of a table by their row ids, which come first; None for damage passed over."""
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    query += " WHERE rowid >= ? ORDER BY rowid LIMIT 1"
    start: int | None = 0
    while start is not None:
        try:
            row = connection.execute(query, (start,)).fetchone()
        except sqlite3.Error:
            yield None
            start = _behind_damage(connection, query, start)
            continue
        if row is None:
            return
        yield row
        start = row[0] + 1 if row[0] < _LAST_ROWID else None


def _behind_damage(connection: sqlite3.Connection, query: str, start: int) -> int | None:
    """The first row id from which reading works again; None where nothing more can be read."""

    def fails(key: int) -> bool:
        try:
            connection.execute(query, (key,)).fetchone()
        except sqlite3.Error:
            return True
        return False

    step = 1
    while fails(min(start + step, _LAST_ROWID)):
        step *= 2
        if step > 1 << 40 or start + step > _LAST_ROWID:
            return None
    low, high = start + step // 2, min(start + step, _LAST_ROWID)  # fails, reads
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fails(middle) else (low, middle)
    return high


def _page_size(header: bytes) -> int:
    size = int.from_bytes(header[16:18], "big")
    size = 65536 if size == 1 else size
    is_size = 512 <= size <= 65536 and size & (size - 1) == 0
    return size if header.startswith(MAGIC) and is_size else 4096


def _replace_first_page(
    path: Path, create: Callable[[sqlite3.Connection], object]
) -> tuple[int, int]:
    """Give a file the header and the schema of a new database.

    `create`: makes the schema, which must fit into a page. Returns the size of a page, and how many
    there are; the last is filled up where it was cut.
    """
    template = path.with_name("template.db")
    template.unlink(missing_ok=True)
    with path.open("r+b") as file:
        size = _page_size(file.read(100))
        with contextlib.closing(connect(template)) as connection:
            connection.execute(f"PRAGMA page_size = {size}")
            create(connection)
        with template.open("rb") as made:
            page = bytearray(made.read(size))
        count = max(2, -(-path.stat().st_size // size))  # a schema names a page behind it
        page[28:32] = count.to_bytes(4, "big")
        page[32:40] = bytes(8)  # no free pages: which ones are is not known
        file.truncate(count * size)
        file.seek(0)
        file.write(page)
    return size, count


def free_pages(path: Path) -> frozenset[int] | None:
    """The pages that hold nothing any more, though old rows may still stand in them.

    They are a list of pages that each list others: https://www.sqlite.org/fileformat2.html, 1.5.
    Returns their numbers; None where that list is broken, so that they are not known.
    """
    with path.open("rb") as file:
        header = file.read(100)
        if not header.startswith(MAGIC) or len(header) < 100:
            return None
        size, found = _page_size(header), list[int]()
        trunk, expected = struct.unpack_from(">II", header, 32)
        try:
            while trunk and len(found) <= expected:
                file.seek((trunk - 1) * size)
                page = file.read(size)
                following, leaves = struct.unpack_from(">II", page)
                found += (trunk, *struct.unpack_from(f">{leaves}I", page, 8))
                trunk = following
        except struct.error:
            return None
    free, last = frozenset(found), path.stat().st_size // size
    is_sound = len(free) == len(found) == expected and all(1 < page <= last for page in free)
    return free if is_sound else None


def _mend(connection: sqlite3.Connection) -> None:
    """Make a sound tree of the rows that were saved."""
    connection.execute("BEGIN")
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
    connection.execute("COMMIT")
