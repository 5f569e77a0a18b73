"""Replies in the database: written as they grow, read without unpacking.

A streaming reply is saved every half second with a few more records each time. Only the new ones
are written, as one more row. When the reply has ended its many small rows become a few of full
size, which compress better.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from chatapp.chat.conversation import Reply
from chatapp.chat.record import FinishReason, TokenRecord
from chatapp.store.packing import (
    CHUNK,
    pack_ids,
    pack_records,
    pack_spans,
    unpack_records,
    unpack_spans,
)
from chatapp.store.stored_reply import PackedChunk, StoredReply
from chatapp.store.unicode import well_formed

_REMEMBERED = 8


@dataclass(frozen=True, slots=True)
class Written:
    """What of a reply is on disk."""

    records: tuple[TokenRecord, ...] = ()
    rows: int = 0
    """How many chunks they are in."""
    prompt_ids: tuple[int, ...] = ()


class ReplyMemory:
    """What was last written of the replies that are growing, so that it needn't be read again."""

    def __init__(self) -> None:
        self._written: OrderedDict[int, Written] = OrderedDict()

    def get(self, key: int) -> Written | None:
        """What is on disk under a message's key; None when that isn't known."""
        return self._written.get(key)

    def set(self, key: int, written: Written) -> None:
        """Remember it; the oldest is forgotten."""
        self._written[key] = written
        self._written.move_to_end(key)
        if len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)

    def clear(self) -> None:
        """Forget everything: the disk may hold something else."""
        self._written.clear()


def write_reply(
    connection: sqlite3.Connection, key: int, reply: Reply, before: Written | None
) -> Written | None:
    """Bring a message's reply up to date; only what differs is written.

    Args:
        connection: inside a transaction.
        key: the message's key.
        reply: how it stands now.
        before: what the last call returned for this message; None when that isn't known.

    Returns:
        What is on disk once the transaction is committed; None where that wasn't looked at.

    Raises:
        sqlite3.Error: it could not be written.
        PackingError: a number in it is out of range.
    """
    connection.execute(
        """
        INSERT INTO reply (message, model, model_sha256, seed, cached_tokens, sampling,
                           finish_reason, error, seconds, time_to_first_token, runtime)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (message) DO UPDATE SET
            model = excluded.model, model_sha256 = excluded.model_sha256, seed = excluded.seed,
            cached_tokens = excluded.cached_tokens, sampling = excluded.sampling,
            finish_reason = excluded.finish_reason, error = excluded.error,
            seconds = excluded.seconds, time_to_first_token = excluded.time_to_first_token,
            runtime = excluded.runtime
        """,
        (
            key,
            well_formed(reply.model),
            well_formed(reply.model_sha256),
            str(reply.seed),
            reply.cached_tokens,
            pack_spans(reply.sampling),
            None if reply.finish_reason is None else reply.finish_reason.value,
            well_formed(reply.error),
            reply.seconds,
            reply.time_to_first_token,
            well_formed(reply.runtime),
        ),
    )
    if isinstance(reply, StoredReply) and _is_on_disk(connection, key, reply):
        return None
    if before is None or before.prompt_ids != reply.prompt_ids:
        connection.execute("DELETE FROM prompt WHERE message = ?", (key,))
        if reply.prompt_ids:
            connection.execute(
                "INSERT INTO prompt (message, ids) VALUES (?, ?)", (key, pack_ids(reply.prompt_ids))
            )
    finished = reply.finish_reason is not None
    rows = _write_records(connection, key, reply.records, before, finished=finished)
    return Written(reply.records, rows, reply.prompt_ids)


