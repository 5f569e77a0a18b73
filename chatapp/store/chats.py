"""What can be done with the conversations in a database.

Everything here blocks until it is on disk; `Store` runs it in a thread of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from chatapp.chat.conversation import Conversation, ConversationError, Message, new_id
from chatapp.chat.errors import StoreError
from chatapp.chat.summary import ConversationSummary, SearchHit
from chatapp.store.database import Database
from chatapp.store.packing import PackingError
from chatapp.store.replies import ReplyMemory, Written, remove_reply, write_reply
from chatapp.store.rows import (
    SETTINGS,
    Loaded,
    as_kept,
    copy_messages,
    find_key,
    read_conversation,
    setting_values,
    write_conversation,
    write_message,
)
from chatapp.store.search import search
from chatapp.store.unicode import well_formed

KEPT_SECONDS = 30 * 24 * 3600.0
"""How long a deleted conversation can be brought back."""

_FIRST_WORDS = 120
"""Characters of the first message that a list shows."""

_LIST = """
    SELECT conversation.id, title, conversation.created, changed, model,
           (SELECT count(*) FROM message WHERE conversation = conversation.key), pinned,
           coalesce((SELECT substr(text, 1, :words) FROM message
                     WHERE conversation = conversation.key AND role = 'user'
                     ORDER BY message.key LIMIT 1), ''),
           deleted
    FROM conversation WHERE (deleted IS NOT NULL) = :deleted
    ORDER BY pinned DESC, coalesce(deleted, changed) DESC, conversation.key DESC
"""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a conversation that was brought in."""

    id: str
    """The id it has here; another than its own where that id holds something else."""
    new: bool
    """False where the very same conversation was here already."""


class CannotBeKept(StoreError):
    """A message holds what no database takes; trying again would not help."""


