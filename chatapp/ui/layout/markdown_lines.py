"""Markdown blocks as rows of a given width."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from textual.content import Content

from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.line import EMPTY, Line, indent, wrap
from chatapp.ui.layout.markdown import (
    Block,
    Code,
    Heading,
    Items,
    Paragraph,
    Quote,
    Rule,
    Table,
)

_BULLETS = ("•", "◦", "▪")
_CODE_BACKGROUND = "on $foreground 6%"
_LEAST_COLUMN = 4


def lay_out(blocks: Sequence[Block], width: int, depth: int = 0) -> list[Line]:
    """The rows of some blocks, one blank row between two of them."""
    lines: list[Line] = []
    for block in blocks:
        if lines:
            lines.append(EMPTY)
        lines.extend(block_lines(block, width, depth))
    return lines


def block_lines(block: Block, width: int, depth: int = 0) -> list[Line]:
    """The rows of one block; `depth` is how many lists it stands in."""
    width = max(width, 1)
    match block:
        case Paragraph():
            return wrap(block.content, width)
        case Heading():
            style = "bold $text-primary" if block.level <= 2 else "bold"
            marks = Content.styled("#" * block.level + " ", MUTED)
            space = Content(" " * (block.level + 1))
            rows = wrap(block.content.stylize(style), width - block.level - 1)
            return indent(rows, marks, space)
        case Code():
            return _code(block, width)
        case Quote():
            bar = Content.styled("▎ ", MUTED)
            inside = lay_out(block.blocks, width - 2, depth) or [EMPTY]
            return indent(inside, bar, bar)
        case Items():
            return _items(block, width, depth)
        case Table():
            return _table(block, width)
        case Rule():
            return [Line(Content.styled("─" * min(width, 40), MUTED), chrome=min(width, 40))]


def _code(block: Code, width: int) -> list[Line]:
    """Code on a tinted ground, the language named above it; long lines go on below."""
    inner = max(width - 2, 1)
    margin = Content(" ")
    lines: list[Line] = []
    if block.language:
        label = Content.styled(f" {block.language}", MUTED)
        lines.append(_tinted(Line(label, chrome=len(label.plain)), width))
    for source in _highlighted(block.text, block.language).split("\n", allow_blank=True):
        folded = source.expand_tabs(4).fold(inner) if source else [source]
        for number, row in enumerate(folded, 1):
            joint = "" if number < len(folded) else "\n"
            lines.append(_tinted(Line(margin + row, joint, chrome=1), width))
    return lines


def _tinted(line: Line, width: int) -> Line:
    content = line.content
    if (missing := width - content.cell_length) > 0:
        content = content.pad_right(missing)
    return Line(content.stylize_before(_CODE_BACKGROUND), line.joint, line.chrome)


_LONGEST_HIGHLIGHTED = 50_000
"""Characters of code; beyond it colours would cost more than they give."""


@lru_cache(maxsize=64)
def _highlighted(text: str, language: str) -> Content:
    if not language or len(text) > _LONGEST_HIGHLIGHTED:
        return Content(text)
    from textual.highlight import highlight  # pygments: only where there is code

    shown = highlight(text, language=language)
    # The highlighter may trim or normalise; what is shown must be what was written.
    return shown if shown.plain == text else Content(text)


def _items(block: Items, width: int, depth: int) -> list[Line]:
    lines: list[Line] = []
    last = (block.start or 0) + len(block.items) - 1
    for offset, item in enumerate(block.items):
        if block.start is None:
            marker = _BULLETS[depth % len(_BULLETS)] + " "
        else:
            marker = f"{block.start + offset}.".rjust(len(f"{last}.")) + " "
        if lines and not block.tight:
            lines.append(EMPTY)
        inside = _item_lines(item, width - len(marker), depth + 1, block.tight) or [EMPTY]
        lines.extend(
            indent(inside, Content.styled(marker, "$text-secondary"), Content(" " * len(marker)))
        )
    return lines


def _item_lines(blocks: Sequence[Block], width: int, depth: int, tight: bool) -> list[Line]:
    if not tight:
        return lay_out(blocks, width, depth)
    return [line for block in blocks for line in block_lines(block, width, depth)]


def _table(block: Table, width: int) -> list[Line]:
    rows = [block.header, *block.rows]
    widths = _column_widths(rows, width)
    rule = Content.styled("─┼─".join("─" * column for column in widths), MUTED)
    lines: list[Line] = []
    for number, row in enumerate(rows):
        cells = [cell.stylize("bold") if number == 0 else cell for cell in row]
        lines.extend(_row(cells, widths))
        if number == 0:
            lines.append(Line(rule, chrome=len(rule.plain)))
    return lines


def _column_widths(rows: Sequence[Sequence[Content]], width: int) -> list[int]:
    """As wide as the cells want, or else shares of what there is."""
    wanted = [max(1, *(cell.cell_length for cell in column)) for column in zip(*rows, strict=True)]
    room = width - 3 * (len(wanted) - 1)
    while sum(wanted) > room and max(wanted) > _LEAST_COLUMN:
        widest = wanted.index(max(wanted))
        second = max((w for i, w in enumerate(wanted) if i != widest), default=0)
        excess = sum(wanted) - room
        least = max(_LEAST_COLUMN, min(second, wanted[widest] - 1))
        wanted[widest] = max(least, wanted[widest] - excess)
    return wanted


def _row(cells: Sequence[Content], widths: Sequence[int]) -> list[Line]:
    bar = Content.styled(" │ ", MUTED)
    wrapped = [
        [line.content for line in wrap(cell, column)]
        for cell, column in zip(cells, widths, strict=True)
    ]
    height = max(len(rows) for rows in wrapped)
    lines: list[Line] = []
    for y in range(height):
        parts = [(rows[y] if y < len(rows) else Content("")) for rows in wrapped]
        padded = [
            part.pad_right(max(0, column - part.cell_length))
            for part, column in zip(parts, widths, strict=True)
        ]
        lines.append(Line(bar.join(padded)))
    return lines
