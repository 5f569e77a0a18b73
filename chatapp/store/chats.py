"""What can be done with the conversations in a database.

Everything here blocks until it is on disk; `Store` runs it in a thread of its own.

A full disk must not end a chat, nor take what was said since. So every save goes through one queue:
what could not be written stays there, is tried again with whatever is done next, and is handed out
as it stands in memory until then. What is not in the queue is on disk; nobody else keeps count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from chatapp.chat.conversation import (
    Conversation,
    ConversationError,
    ConversationSummary,
    Message,
    SearchHit,
    new_id,
)
from chatapp.chat.errors import StoreError
from chatapp.chat.record import FinishReason
from chatapp.store.database import Database, Refused
from chatapp.store.packing import PackingError
from chatapp.store.rows import (
    SETTINGS,
    Loaded,
    as_kept,
    find_key,
    read_conversation,
    remove_reply,
    setting_values,
    write_conversation,
    write_message,
    write_reply,
)
from chatapp.store.search import search
from chatapp.store.unicode import well_formed

KEPT_SECONDS = 30 * 24 * 3600.0
"""How long a deleted conversation can be brought back."""

_FIRST_WORDS = 120
"""Characters of the first message that a list shows."""

_LIST = """
    SELECT conversation.id AS id, title, conversation.created AS created, changed, model,
           (SELECT count(*) FROM message WHERE conversation = conversation.key) AS messages, pinned,
           coalesce((SELECT substr(text, 1, :words) FROM message
                     WHERE conversation = conversation.key AND role = 'user'
                     ORDER BY message.key LIMIT 1), '') AS first_words,
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


@dataclass(slots=True)
class _Unwritten:
    """What of one conversation is not on disk yet, as it stands in memory."""

    conversation: Conversation | None = None
    messages: dict[str, Message] = field(default_factory=dict)
    growing: set[str] = field(default_factory=set)
    """Those of which only the new records are given."""

    def forget(self, message_id: str) -> None:
        del self.messages[message_id]
        self.growing.discard(message_id)


