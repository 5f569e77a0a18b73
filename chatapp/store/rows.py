"""Conversations, messages and replies as rows, inside a transaction of the caller's.

A streaming reply is appended to twice a second, each time by a row of the records that came since.
When the reply has ended its many small rows become a few of full size, which compress better.

A conversation of 500 messages can hold a million candidates, and most are never looked at again. So
a loaded reply keeps its records packed, and is in every other respect a `Reply`.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from chatapp.chat.conversation import Conversation, Message, Reply
from chatapp.chat.record import FinishReason
from chatapp.chat.thinking import Thinking
from chatapp.store.database import Refused
from chatapp.store.packing import (
    CHUNK,
    pack_ids,
    pack_records,
    pack_spans,
    unpack_ids,
    unpack_logprobs,
    unpack_prompt,
    unpack_records,
    unpack_spans,
)
from chatapp.store.unicode import settled, well_formed

SETTINGS = ("title", "template", "system", "format", "stop", "model", "leaf", "think")
"""The columns of a conversation that a session sets."""

MESSAGE = ("id", "parent", "role", "text", "created", "deleted")
"""The columns of a message: each is a field of `Message`."""

REPLY = (
    "model",
    "model_sha256",
    "seed",  # decimal; a seed may be wider than 64 bits
    "cached_tokens",
    "sampling",
    "finish_reason",
    "error",
    "seconds",
    "time_to_first_token",
    "runtime",
    "thinking",
)
"""A reply's row: each is a field of `Reply`."""


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


class PackedChunk(NamedTuple):
    """Some consecutive records of a reply, as `packing.pack_records` packs them."""

    start: int
    """Place of its first record in the reply."""
    length: int
    """How many records it holds."""
    crc: int
    """CRC-32 of `data`."""
    data: bytes