class Chats:
    """All conversations of one database. Every method raises StoreError."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self.database = database
        self._clock = clock
        self._memory = ReplyMemory()

    def save_conversation(self, conversation: Conversation) -> None:
        """Save everything but the messages; nothing is written where nothing differs."""
        settings = setting_values(conversation)
        with self.database.reading() as connection:
            row = connection.execute(
                f"SELECT {', '.join(SETTINGS)} FROM conversation WHERE id = ?",
                (conversation.id,),
            ).fetchone()
        if row == settings:
            return
        with self.database.writing() as connection:
            write_conversation(connection, conversation, self._clock())

    def save_message(self, conversation_id: str, message: Message) -> None:
        """Save a message, in place of the one of the same id; on disk when this returns.

        Raises:
            CannotBeKept: a number in its reply is out of range.
        """
        try:
            with self.database.writing() as connection:
                conversation = find_key(connection, conversation_id)
                key, new = write_message(connection, conversation, message)
                written: Written | None = None
                if message.reply is not None:
                    before = None if new else self._memory.get(key)
                    written = write_reply(connection, key, message.reply, before)
                elif not new:
                    remove_reply(connection, key)
                # Saying something in a conversation that was deleted meanwhile brings it back.
                revive = ", deleted = NULL" if new else ""
                connection.execute(
                    f"UPDATE conversation SET changed = ?{revive} WHERE key = ?",
                    (self._clock(), conversation),
                )
        except StoreError:
            self._memory.clear()
            raise
        except PackingError as error:
            raise CannotBeKept(f"a reply could not be saved: {error}") from None
        if written is not None:
            self._memory.set(key, written)

    def load(self, conversation_id: str) -> Loaded:
        """A conversation with all of its messages; their records are unpacked when looked at."""
        with self.database.reading() as connection:
            key = find_key(connection, conversation_id)
            try:
                return read_conversation(connection, key)
            except (PackingError, ValueError, ConversationError) as error:
                raise StoreError(f"conversation {conversation_id}: {error}") from None

    def latest(self) -> str | None:
        """The id of the conversation that changed last."""
        with self.database.reading() as connection:
            row = connection.execute(
                "SELECT id FROM conversation WHERE deleted IS NULL "
                "ORDER BY changed DESC, key DESC LIMIT 1"
            ).fetchone()
        return None if row is None else row[0]

    def list_conversations(self, *, deleted: bool = False) -> tuple[ConversationSummary, ...]:
        """All conversations, pinned ones first, then by when they changed; or the deleted ones."""
        with self.database.reading() as connection:
            rows = connection.execute(_LIST, {"words": _FIRST_WORDS, "deleted": deleted})
            return tuple(_summary(*row) for row in rows)

    def search(self, text: str, limit: int = 50) -> tuple[SearchHit, ...]:
        """Titles and messages that hold every word of a text, newest first."""
        with self.database.reading() as connection:
            return search(connection, text, limit)

    def rename(self, conversation_id: str, title: str) -> None:
        """Give a conversation another title."""
        self._set(conversation_id, "title", well_formed(title))

    def pin(self, conversation_id: str, pinned: bool) -> None:
        """Keep a conversation at the top of the list, or no longer."""
        self._set(conversation_id, "pinned", int(pinned))

    def delete(self, conversation_id: str) -> None:
        """Put a conversation aside; `undelete` brings it back for 30 days."""
        self._set(conversation_id, "deleted", self._clock())

    def undelete(self, conversation_id: str) -> None:
        """Bring a deleted conversation back."""
        self._set(conversation_id, "deleted", None)

    def purge(self) -> int:
        """Remove what was deleted more than 30 days ago for good. Returns how many."""
        before = self._clock() - KEPT_SECONDS
        with self.database.reading() as connection:
            (count,) = connection.execute(
                "SELECT count(*) FROM conversation WHERE deleted < ?", (before,)
            ).fetchone()
        if count:
            with self.database.writing() as connection:
                connection.execute("DELETE FROM conversation WHERE deleted < ?", (before,))
        return int(count)

    def resolve(self, prefix: str, *, deleted: bool = False) -> str:
        """The one conversation whose id begins so.

        Args:
            prefix: the beginning of an id, or all of it.
            deleted: look among the deleted ones instead.
        """
        with self.database.reading() as connection:
            rows = connection.execute(
                "SELECT id, title FROM conversation WHERE substr(id, 1, length(:prefix)) = :prefix "
                "AND (deleted IS NOT NULL) = :deleted ORDER BY id = :prefix DESC, changed DESC",
                {"prefix": well_formed(prefix), "deleted": deleted},
            ).fetchall()
        if not rows or not prefix:
            which, listing = (
                ("deleted conversation", "list --deleted")
                if deleted
                else (
                    "conversation",
                    "list",
                )
            )
            raise StoreError(
                f"no {which} has an id that begins with {prefix!r}; `chatapp chats {listing}` "
                "shows them"
            )
        if len(rows) > 1 and rows[0][0] != prefix:
            raise StoreError(
                f"{len(rows)} conversations begin with {prefix!r}; give more of the id"
            )
        return str(rows[0][0])

    def duplicate(self, conversation_id: str) -> str:
        """Copy a conversation with all that belongs to it. Returns the copy's id."""
        copy_id, now = new_id(), self._clock()
        with self.database.writing() as connection:
            old = find_key(connection, conversation_id)
            new = connection.execute(
                """
                INSERT INTO conversation (id, created, changed, title, template, system, format,
                                          stop, model, leaf)
                SELECT ?, created, ?, title || ' (copy)', template, system, format, stop, model,
                       leaf
                FROM conversation WHERE key = ?
                """,
                (copy_id, now, old),
            ).lastrowid
            copy_messages(connection, old, new)
        return copy_id

    def add(self, conversation: Conversation) -> Imported:
        """Bring a whole conversation in, in one transaction.

        Where its id is taken by the very same one, nothing is written (but it is undeleted); where
        it is taken by another, it gets a new id.
        """
        try:
            conversation.check()
            conversation = as_kept(conversation)
        except (ConversationError, PackingError) as error:
            raise StoreError(f"a conversation could not be taken in: {error}") from None
        with self.database.reading() as connection:
            row = connection.execute(
                "SELECT key FROM conversation WHERE id = ?", (conversation.id,)
            ).fetchone()
            same = (
                row is not None
                and read_conversation(connection, row[0]).conversation == conversation
            )
        if same:
            self.undelete(conversation.id)
            return Imported(conversation.id, new=False)
        if row is not None:
            conversation = replace(conversation, id=new_id())
        times = [message.created for message in conversation.messages.values()]
        with self.database.writing() as connection:
            changed = max(times, default=conversation.created)
            write_conversation(connection, conversation, changed)
            key = find_key(connection, conversation.id)
            for message in conversation.messages.values():
                message_key, _ = write_message(connection, key, message)
                if message.reply is not None:
                    write_reply(connection, message_key, message.reply, None)
        return Imported(conversation.id, new=True)

    def _set(self, conversation_id: str, column: str, value: str | float | None) -> None:
        with self.database.writing() as connection:
            key = find_key(connection, conversation_id)
            connection.execute(f"UPDATE conversation SET {column} = ? WHERE key = ?", (value, key))


def _summary(
    id_: str,
    title: str,
    created: float,
    changed: float,
    model: str,
    messages: int,
    pinned: int,
    first_words: str,
    deleted: float | None,
) -> ConversationSummary:
    return ConversationSummary(
        id=id_,
        title=title,
        created=created,
        changed=changed,
        model=model,
        messages=messages,
        pinned=bool(pinned),
        first_words=" ".join(first_words.split()),
        deleted=deleted,
    )