class Chats:
    """All conversations of one database. Every method raises StoreError."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self.database = database
        self._clock = clock
        self._unwritten: dict[str, _Unwritten] = {}

    @property
    def unwritten(self) -> int:
        """How many conversations have something that could not be written."""
        return len(self._unwritten)

    def save_conversation(self, conversation: Conversation) -> None:
        """Save everything but the messages; nothing is written where nothing differs."""
        self._unwritten_of(conversation.id).conversation = conversation
        self.settle()

    def save_message(self, conversation_id: str, message: Message) -> None:
        """Save a message, in place of the one of the same id; on disk when this returns.

        Raises Refused: a number in its reply is out of range, or its place is nowhere.
        """
        unwritten = self._unwritten_of(conversation_id)
        unwritten.messages[message.id] = message
        unwritten.growing.discard(message.id)
        self.settle()

    def append(self, conversation_id: str, message: Message) -> None:
        """Save a reply that has grown; of its records `message` holds only the new ones.

        Raises Refused: as `save_message`.
        """
        unwritten = self._unwritten_of(conversation_id)
        before = unwritten.messages.get(message.id)
        if before is None:
            unwritten.growing.add(message.id)
        unwritten.messages[message.id] = message if before is None else grown(before, message)
        self.settle()

    def settle(self) -> None:
        """Write all that is not on disk yet; any failure ends it, but that something is refused."""
        refused: Refused | None = None
        for conversation_id, unwritten in tuple(self._unwritten.items()):
            if unwritten.conversation is not None:
                self._write_conversation(unwritten.conversation)
            for message in tuple(unwritten.messages.values()):
                try:
                    self._write_message(conversation_id, message, message.id in unwritten.growing)
                except Refused as error:
                    refused = refused or error
                unwritten.forget(message.id)
            del self._unwritten[conversation_id]
        if refused is not None:
            raise refused

    def load(self, conversation_id: str) -> Loaded:
        """A conversation with all of its messages; their records are unpacked when looked at."""
        unwritten = self._unwritten.get(conversation_id, _Unwritten())
        loaded = Loaded(unwritten.conversation) if unwritten.conversation else None
        if loaded is None:
            with self.database.reading() as connection:
                key = find_key(connection, conversation_id)
                try:
                    loaded = read_conversation(connection, key)
                except (PackingError, ValueError, ConversationError) as error:
                    raise StoreError(f"conversation {conversation_id}: {error}") from None
        newer = {id_: m for id_, m in unwritten.messages.items() if id_ not in unwritten.growing}
        messages = MappingProxyType({**loaded.conversation.messages, **newer})
        return replace(loaded, conversation=replace(loaded.conversation, messages=messages))

    def latest(self) -> str | None:
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
            names = [column[0] for column in rows.description]
            found = [dict(zip(names, row, strict=True)) for row in rows]
        for row in found:
            row |= {
                "pinned": bool(row["pinned"]),
                "first_words": " ".join(row["first_words"].split()),
            }
        return tuple(ConversationSummary(**row) for row in found)

    def search(self, text: str, limit: int = 50) -> tuple[SearchHit, ...]:
        """Titles and messages that hold every word of a text (the last may be unfinished).

        Titles come first, then messages, newest first; `limit` of each at most.
        """
        with self.database.reading() as connection:
            return search(connection, text, limit)

    def rename(self, conversation_id: str, title: str) -> None:
        self._set(conversation_id, "title", well_formed(title))

    def pin(self, conversation_id: str, pinned: bool = True) -> None:
        self._set(conversation_id, "pinned", int(pinned))

    def delete(self, conversation_id: str) -> None:
        """Put a conversation aside; `undelete` brings it back for 30 days."""
        self._set(conversation_id, "deleted", self._clock())
        self._unwritten.pop(conversation_id, None)  # writing it would bring the chat back

    def undelete(self, conversation_id: str) -> None:
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

        `prefix`: the beginning of an id, or all of it.
        """
        with self.database.reading() as connection:
            rows = connection.execute(
                "SELECT id, title FROM conversation WHERE substr(id, 1, length(:prefix)) = :prefix "
                "AND (deleted IS NOT NULL) = :deleted ORDER BY id = :prefix DESC, changed DESC",
                {"prefix": well_formed(prefix), "deleted": deleted},
            ).fetchall()
        if not rows or not prefix:
            which, flag = (
                ("deleted conversation", " --deleted") if deleted else ("conversation", "")
            )
            raise StoreError(
                f"no {which} has an id that begins with {prefix!r}; `chatapp chats list{flag}` "
                "shows them"
            )
        if len(rows) > 1 and rows[0][0] != prefix:
            raise StoreError(
                f"{len(rows)} conversations begin with {prefix!r}; give more of the id"
            )
        return str(rows[0][0])

    def duplicate(self, conversation_id: str) -> str:
        """Copy a conversation with all that belongs to it. Returns the copy's id."""
        old = self.load(conversation_id).conversation
        messages = {id_: _stopped(message) for id_, message in old.messages.items()}
        copy = replace(
            old,
            id=new_id(),
            title=f"{old.title} (copy)",
            messages=MappingProxyType(messages),
        )
        return self.add(copy, changed=self._clock()).id

    def add(self, conversation: Conversation, changed: float | None = None) -> Imported:
        """Bring a whole conversation in, in one transaction.

        Where its id is taken by the very same one, nothing is written (but it is undeleted); where
        it is taken by another, it gets a new id. It changed with its last message, else `changed`.
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
            there = row and read_conversation(connection, row[0]).conversation
            same = there == conversation
        if same:
            self.undelete(conversation.id)
            return Imported(conversation.id, new=False)
        if row is not None:
            conversation = replace(conversation, id=new_id())
        times = [message.created for message in conversation.messages.values()]
        last = max(times, default=conversation.created)
        with self.database.writing() as connection:
            write_conversation(connection, conversation, changed or last)
            key = find_key(connection, conversation.id)
            for message in conversation.messages.values():
                message_key, _ = write_message(connection, key, message)
                if message.reply is not None:
                    write_reply(connection, message_key, message.reply)
        return Imported(conversation.id, new=True)

    def _unwritten_of(self, conversation_id: str) -> _Unwritten:
        return self._unwritten.setdefault(conversation_id, _Unwritten())

    def _write_conversation(self, conversation: Conversation) -> None:
        with self.database.reading() as connection:
            row = connection.execute(
                f"SELECT {', '.join(SETTINGS)} FROM conversation WHERE id = ?",
                (conversation.id,),
            ).fetchone()
        if row == setting_values(conversation):
            return
        with self.database.writing() as connection:
            write_conversation(connection, conversation, self._clock())

    def _write_message(self, conversation_id: str, message: Message, grows: bool) -> None:
        """`grows`: the reply holds only the records that are not on disk yet."""
        try:
            with self.database.writing() as connection:
                conversation = find_key(connection, conversation_id)
                key, new = write_message(connection, conversation, message)
                if message.reply is not None:
                    write_reply(connection, key, message.reply, grows=grows)
                elif not new:
                    remove_reply(connection, key)
                # Saying something in a conversation that was deleted meanwhile brings it back.
                revive = ", deleted = NULL" if new else ""
                connection.execute(
                    f"UPDATE conversation SET changed = ?{revive} WHERE key = ?",
                    (self._clock(), conversation),
                )
        except PackingError as error:
            raise Refused(f"a reply could not be saved: {error}") from None

    def _set(self, conversation_id: str, column: str, value: str | float | None) -> None:
        with self.database.writing() as connection:
            key = find_key(connection, conversation_id)
            connection.execute(f"UPDATE conversation SET {column} = ? WHERE key = ?", (value, key))


def grown(before: Message, news: Message) -> Message:
    """A message whose reply has grown: `news` holds only the records behind those of `before`."""
    if before.reply is None or news.reply is None:
        return news
    records = before.reply.records + news.reply.records
    return replace(news, reply=replace(news.reply, records=records))


def _stopped(message: Message) -> Message:
    """A message as it stands: nobody goes on writing the copy of a reply under way."""
    reply = message.reply
    if reply is None or reply.finish_reason is not None:
        return message
    return replace(message, reply=replace(reply, finish_reason=FinishReason.CANCELLED))
