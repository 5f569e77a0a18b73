"""A reply as the tokens it is made of: where each one stands, and which one stands where.

Rows break before a token that begins with a space, so that words stay whole; a token wider than
the row is folded. A single leading space is drawn as a blank of its token (its colour shows whose
it is), every other white space, control character or broken byte by its sign.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.cells import cell_len
from textual.content import Content, Span
from textual.style import Style

from chatapp.chat.text import visible_token
from chatapp.ui.layout.line import Line


@dataclass(frozen=True, slots=True)
class Piece:
    """A token on a row, or a part of one that was folded."""

    index: int
    text: str
    x: int
    """Its first cell."""
    width: int


def drawn_parts(token: bytes) -> tuple[str, ...]:
    """What a token looks like among others: one part a row, since a newline in it ends the row.

    The last part is empty where the newline is the token's end.
    """
    *lines, last = token.split(b"\n")
    parts = [visible_token(line + b"\n") for line in lines]
    parts.append(visible_token(last) if last or not lines else "")
    first = parts[0]
    if first[0] == "␣" and len(first) > 1 and first[1] != "␣":
        parts[0] = " " + first[1:]
    return tuple(parts)


class TokenLayout:
    """Tokens in rows of a width; grows at the end."""

    def __init__(self, tokens: Iterable[bytes] = (), width: int = 1) -> None:
        """Lay out tokens, given by their exact bytes, for a width in cells."""
        self._tokens: list[tuple[str, ...]] = []
        self._rows: list[list[Piece]] = [[]]
        self._ended: list[bool] = [False]
        """By row, whether a newline ends it; the others are wrapped."""
        self._first_rows: list[int] = []
        """By token, the row it begins on."""
        self._width = max(width, 1)
        self.extend(tokens)

    def __len__(self) -> int:
        """How many tokens there are."""
        return len(self._tokens)

    def extend(self, tokens: Iterable[bytes]) -> None:
        """Add tokens at the end."""
        for token in tokens:
            self._tokens.append(drawn_parts(token))
            self._place(len(self._tokens) - 1)

    def resize(self, width: int) -> None:
        """Break the rows anew where the width is another one."""
        if (width := max(width, 1)) == self._width:
            return
        self._width = width
        self._rows = [[]]
        self._ended = [False]
        self._first_rows = []
        for index in range(len(self._tokens)):
            self._place(index)

    @property
    def height(self) -> int:
        """How many rows there are, at least one."""
        return len(self._rows)

    def row(self, y: int, style: Callable[[int], Style | str], cursor: int | None) -> Line:
        """A row, each token in its style, the one under the cursor reversed."""
        texts: list[str] = []
        spans: list[Span] = []
        position = 0
        for piece in self._rows[y]:
            end = position + len(piece.text)
            spans.append(Span(position, end, style(piece.index)))
            if piece.index == cursor:
                spans.append(Span(position, end, "bold reverse"))
            texts.append(piece.text)
            position = end
        wrapped = y + 1 < len(self._rows) and not self._ended[y]
        return Line(Content("".join(texts), spans), "" if wrapped else "\n")

    def token_at(self, x: int, y: int) -> int | None:
        """The token on a cell, or the last one of a row when the cell is past its end."""
        row = self._rows[min(max(y, 0), len(self._rows) - 1)]
        if not row:
            return None
        place = bisect_right([piece.x for piece in row], x) - 1
        return row[max(place, 0)].index

    def place_of(self, index: int) -> tuple[int, int]:
        """The cell and the row a token begins on, as (x, y)."""
        y = self._first_rows[index]
        for piece in self._rows[y]:
            if piece.index == index:
                return piece.x, y
        return 0, y

    def _place(self, index: int) -> None:
        for number, text in enumerate(self._tokens[index]):
            if number:
                self._ended[-1] = True
                self._add_row()
            self._place_part(index, text, first=not number)

    def _place_part(self, index: int, text: str, *, first: bool) -> None:
        width = cell_len(text)
        if self._end() + width > self._width and self._rows[-1]:
            self._begin_row(text)
        if first:
            self._first_rows.append(len(self._rows) - 1)
        if not text:
            return
        if self._end() + width <= self._width:
            self._rows[-1].append(Piece(index, text, self._end(), width))
            return
        for part in Content(text).fold(self._width):
            if self._rows[-1]:
                self._add_row()
            self._rows[-1].append(Piece(index, part.plain, 0, part.cell_length))

    def _end(self) -> int:
        row = self._rows[-1]
        return row[-1].x + row[-1].width if row else 0

    def _add_row(self) -> None:
        self._rows.append([])
        self._ended.append(False)

    def _begin_row(self, text: str) -> None:
        """Begin a row, taking the beginning of the word along that goes on with `text`."""
        row = self._rows[-1]
        start = len(row)
        if not text.startswith((" ", "␣")):
            while start > 0 and not row[start - 1].text.startswith((" ", "␣")):
                start -= 1
            start -= 1  # the piece with the space begins the word
        if start <= 0 or any(self._is_part(piece) for piece in row[start:]):
            start = len(row)
        carried = row[start:]
        del row[start:]
        self._add_row()
        x = 0
        for piece in carried:
            self._rows[-1].append(Piece(piece.index, piece.text, x, piece.width))
            self._first_rows[piece.index] = len(self._rows) - 1
            x += piece.width

    def _is_part(self, piece: Piece) -> bool:
        """Whether a piece is only a part of its token."""
        return self._tokens[piece.index] != (piece.text,)
