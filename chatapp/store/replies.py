"""Replies in the database: written as they grow, read without unpacking.

A streaming reply is appended to twice a second, each time by a row of the records that came since.
When the reply has ended its many small rows become a few of full size, which compress better.

A conversation of 500 messages can hold a million candidates, and most are never looked at again. So
a loaded reply keeps its records packed, and is in every other respect a `Reply`.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import msgspec

from chatapp.chat.conversation import Reply
from chatapp.chat.record import FinishReason
from chatapp.chat.thinking import Thinking
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
from chatapp.store.unicode import settled


@dataclass(frozen=True, slots=True)
class PackedChunk:
    """Some consecutive records of a reply, as `packing.pack_records` packs them."""

    start: int
    """Place of its first record in the reply."""
    count: int
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


COLUMNS = (
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


def write_reply(
    connection: sqlite3.Connection, key: int, reply: Reply, *, grows: bool = False
) -> None:
    """Bring a message's reply up to date; only what differs is written.

    `grows`: it holds only the records behind those that are on disk. Raises PackingError: a number
    in it is out of range.
    """
    kept = settled(replace(reply, records=(), prompt_ids=()))
    values = {name: getattr(kept, name) for name in COLUMNS} | {
        "seed": str(reply.seed),
        "sampling": pack_spans(reply.sampling),
        "finish_reason": reply.finish_reason and reply.finish_reason.value,
        "thinking": reply.thinking and msgspec.json.encode(reply.thinking).decode(),
    }
    connection.execute(
        f"INSERT OR REPLACE INTO reply (message, {', '.join(COLUMNS)}) "
        f"VALUES (?{', ?' * len(COLUMNS)})",
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
        "SELECT start, count, data FROM chunk WHERE message = ? AND start >= ? ORDER BY start",
        (key, start),
    ).fetchall()
    if found == [(chunk.start, chunk.count, chunk.data) for chunk in chunks]:
        return
    connection.execute("DELETE FROM chunk WHERE message = ? AND start >= ?", (key, start))
    for chunk in chunks:
        connection.execute(
            "INSERT INTO chunk (message, start, count, crc, data) VALUES (?, ?, ?, ?, ?)",
            (key, chunk.start, chunk.count, chunk.crc, chunk.data),
        )


def remove_reply(connection: sqlite3.Connection, key: int) -> None:
    for statement in (
        "DELETE FROM chunk WHERE message = ?",
        "DELETE FROM prompt WHERE message = ?",
        "DELETE FROM reply WHERE message = ?",
    ):
        connection.execute(statement, (key,))


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
        SELECT reply.message, prompt.ids, {", ".join(f"reply.{name}" for name in COLUMNS)}
        FROM reply JOIN message ON message.key = reply.message
             LEFT JOIN prompt ON prompt.message = reply.message
        WHERE message.conversation = ?
        """,
        (conversation,),
    ):
        found = chunks.get(key, [])
        whole = _intact(found)
        damaged += len(whole) < len(found)
        row = dict(zip(COLUMNS, values, strict=True))
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
        end += chunk.count
    return tuple(chunks)
