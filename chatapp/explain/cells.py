"""Texts cut and filled to an exact number of terminal cells.

Tables are drawn line by line, so a token of any text (wide, combining, endless) must take exactly
the cells of its column, or everything after it stands askew.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from rich.cells import cell_len, set_cell_size

from chatapp.chat.text import visible_token

_MARKS_AT_MOST = 4
"""More than any writing puts on one letter."""


def fit(text: str, width: int) -> str:
    """The text in exactly `width` cells: cut with "…", or filled with blanks."""
    if width <= 0:
        return ""
    # What takes no cells of its own has no end: 16 characters a cell are more than writing needs.
    cut = text[: 16 * width]
    if len(cut) == len(text) and cell_len(text) <= width:
        return set_cell_size(text, width)
    if width == 1:
        return "…"
    shortened = set_cell_size(cut, width - 1).rstrip(" ")
    return set_cell_size(shortened + "…", width)


@lru_cache(maxsize=4096)
def fit_token(data: bytes, width: int) -> str:
    """A token's visible text in exactly `width` cells."""
    text = visible_token(data[: 64 * max(width, 1)])
    if _is_mark(text[0]):
        text = f"◌{text}"  # else it would sit on whatever stands before it
    return fit(_without_towers(text), width)


def _without_towers(text: str) -> str:
    """The text with at most a few combining marks on a letter: more would reach other rows."""
    kept: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if _is_mark(character) else 0
        if marks <= _MARKS_AT_MOST:
            kept.append(character)
        elif marks == _MARKS_AT_MOST + 1:
            kept.append("…")
    return "".join(kept)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")
