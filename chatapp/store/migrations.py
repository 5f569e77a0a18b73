"""The schema's history: named steps, only ever added to.

Each step runs in one transaction together with the row that says it ran, so a database stands
before or after a step and never in between. A step that was released is never changed; a test holds
the fingerprint of each. A database that names a step unknown here was made by a newer chatapp.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

APPLICATION_ID = 0x63686174
"""What marks the file as ours (the bytes "chat")."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    name: str
    statements: tuple[str, ...]


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "0001 conversations, messages, replies",
        (
            f"PRAGMA application_id = {APPLICATION_ID}",
            """
            CREATE TABLE conversation (
                key INTEGER PRIMARY KEY,
                id TEXT NOT NULL UNIQUE,
                created REAL NOT NULL,
                changed REAL NOT NULL,
                title TEXT NOT NULL,
                template TEXT NOT NULL,
                system TEXT NOT NULL,
                format TEXT NOT NULL,
                stop TEXT NOT NULL,        -- a JSON list
                model TEXT NOT NULL,
                leaf TEXT,                 -- may name a message that was not saved in time
                pinned INTEGER NOT NULL DEFAULT 0,
                deleted REAL
            )
            """,
            """
            CREATE TABLE message (
                key INTEGER PRIMARY KEY,   -- grows: the order in which messages were made
                conversation INTEGER NOT NULL REFERENCES conversation (key) ON DELETE CASCADE,
                id TEXT NOT NULL,
                parent TEXT,
                role TEXT NOT NULL,
                text TEXT NOT NULL,
                created REAL NOT NULL,
                deleted REAL,
                UNIQUE (conversation, id),
                FOREIGN KEY (conversation, parent) REFERENCES message (conversation, id)
                    DEFERRABLE INITIALLY DEFERRED
            )
            """,
            "CREATE INDEX message_order ON message (conversation, key)",
            "CREATE INDEX message_parent ON message (conversation, parent)",
            """
            CREATE TABLE reply (
                message INTEGER PRIMARY KEY REFERENCES message (key) ON DELETE CASCADE,
                model TEXT NOT NULL,
                model_sha256 TEXT NOT NULL,
                seed TEXT NOT NULL,        -- decimal; a seed may be wider than 64 bits
                cached_tokens INTEGER NOT NULL,
                sampling BLOB NOT NULL,
                finish_reason TEXT,        -- NULL while it streams, or when it was cut off
                error TEXT NOT NULL,
                seconds REAL NOT NULL,
                time_to_first_token REAL NOT NULL
            )
            """,
            """
            CREATE TABLE prompt (
                message INTEGER PRIMARY KEY REFERENCES message (key) ON DELETE CASCADE,
                ids BLOB NOT NULL
            )
            """,
            """
            CREATE TABLE chunk (
                key INTEGER PRIMARY KEY,
                message INTEGER NOT NULL REFERENCES message (key) ON DELETE CASCADE,
                start INTEGER NOT NULL,    -- place of its first record in the reply
                count INTEGER NOT NULL,
                crc INTEGER NOT NULL,
                data BLOB NOT NULL,
                UNIQUE (message, start)
            )
            """,
        ),
    ),
    Migration(
        "0002 full-text search",
        (
            """
            CREATE VIRTUAL TABLE message_text USING fts5 (
                text, content='message', content_rowid='key',
                tokenize='unicode61 remove_diacritics 2', prefix='1 2 3'
            )
            """,
            "INSERT INTO message_text (message_text) VALUES ('rebuild')",
            """
            CREATE TRIGGER message_added AFTER INSERT ON message BEGIN
                INSERT INTO message_text (rowid, text) VALUES (new.key, new.text);
            END
            """,
            """
            CREATE TRIGGER message_removed AFTER DELETE ON message BEGIN
                INSERT INTO message_text (message_text, rowid, text)
                    VALUES ('delete', old.key, old.text);
            END
            """,
            """
            CREATE TRIGGER message_reworded AFTER UPDATE OF text ON message
            WHEN old.text IS NOT new.text BEGIN
                INSERT INTO message_text (message_text, rowid, text)
                    VALUES ('delete', old.key, old.text);
                INSERT INTO message_text (rowid, text) VALUES (new.key, new.text);
            END
            """,
        ),
    ),
    Migration(
        "0003 what ran the model",
        ("ALTER TABLE reply ADD COLUMN runtime TEXT NOT NULL DEFAULT ''",),
    ),
    Migration(
        "0004 thinking",
        (
            "ALTER TABLE reply ADD COLUMN thinking TEXT",  # JSON; NULL where there is none
            "ALTER TABLE conversation ADD COLUMN think INTEGER",  # 0, 1; NULL: as the template does
        ),
    ),
)

_BOOKKEEPING = "CREATE TABLE IF NOT EXISTS migration (name TEXT PRIMARY KEY, applied REAL NOT NULL)"


def applied(connection: sqlite3.Connection) -> tuple[str, ...]:
    """The names of the steps that this database has been through; none for an empty file.

    Raises sqlite3.Error: it cannot be read.
    """
    tables = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'migration'")
    if tables.fetchone() is None:
        return ()
    return tuple(name for (name,) in connection.execute("SELECT name FROM migration ORDER BY name"))


def is_foreign(connection: sqlite3.Connection) -> bool:
    """Whether the file is some other program's database. Raises sqlite3.Error."""
    (count,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return count > 0 and not applied(connection)


def newer_steps(
    connection: sqlite3.Connection, known: Sequence[Migration] = MIGRATIONS
) -> tuple[str, ...]:
    """The steps in the database that this version does not know. Raises sqlite3.Error."""
    names = {migration.name for migration in known}
    return tuple(name for name in applied(connection) if name not in names)


def migrate(
    connection: sqlite3.Connection,
    clock: Callable[[], float],
    known: Sequence[Migration] = MIGRATIONS,
) -> None:
    """Run every step that is missing, each in a transaction of its own. Raises sqlite3.Error."""
    if len(applied(connection)) == len(known):
        return
    for migration in known:
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Looked at again inside: another chatapp may have run it meanwhile.
            if migration.name not in applied(connection):
                connection.execute(_BOOKKEEPING)
                for statement in migration.statements:
                    connection.execute(statement)
                connection.execute(
                    "INSERT INTO migration (name, applied) VALUES (?, ?)",
                    (migration.name, clock()),
                )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
