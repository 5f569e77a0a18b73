"""Conversations and messages as rows: written and read inside a transaction of the caller's."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, replace
from types import MappingProxyType

from chatapp.chat.conversation import Conversation, Message
from chatapp.store.database import Refused
from chatapp.store.replies import read_replies, reply_as_kept
from chatapp.store.unicode import settled, well_formed

SETTINGS = ("title", "template", "system", "format", "stop", "model", "leaf", "think")
"""The columns of a conversation that a session sets."""

MESSAGE = ("id", "parent", "role", "text", "created", "deleted")
"""The columns of a message: each is a field of `Message`."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A conversation, and what was found wrong with it."""

    conversation: Conversation
    notice: str = ""


def as_kept(conversation: Conversation) -> Conversation:
    """The conversation as it will be read again: text settled, numbers rounded as they are kept.

    Raises PackingError: a number in it is out of range.
    """
    messages = {
        message.id: replace(message, reply=reply_as_kept(message.reply))
        for message in map(settled, conversation.messages.values())
    }
    return replace(settled(conversation), messages=MappingProxyType(messages))


def setting_values(conversation: Conversation) -> tuple[str | None, ...]:
    kept = settled(conversation)
    values = {name: getattr(kept, name) for name in SETTINGS} | {"stop": json.dumps(kept.stop)}
    return tuple(values.values())


def write_conversation(
    connection: sqlite3.Connection, conversation: Conversation, changed: float
) -> None:
    """Write everything but the messages. `changed` is kept for a new one only."""
    names = ", ".join(SETTINGS)
    updates = ", ".join(f"{name} = excluded.{name}" for name in SETTINGS)
    connection.execute(
        f"INSERT INTO conversation (id, created, changed, {names}) "
        f"VALUES (?, ?, ?{', ?' * len(SETTINGS)}) ON CONFLICT (id) DO UPDATE SET {updates}",
        (
            well_formed(conversation.id),
            conversation.created,
            changed,
            *setting_values(conversation),
        ),
    )


def find_key(connection: sqlite3.Connection, conversation_id: str) -> int:
    """A conversation's key. Raises Refused: there is none of that id."""
    row = connection.execute(
        "SELECT key FROM conversation WHERE id = ?", (well_formed(conversation_id),)
    ).fetchone()
    if row is None:
        raise Refused(f"there is no conversation {conversation_id}")
    return int(row[0])


def write_message(
    connection: sqlite3.Connection, conversation: int, message: Message
) -> tuple[int, bool]:
    """Write a message without its reply. Returns its key and whether it is new."""
    message = settled(message)
    values = tuple(getattr(message, name) for name in MESSAGE[1:])
    row = connection.execute(
        f"SELECT key, {', '.join(MESSAGE[1:])} FROM message WHERE conversation = ? AND id = ?",
        (conversation, message.id),
    ).fetchone()
    if row is not None:
        key, *before = row
        if tuple(before) != values:
            changes = ", ".join(f"{name} = ?" for name in MESSAGE[1:])
            connection.execute(f"UPDATE message SET {changes} WHERE key = ?", (*values, key))
        return int(key), False
    added = connection.execute(
        f"INSERT INTO message (conversation, {', '.join(MESSAGE)}) "
        f"VALUES (?{', ?' * len(MESSAGE)})",
        (conversation, message.id, *values),
    )
    assert added.lastrowid is not None
    return added.lastrowid, True


def read_conversation(connection: sqlite3.Connection, key: int) -> Loaded:
    """A conversation with all of its messages.

    Raises PackingError, ValueError, ConversationError: a row holds what cannot be.
    """
    id_, created, *settings = connection.execute(
        f"SELECT id, created, {', '.join(SETTINGS)} FROM conversation WHERE key = ?", (key,)
    ).fetchone()
    values = dict(zip(SETTINGS, settings, strict=True))
    values["stop"] = tuple(json.loads(values["stop"]))
    values["think"] = None if values["think"] is None else bool(values["think"])
    replies, damaged = read_replies(connection, key)
    messages: dict[str, Message] = {}
    for message_key, *columns in connection.execute(
        f"SELECT key, {', '.join(MESSAGE)} FROM message WHERE conversation = ? ORDER BY key", (key,)
    ):
        fields = dict(zip(MESSAGE, columns, strict=True))
        messages[fields["id"]] = Message(**fields, reply=replies.get(message_key))
    conversation = Conversation(
        id=id_, created=created, **values, messages=MappingProxyType(messages)
    )
    conversation = replace(conversation, leaf=_leaf(conversation, conversation.leaf))
    conversation.check()
    notice = (
        f"{damaged} replies of {conversation.title or id_!r} lost token records to a damaged disk"
    )
    return Loaded(conversation, notice if damaged else "")


def _leaf(conversation: Conversation, wanted: str | None) -> str | None:
    """The current leaf. It is written before its message: where that never came, the newest."""
    if wanted is None or (wanted in conversation.messages and conversation.visible(wanted)):
        return wanted
    leaves = conversation.leaves()
    return leaves[-1] if leaves else None
