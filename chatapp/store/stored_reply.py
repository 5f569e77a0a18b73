"""A reply out of the store, whose token records are unpacked when someone first looks.

A conversation of 500 messages can hold a million candidates. Most are never looked at again: the
transcript needs texts, the next prompt needs ids. So a loaded reply keeps the packed chunks and is
in every other respect a `Reply`: equal to one made in memory, and replaceable like it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from chatapp.chat.conversation import Reply
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
            unpacked = (packing.unpack_records(chunk.data) for chunk in self.chunks)
            value = tuple(record for records in unpacked for record in records)
        elif name == "prompt_ids":
            value = packing.unpack_prompt(self._prompt) if self._prompt else ()
        elif name != "chunks":
            raise AttributeError(name)
        object.__setattr__(self, name, value)
        return value

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids the model wrote, end token included; without unpacking the records."""
        packed = (packing.unpack_ids(chunk.data) for chunk in self.chunks)
        return tuple(id_ for ids in packed for id_ in ids) or super().ids

    @property
    def logprobs(self) -> tuple[float, ...]:
        """ln p of each token under the model alone; without unpacking the records."""
        packed = (packing.unpack_logprobs(chunk.data) for chunk in self.chunks)
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
