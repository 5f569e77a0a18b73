"""How probable the user's own words are: which tokens of a prompt belong to which message.

The model reads one text, made by the format out of the system text and all messages. A message is
found in it by its exact bytes, in the order of the conversation; a token that reaches into it
belongs to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from chatapp.chat.conversation import Conversation
from chatapp.chat.prompt import TokenPiece
from chatapp.chat.record import TokenRecord
from chatapp.ui.layout.system import SYSTEM

Places = Mapping[str, Sequence[int]]
"""By message (the system text under `SYSTEM`), the places of its tokens in the prompt, rising."""


@dataclass(frozen=True, slots=True)
class Part:
    """A text that stands in the prompt."""

    key: str
    """The message's id, or `SYSTEM`."""
    text: str
    given: bool = True
    """Whether no model wrote it; what a model wrote has numbers of its own."""


def parts_of(conversation: Conversation, leaf: str) -> list[Part]:
    """What the prompt up to a message is made of."""
    path = conversation.path_to(leaf)
    parts = [Part(message.id, message.text, message.reply is None) for message in path]
    return [Part(SYSTEM, conversation.system), *parts]


def find_places(parts: Iterable[Part], tokens: Sequence[TokenPiece]) -> Places:
    """Where the parts stand that were given.

    Args:
        parts: what the prompt was made of, in its order.
        tokens: the whole prompt.
    """
    # Control tokens hold no part; what is no UTF-8 is found in none.
    whole = b"".join(b"\xff" * len(t.bytes) if t.control else t.bytes for t in tokens)
    starts = [0, *accumulate(len(token.bytes) for token in tokens)]
    found: dict[str, Sequence[int]] = {}
    position = 0
    for part in parts:
        text = part.text.encode("utf-8", "replace")
        start = _find(whole, text, position)
        if start < 0:
            text = text.strip()  # formats may take away the white space around a message
            start = _find(whole, text, position)
        if start < 0 or not text:
            continue
        position = start + len(text)
        if part.given:
            found[part.key] = [
                place
                for place, token in enumerate(tokens)
                if not token.control and starts[place] < position and starts[place + 1] > start
            ]
    return found


def _find(whole: bytes, text: bytes, position: int) -> int:
    """Where a text stands from a position on: where a control token ends it, if it does anywhere.

    So a message "user" is not taken for the word that says whose turn it is. -1 for nowhere.
    """
    first = at = whole.find(text, position)
    while at >= 0:
        end = at + len(text)
        if whole[end : end + 8].lstrip().startswith(b"\xff"):
            return at
        at = whole.find(text, at + 1)
    return first


def choose(places: Places, known: Collection[str], most: int | None) -> Places:
    """Which parts to score now: those that are not known, the newest first.

    Args:
        places: of all parts, in the order of the conversation.
        known: the parts that are scored already.
        most: how many tokens may be scored in all; a part that does not fit is left out. None is
            any number.
    """
    chosen: dict[str, Sequence[int]] = {}
    room = most
    for key, own in reversed(tuple(places.items())):
        if key in known or (room is not None and len(own) > room):
            continue
        chosen[key] = own
        room = None if room is None else room - len(own)
    return chosen


def spread(places: Places, records: Iterable[TokenRecord]) -> Mapping[str, tuple[TokenRecord, ...]]:
    """The records of each part, numbered from 0 within it; a part with a gap is left out.

    Args:
        places: where the parts stand. The prompt's very first token has no context and so no
            record, which is no gap.
        records: `index` is a place in the prompt.
    """
    by_place = {record.index: record for record in records}
    found: dict[str, tuple[TokenRecord, ...]] = {}
    for key, own in places.items():
        scored = [place for place in own if place > 0]
        if scored and all(place in by_place for place in scored):
            found[key] = tuple(
                replace(by_place[place], index=index) for index, place in enumerate(scored)
            )
    return found