class StoredReply(Reply):
    """A `Reply` that unpacks its records and prompt ids when they are first asked for."""

    __slots__ = ("_prompt", "chunks")
    chunks: tuple[PackedChunk, ...]
    """The packed records; none where this reply was made from unpacked ones."""
    _prompt: bytes

    @classmethod
    def packed(cls, chunks: tuple[PackedChunk, ...], prompt: bytes, **values: Any) -> StoredReply:
        """A reply whose records and prompt ids are still packed.

        `chunks`: the records, checked and without gaps. `prompt`: the prompt ids as
        `packing.pack_ids` packs them; empty for none.
        """
        reply = cls(**values)
        object.__setattr__(reply, "chunks", chunks)
        object.__setattr__(reply, "_prompt", prompt)
        object.__delattr__(reply, "records")
        object.__delattr__(reply, "prompt_ids")
        return reply

    def __getattr__(self, name: str) -> Any:
        """What is asked for the first time. Raises PackingError: a newer chatapp made it."""
        value: tuple[Any, ...] = ()
        if name == "records":
            unpacked = (unpack_records(chunk.data) for chunk in self.chunks)
            value = tuple(record for records in unpacked for record in records)
        elif name == "prompt_ids":
            value = unpack_prompt(self._prompt) if self._prompt else ()
        elif name != "chunks":
            raise AttributeError(name)
        object.__setattr__(self, name, value)
        return value

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids the model wrote, end token included; without unpacking the records."""
        packed = (unpack_ids(chunk.data) for chunk in self.chunks)
        return tuple(id_ for ids in packed for id_ in ids) or super().ids

    @property
    def logprobs(self) -> tuple[float, ...]:
        """ln p of each token under the model alone; without unpacking the records."""
        packed = (unpack_logprobs(chunk.data) for chunk in self.chunks)
        return tuple(x for logprobs in packed for x in logprobs) or super().logprobs

    def unpacked(self) -> Reply:
        return Reply(**{item.name: getattr(self, item.name) for item in fields(Reply)})

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StoredReply):
            other = other.unpacked()
        return self.unpacked() == other if isinstance(other, Reply) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.unpacked())

    def __repr__(self) -> str:
        return repr(self.unpacked())


def plain(reply: Reply | None) -> Reply | None:
    """A reply without its packed form, for code that goes by fields. Raises PackingError."""
    return reply.unpacked() if isinstance(reply, StoredReply) else reply


def write_reply(
    connection: sqlite3.Connection, key: int, reply: Reply, *, grows: bool = False
) -> None:
    """Bring a message's reply up to date; only what differs is written.

    `grows`: it holds only the records behind those that are on disk. Raises PackingError: a number
    in it is out of range.
    """
    kept = settled(replace(reply, records=(), prompt_ids=()))
    values = {name: getattr(kept, name) for name in REPLY} | {
        "seed": str(reply.seed),
        "sampling": pack_spans(reply.sampling),
        "finish_reason": reply.finish_reason and reply.finish_reason.value,
        "thinking": reply.thinking and msgspec.json.encode(reply.thinking).decode(),
    }
    connection.execute(
        f"INSERT OR REPLACE INTO reply (message, {', '.join(REPLY)}) "
        f"VALUES (?{', ?' * len(REPLY)})",
        (key, *values.values()),
    )
    has_prompt = "SELECT 1 FROM prompt WHERE message = ?"
    if not (grows and connection.execute(has_prompt, (key,)).fetchone()):
        connection.execute("DELETE FROM prompt WHERE message = ?", (key,))
        if reply.prompt_ids:
            connection.execute(
                "INSERT INTO prompt (message, ids) VALUES (?, ?)", (key, pack_ids(reply.prompt_ids))
            )
    start = reply.records[0].index if grows else 0
    chunks = _chunks(reply, start)
    found = connection.execute(
        "SELECT start, count, crc, data FROM chunk WHERE message = ? AND start >= ? ORDER BY start",
        (key, start),
    )
    if tuple(found) != chunks:
        connection.execute("DELETE FROM chunk WHERE message = ? AND start >= ?", (key, start))
        for chunk in chunks:
            connection.execute(
                "INSERT INTO chunk (message, start, count, crc, data) VALUES (?, ?, ?, ?, ?)",
                (key, *chunk),
            )


def remove_reply(connection: sqlite3.Connection, key: int) -> None:
    for table in ("chunk", "prompt", "reply"):
        connection.execute(f"DELETE FROM {table} WHERE message = ?", (key,))


def read_replies(
    connection: sqlite3.Connection, conversation: int
) -> tuple[Mapping[int, StoredReply], int]:
    """The replies of a conversation by their message's key, and how many of them lost records.

    A chunk whose checksum is wrong ends the records of its reply, and a reply whose own row cannot
    be read is left away; the message's text stands.
    """
    chunks: dict[int, list[PackedChunk]] = {}
    for key, *columns in connection.execute(
        """
        SELECT chunk.message, start, count, crc, data
        FROM chunk JOIN message ON message.key = chunk.message
        WHERE message.conversation = ? ORDER BY chunk.message, start
        """,
        (conversation,),
    ):
        chunks.setdefault(key, []).append(PackedChunk(*columns))
    replies: dict[int, StoredReply] = {}
    damaged = 0
    for key, prompt, *values in connection.execute(
        f"""
        SELECT reply.message, prompt.ids, {", ".join(f"reply.{name}" for name in REPLY)}
        FROM reply JOIN message ON message.key = reply.message
             LEFT JOIN prompt ON prompt.message = reply.message
        WHERE message.conversation = ?
        """,
        (conversation,),
    ):
        found = chunks.get(key, [])
        whole = _intact(found)
        damaged += len(whole) < len(found)
        row = dict(zip(REPLY, values, strict=True))
        try:
            row["seed"] = int(row["seed"])
            row["sampling"] = unpack_spans(row["sampling"])
            row["finish_reason"] = row["finish_reason"] and FinishReason(row["finish_reason"])
            if row["thinking"] is not None:
                row["thinking"] = msgspec.json.decode(row["thinking"], type=Thinking)
        except (ValueError, msgspec.MsgspecError):  # PackingError, too: the row is damaged
            damaged += 1
        else:
            replies[key] = StoredReply.packed(whole, prompt or b"", **row)
    return replies, damaged


def reply_as_kept(reply: Reply | None) -> Reply | None:
    """The reply as it will be read again: its numbers rounded as they are kept.

    Raises PackingError: a number in it is out of range.
    """
    if reply is None or isinstance(reply, StoredReply):
        return reply
    records = (record for part in _chunks(reply, 0) for record in unpack_records(part.data))
    return replace(settled(reply), records=tuple(records))


def _chunks(reply: Reply, start: int) -> tuple[PackedChunk, ...]:
    """A reply's records, the first of which is number `start`, as they are kept."""
    if isinstance(reply, StoredReply) and reply.chunks:
        return reply.chunks
    found = []
    for place in range(0, len(reply.records), CHUNK):
        part = reply.records[place : place + CHUNK]
        data = pack_records(part)
        found.append(PackedChunk(start + place, len(part), zlib.crc32(data), data))
    return tuple(found)


def _intact(chunks: Sequence[PackedChunk]) -> tuple[PackedChunk, ...]:
    """The chunks up to the first one that is missing or damaged."""
    end = 0
    for place, chunk in enumerate(chunks):
        if chunk.start != end or zlib.crc32(chunk.data) != chunk.crc:
            return tuple(chunks[:place])
        end += chunk.length
    return tuple(chunks)
