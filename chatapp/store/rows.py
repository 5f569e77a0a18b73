"""Conversations and messages as rows: written and read inside a transaction of the caller's."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, replace
from types import MappingProxyType

from chatapp.chat.conversation import Conversation, Message
from chatapp.store.database import Refused
from chatapp.store.replies import read_replies, reply_as_kept
from chatapp.store.unicode import well_formed

SETTINGS = ("title", "template", "system", "format", "stop", "model", "leaf")
"""The columns of a conversation that a session sets."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A conversation, and what was found wrong with it."""

    conversation: Conversation
    notice: str = ""


def as_kept(conversation: Conversation) -> Conversation:
    """The conversation as it will be read again: text settled, numbers rounded as they are kept.

    Raises:
        PackingError: a number in it is out of range.
    """
    messages = {
        well_formed(message.id): replace(
            message,
            id=well_formed(message.id),
            parent=None if message.parent is None else well_formed(message.parent),
            text=well_formed(message.text),
            reply=reply_as_kept(message.reply),
        )
        for message in conversation.messages.values()
    }
    return replace(
        conversation,
        id=well_formed(conversation.id),
        title=well_formed(conversation.title),
        template=well_formed(conversation.template),
        system=well_formed(conversation.system),
        format=well_formed(conversation.format),
        stop=tuple(map(well_formed, conversation.stop)),
        model=well_formed(conversation.model),
        messages=MappingProxyType(messages),
        leaf=None if conversation.leaf is None else well_formed(conversation.leaf),
    )


def setting_values(conversation: Conversation) -> tuple[str | None, ...]:
    """The values of `SETTINGS`."""
    return (
        well_formed(conversation.title),
        well_formed(conversation.template),
        well_formed(conversation.system),
        well_formed(conversation.format),
        json.dumps([well_formed(stop) for stop in conversation.stop]),
        well_formed(conversation.model),
        None if conversation.leaf is None else well_formed(conversation.leaf),
    )


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
    message_id = well_formed(message.id)
    parent = None if message.parent is None else well_formed(message.parent)
    values = (message.role, well_formed(message.text), message.created, message.deleted)
    row = connection.execute(
        "SELECT key, parent, role, text, created, deleted FROM message "
        "WHERE conversation = ? AND id = ?",
        (conversation, message_id),
    ).fetchone()
    if row is not None:
        key, *before = row
        if before != [parent, *values]:
            connection.execute(
                "UPDATE message SET parent = ?, role = ?, text = ?, created = ?, deleted = ? "
                "WHERE key = ?",
                (parent, *values, key),
            )
        return int(key), False
    added = connection.execute(
        "INSERT INTO message (conversation, id, parent, role, text, created, deleted) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (conversation, message_id, parent, *values),
    )
    assert added.lastrowid is not None
    return added.lastrowid, True


def read_conversation(connection: sqlite3.Connection, key: int) -> Loaded:
    """A conversation with all of its messages.

    Raises:
        PackingError, ValueError, ConversationError: a row holds what cannot be.
    """
    id_, created, title, template, system, format_, stop, model, leaf = connection.execute(
        "SELECT id, created, title, template, system, format, stop, model, leaf "
        "FROM conversation WHERE key = ?",
        (key,),
    ).fetchone()
    replies, damaged = read_replies(connection, key)
    messages: dict[str, Message] = {}
    for message_key, message_id, parent, role, text, made, deleted in connection.execute(
        "SELECT key, id, parent, role, text, created, deleted FROM message "
        "WHERE conversation = ? ORDER BY key",
        (key,),
    ):
        messages[message_id] = Message(
            id=message_id,
            parent=parent,
            role=role,
            text=text,
            created=made,
            reply=replies.get(message_key),
            deleted=deleted,
        )
    conversation = Conversation(
        id=id_,
        created=created,
        title=title,
        template=template,
        system=system,
        format=format_,
        stop=tuple(json.loads(stop)),
        model=model,
        messages=MappingProxyType(messages),
    )
    conversation = replace(conversation, leaf=_leaf(conversation, leaf))
    conversation.check()
    notice = f"{damaged} replies of {title or id_!r} lost token records to a damaged disk"
    return Loaded(conversation, notice if damaged else "")


def _leaf(conversation: Conversation, wanted: str | None) -> str | None:
    """The current leaf. It is written before its message: where that never came, the newest."""
    if wanted is None or (wanted in conversation.messages and conversation.visible(wanted)):
        return wanted
    leaves = conversation.leaves()
    return leaves[-1] if leaves else None


def copy_messages(connection: sqlite3.Connection, old: int, new: int | None) -> None:
    """Copy all messages of one conversation, with their replies, into another."""
    connection.execute(
        "INSERT INTO message (conversation, id, parent, role, text, created, deleted) "
        "SELECT ?, id, parent, role, text, created, deleted FROM message "
        "WHERE conversation = ? ORDER BY key",
        (new, old),
    )
    for table, columns in (
        (
            "reply",
            "model, model_sha256, seed, cached_tokens, sampling, finish_reason, error, seconds, "
            "time_to_first_token, runtime",
        ),
        ("prompt", "ids"),
        ("chunk", "start, count, crc, data"),
    ):
        connection.execute(
            f"INSERT INTO {table} (message, {columns}) SELECT copied.key, {columns} FROM {table} "
            f"JOIN message AS original ON original.key = {table}.message "
            "JOIN message AS copied ON copied.conversation = ? AND copied.id = original.id "
            "WHERE original.conversation = ?",
            (new, old),
        )
