"""One line as it is drawn, and the wrapping that makes lines.

The transcript draws lines, not widgets: a reply of a hundred list items is one object instead of
four hundred widgets, and only the lines in view cost anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.content import Content
from textual.strip import Strip
from textual.style import Style


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the screen."""

    content: Content
    joint: str = "\n"
    """What stands between this row and the next in copied text: a wrapped row goes on."""
    chrome: int = 0
    """How many characters at its start are ours (indent, bullet, bar), and not copied."""

    @property
    def text(self) -> str:
        """What a user copies from this row."""
        return self.content.plain[self.chrome :]


EMPTY = Line(Content(""))


def strip(content: Content, width: int, base: Style) -> Strip:
    """A row as a widget of that width and style draws it."""
    drawn = Strip(content.render_segments(base), content.cell_length)
    return drawn.adjust_cell_length(width, base.rich_style)


Parts = Sequence[tuple[str, str]]
"""A row that needs no wrapping, as words and their styles: drawn in half the time."""


def strip_of(parts: Parts, width: int, base: Style, ground: str = "") -> Strip:
    """The same of a row in parts; `ground` stands behind them, their colours stay."""
    segments = [Segment(text, (base + Style.parse(style)).rich_style) for text, style in parts]
    if ground:
        back = RichStyle(bgcolor=(base + Style.parse(ground)).rich_style.bgcolor)
        segments = [*Segment.apply_style(segments, post_style=back)]
    return Strip(segments).adjust_cell_length(width, base.rich_style)


def wrap(content: Content, width: int) -> list[Line]:
    """Break a text into rows of at most `width` cells, at spaces where there are any."""
    lines: list[Line] = []
    for paragraph in content.split("\n", allow_blank=True):
        rows = paragraph.wrap(max(width, 1))
        position = 0
        for row in rows[:-1]:
            position += len(row.plain)
            spaces = len(paragraph.plain[position:]) - len(paragraph.plain[position:].lstrip())
            position += spaces
            lines.append(Line(row, " " if spaces else ""))
        lines.append(Line(rows[-1]))
    return lines


def indent(lines: Iterable[Line], first: Content, rest: Content) -> list[Line]:
    """Put something before each row: `first` before the first one, `rest` before the others."""
    result: list[Line] = []
    for line in lines:
        prefix = rest if result else first
        result.append(
            replace(line, content=prefix + line.content, chrome=line.chrome + len(prefix.plain))
        )
    return result


def alike(before: Sequence[Line], after: Sequence[Line]) -> int:
    """How many rows two texts begin with that look the same.

    `Content` compares by its letters alone, and a row may change its colours only.
    """
    count = 0
    for old, new in zip(before, after, strict=False):
        same = old is new or (
            old.content.plain == new.content.plain and old.content.spans == new.content.spans
        )
        if not same:
            break
        count += 1
    return count
