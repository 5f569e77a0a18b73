"""How probable the person's own words are: which tokens of a scored prompt belong to which message.

The model reads one text, made by the format out of all messages. A message is found in it by its
exact bytes, in the order of the conversation; a token that reaches into it belongs to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from chatapp.chat.prompt import TokenPiece
from chatapp.chat.record import TokenRecord

SYSTEM = "system"
"""Stands for the system text among the ids of messages."""


@dataclass(frozen=True, slots=True)
class Part:
    """A text that stands in the prompt."""

    key: str
    """The message's id, or `SYSTEM`."""
    text: str


def spread(
    parts: Iterable[Part], tokens: Sequence[TokenPiece], records: Iterable[TokenRecord]
) -> Mapping[str, tuple[TokenRecord, ...]]:
    """The records of each part, numbered from 0 within it.

    Args:
        parts: what the prompt was made of, in its order.
        tokens: the whole prompt.
        records: of its tokens; `index` is a place among `tokens`.
    """
    whole = b"".join(token.bytes for token in tokens)
    starts = [0, *accumulate(len(token.bytes) for token in tokens)]
    by_place = {record.index: record for record in records}
    found: dict[str, tuple[TokenRecord, ...]] = {}
    position = 0
    for part in parts:
        text = part.text.encode("utf-8", "replace")
        start = whole.find(text, position)
        if start < 0:
            text = text.strip()  # formats may take away the white space around a message
            start = whole.find(text, position)
        if start < 0 or not text:
            continue
        position = start + len(text)
        own = [
            by_place[place]
            for place, token in enumerate(tokens)
            if place in by_place
            and not token.control
            and starts[place] < position
            and starts[place + 1] > start
        ]
        found[part.key] = tuple(replace(record, index=i) for i, record in enumerate(own))
    return found