def remove_reply(connection: sqlite3.Connection, key: int) -> None:
    """Take a message's reply away: the message no longer has one. Raises sqlite3.Error."""
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

    Raises:
        sqlite3.Error: the database cannot be read.
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
    for (
        key,
        model,
        sha256,
        seed,
        cached,
        spans,
        reason,
        error,
        seconds,
        first,
        runtime,
        prompt,
    ) in connection.execute(
        """
            SELECT reply.message, model, model_sha256, seed, cached_tokens, sampling,
                   finish_reason, error, seconds, time_to_first_token, runtime, prompt.ids
            FROM reply JOIN message ON message.key = reply.message
                 LEFT JOIN prompt ON prompt.message = reply.message
            WHERE message.conversation = ?
            """,
        (conversation,),
    ):
        found = chunks.get(key, [])
        whole = _intact(found)
        damaged += len(whole) < len(found)
        try:
            replies[key] = StoredReply.packed(
                whole,
                prompt or b"",
                model=model,
                model_sha256=sha256,
                seed=int(seed),
                cached_tokens=cached,
                sampling=unpack_spans(spans),
                finish_reason=None if reason is None else FinishReason(reason),
                error=error,
                seconds=seconds,
                time_to_first_token=first,
                runtime=runtime,
            )
        except ValueError:  # PackingError, too: the row itself is damaged
            damaged += 1
    return replies, damaged


def reply_as_kept(reply: Reply | None) -> Reply | None:
    """The reply as it will be read again: its numbers rounded as they are kept.

    Raises:
        PackingError: a number in it is out of range.
    """
    if reply is None or isinstance(reply, StoredReply):
        return reply
    records = reply.records
    parts = [records[start : start + CHUNK] for start in range(0, len(records), CHUNK)]
    return replace(
        reply,
        model=well_formed(reply.model),
        model_sha256=well_formed(reply.model_sha256),
        runtime=well_formed(reply.runtime),
        error=well_formed(reply.error),
        records=tuple(r for part in parts for r in unpack_records(pack_records(part))),
    )


def _write_records(
    connection: sqlite3.Connection,
    key: int,
    records: tuple[TokenRecord, ...],
    before: Written | None,
    *,
    finished: bool,
) -> int:
    """Write the records that are not on disk yet. Returns how many rows hold them all."""
    if before is not None and records[: len(before.records)] == before.records:
        kept, rows = len(before.records), before.rows
    else:
        kept, rows = _matching(connection, key, records)
        connection.execute("DELETE FROM chunk WHERE message = ? AND start >= ?", (key, kept))
    fewest = -(-len(records) // CHUNK)
    if finished and rows + (kept < len(records)) > fewest:
        connection.execute("DELETE FROM chunk WHERE message = ?", (key,))
        kept = rows = 0
    for start in range(kept, len(records), CHUNK):
        part = records[start : start + CHUNK]
        data = pack_records(part)
        connection.execute(
            "INSERT INTO chunk (message, start, count, crc, data) VALUES (?, ?, ?, ?, ?)",
            (key, start, len(part), zlib.crc32(data), data),
        )
        rows += 1
    return rows


def _matching(
    connection: sqlite3.Connection, key: int, records: Sequence[TokenRecord]
) -> tuple[int, int]:
    """How many of the records are on disk already, from the first on, and in how many rows."""
    kept = rows = 0
    for start, count, data in connection.execute(
        "SELECT start, count, data FROM chunk WHERE message = ? ORDER BY start", (key,)
    ):
        part = records[start : start + count]
        if start != kept or len(part) != count or pack_records(part) != data:
            break
        kept, rows = kept + count, rows + 1
    return kept, rows


def _is_on_disk(connection: sqlite3.Connection, key: int, reply: StoredReply) -> bool:
    """Whether a reply that was loaded is saved again with the records it was loaded with."""
    if reply.chunks is None:
        return False
    rows = connection.execute(
        "SELECT start, count, crc FROM chunk WHERE message = ? ORDER BY start", (key,)
    )
    return rows.fetchall() == [(chunk.start, chunk.count, chunk.crc) for chunk in reply.chunks]


def _intact(chunks: Sequence[PackedChunk]) -> tuple[PackedChunk, ...]:
    """The chunks up to the first one that is missing or damaged."""
    end = 0
    for place, chunk in enumerate(chunks):
        if chunk.start != end or zlib.crc32(chunk.data) != chunk.crc:
            return tuple(chunks[:place])
        end += chunk.count
    return tuple(chunks)
