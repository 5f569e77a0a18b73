"""A reply out of the store, whose token records are unpacked when someone first looks.

A conversation of 500 messages can hold a million candidates. Most are never looked at again: the
transcript needs texts, the next prompt needs ids. So a loaded reply keeps the packed chunks and is
in every other respect a `Reply`: equal to one made in memory, and replaceable like it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from chatapp.chat.conversation import Reply
from chatapp.chat.record import TokenRecord
from chatapp.store import packing


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

    __slots__ = ("_chunks", "_prompt", "_prompt_ids", "_records")
    _chunks: tuple[PackedChunk, ...]
    _prompt: bytes
    _prompt_ids: tuple[int, ...] | None
    _records: tuple[TokenRecord, ...] | None

    @classmethod
    def packed(cls, chunks: tuple[PackedChunk, ...], prompt: bytes, **values: Any) -> StoredReply:
        """A reply whose records and prompt ids are still packed.

        Args:
            chunks: the records, checked and without gaps.
            prompt: the prompt ids as `packing.pack_ids` packs them; empty for none.
            values: the other fields of a `Reply`.
        """
        reply = cls(**values)
        object.__setattr__(reply, "_chunks", chunks)
        object.__setattr__(reply, "_prompt", prompt)
        object.__setattr__(reply, "_records", None)
        object.__setattr__(reply, "_prompt_ids", None)
        return reply

    @property
    def chunks(self) -> tuple[PackedChunk, ...] | None:
        """The packed records; None where this reply was made from unpacked ones."""
        return self._chunks or None

    @property
    def records(self) -> tuple[TokenRecord, ...]:
        """The token records. Raises PackingError when they were made by a newer chatapp."""
        if self._records is None:
            unpacked = [packing.unpack_records(chunk.data) for chunk in self._chunks]
            object.__setattr__(self, "_records", tuple(r for rs in unpacked for r in rs))
        assert self._records is not None
        return self._records

    @records.setter
    def records(self, records: tuple[TokenRecord, ...]) -> None:
        # Only the dataclass's own __init__ comes here.
        object.__setattr__(self, "_records", records)
        object.__setattr__(self, "_chunks", ())

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """Exactly what the model read before this reply."""
        if self._prompt_ids is None:
            ids = packing.unpack_prompt(self._prompt) if self._prompt else ()
            object.__setattr__(self, "_prompt_ids", ids)
        assert self._prompt_ids is not None
        return self._prompt_ids

    @prompt_ids.setter
    def prompt_ids(self, ids: tuple[int, ...]) -> None:
        object.__setattr__(self, "_prompt_ids", ids)
        object.__setattr__(self, "_prompt", b"")

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids the model wrote, end token included; without unpacking the records."""
        if self._records is not None:
            return tuple(record.id for record in self._records)
        return tuple(id_ for chunk in self._chunks for id_ in packing.unpack_ids(chunk.data))

    @property
    def logprobs(self) -> tuple[float, ...]:
        """ln p of each token under the model alone; without unpacking the records."""
        if self._records is not None:
            return tuple(record.logprob for record in self._records)
        return tuple(x for chunk in self._chunks for x in packing.unpack_logprobs(chunk.data))

    def unpacked(self) -> Reply:
        """The same as a plain `Reply`. Raises PackingError."""
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
