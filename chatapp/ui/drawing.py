"""Small drawings made of characters."""

from __future__ import annotations

from rich.cells import cell_len
from textual.content import Content
from textual.widgets import Static

from chatapp.chat.prompt import TokenPiece
from chatapp.explain import plots

MUTED = "$foreground 60%"
"""How what matters less is drawn; `$text-muted` means nothing inside of Content."""

CONTROL = "bold reverse $text-accent"
_EVEN, _ODD = "on $primary 18%", "on $secondary 18%"


def piece_style(piece: TokenPiece, index: int) -> str:
    """How a token is drawn between others, so that its ends are seen."""
    if piece.control:
        return CONTROL
    return _ODD if index % 2 else _EVEN


def bar(fraction: float, width: int) -> Content:
    """A bar filled to a fraction between 0 and 1, exact to an eighth of a cell."""
    filled = plots.bar(fraction, width)
    empty = "·" * (width - len(filled))
    return Content.styled(filled, "$accent") + Content.styled(empty, MUTED)


def renew(line: Static, text: Content) -> None:
    """Show another text; the screen is laid out anew only where it may need other rows.

    To lay out a screen costs as much as to paint it, and the rows of a legend seldom change.
    """
    before, width = line.content, line.content_size.width
    if text == before:
        return
    rows = _rows(text, width)
    same = rows is not None and isinstance(before, Content) and rows == _rows(before, width)
    line.update(text, layout=not same)


def _rows(text: Content, width: int) -> int | None:
    """How many rows a text takes; None where some wrap, or where there is none."""
    rows = text.plain.split("\n")
    return len(rows) if text and all(cell_len(row) <= width for row in rows) else None
