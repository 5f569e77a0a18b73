"""Full-text search of all messages, quick enough to run at every key press.

What the user types is data: each word becomes a quoted FTS5 string, so that no operator of the
query language can come out of it, and the last word is a prefix, since it may not be finished yet.
Hits come newest first: ranking them by relevance would mean to look at every match of one letter.

FTS5 splits text at spaces and punctuation. Writing that has no spaces (Chinese, Japanese, Thai…)
and searches for punctuation alone are answered by reading through the texts instead.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from chatapp.chat.conversation import SearchHit
from chatapp.store.unicode import well_formed

_BEGIN, _END = "\ufdd0", "\ufdd1"
"""Noncharacters that mark a hit on its way out of SQLite; a text has no use for them."""

_SNIPPET_WORDS = 16
_AROUND = 48
"""Characters on each side of a hit, where the snippet is cut out here."""

_MARKS = re.compile(f"[{_BEGIN}{_END}]")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u3100-\u312f\u31a0-\u9fff"
    "\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)
"""Thai, Lao, Myanmar, Khmer, kana, bopomofo and the Han ideographs."""

_INDEXED = """
    SELECT conversation.key, conversation.id, title, message.id, role, message.created,
           snippet(message_text, 0, :begin, :end, '…', :words)
    FROM message_text
         CROSS JOIN message ON message.key = message_text.rowid
         JOIN conversation ON conversation.key = message.conversation
    WHERE message_text MATCH :query AND conversation.deleted IS NULL
    ORDER BY message_text.rowid DESC
"""

_READ_THROUGH = """
    SELECT conversation.key, conversation.id, title, message.id, role, message.created, text
    FROM message CROSS JOIN conversation ON conversation.key = message.conversation
    WHERE conversation.deleted IS NULL AND {}
    ORDER BY message.key DESC
"""

_TITLES = """
    SELECT id, title, changed FROM conversation WHERE deleted IS NULL AND {}
    ORDER BY pinned DESC, changed DESC LIMIT ?
"""

_HIDDEN = """
    WITH RECURSIVE hidden (id) AS (
        SELECT id FROM message WHERE conversation = :key AND deleted IS NOT NULL
        UNION
        SELECT message.id FROM message JOIN hidden ON message.parent = hidden.id
        WHERE conversation = :key
    )
    SELECT id FROM hidden
"""


def search(connection: sqlite3.Connection, text: str, limit: int) -> tuple[SearchHit, ...]:
    """Where all the words of a text are found: titles first, then messages, newest first.

    The last word may be unfinished. At most `limit` titles, and as many messages.
    """
    words = well_formed(text).replace("\0", " ").split()
    if not words:
        return ()
    titles = tuple(_titles(connection, words, limit))
    read_through = any(_UNSPACED.search(w) or not any(map(str.isalnum, w)) for w in words)
    rows = _reading(connection, words) if read_through else _indexed(connection, words)
    hits: list[SearchHit] = []
    hidden: dict[int, frozenset[str]] = {}
    for key, *row in rows:
        if key not in hidden:
            found = connection.execute(_HIDDEN, {"key": key})
            hidden[key] = frozenset(id_ for (id_,) in found)
        if row[2] in hidden[key]:
            continue
        hits.append(SearchHit(*row))
        if len(hits) == limit:
            break
    return titles + tuple(hits)


def match_expression(words: Sequence[str]) -> str:
    """Words as an FTS5 query: each quoted, the last one a prefix."""
    quoted = ['"' + word.replace('"', '""') + '"' for word in words]
    return " ".join(quoted) + "*"


def _titles(
    connection: sqlite3.Connection, words: Sequence[str], limit: int
) -> Iterator[SearchHit]:
    query = _TITLES.format(" AND ".join(["title LIKE ? ESCAPE '\\'"] * len(words)))
    for id_, title, changed in connection.execute(query, (*map(_like, words), limit)):
        yield SearchHit(id_, title, None, None, changed, *_surroundings(title, words))


_Row = tuple[Any, ...]
"""Key of the conversation, then a `SearchHit`'s fields."""


def _indexed(connection: sqlite3.Connection, words: Sequence[str]) -> Iterator[_Row]:
    values = {
        "begin": _BEGIN,
        "end": _END,
        "words": _SNIPPET_WORDS,
        "query": match_expression(words),
    }
    for *row, snippet in connection.execute(_INDEXED, values):
        yield (*row, *_unmark(" ".join(snippet.split())))


def _reading(connection: sqlite3.Connection, words: Sequence[str]) -> Iterator[_Row]:
    query = _READ_THROUGH.format(" AND ".join(["text LIKE ? ESCAPE '\\'"] * len(words)))
    for *row, text in connection.execute(query, tuple(map(_like, words))):
        yield (*row, *_surroundings(text, words))


def _like(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _surroundings(text: str, words: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The stretch around the first hit, on one line, with every word in it marked."""
    pattern = re.compile("|".join(re.escape(word) for word in words), re.IGNORECASE)
    first = pattern.search(text)
    place = first.start() if first else 0
    start, end = max(0, place - _AROUND), place + _AROUND
    line = " ".join(text[start:end].split())
    line = f"{'…' if start else ''}{line}{'…' if end < len(text) else ''}"
    return line, tuple(match.span() for match in pattern.finditer(line))


def _unmark(marked: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """A snippet without its marks, and where they stood."""
    pieces: list[str] = []
    marks: list[tuple[int, int]] = []
    length = begin = end = 0
    for match in _MARKS.finditer(marked):
        pieces.append(marked[end : match.start()])
        length += len(pieces[-1])
        end = match.end()
        if match.group() == _BEGIN:
            begin = length
        else:
            marks.append((begin, length))
    pieces.append(marked[end:])
    return "".join(pieces), tuple(marks)
