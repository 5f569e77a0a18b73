"""A list of many rows to choose from: only those in view are drawn.

Textual's OptionList measures every option before it shows the first one, which a user with a
thousand chats would wait for. Here every row has the same height, so nothing has to be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.reactive import var
from textual.scroll_view import ScrollView
from textual.strip import Strip

from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.line import strip

_SIGN, _NO_SIGN = "▸ ", "  "
"""Marks the highlighted row, where colours can't be seen too."""


class Row(Protocol):
    """What a list shows: as many lines as the list gives each row."""

    def lines(self, width: int) -> Sequence[Content]:
        """How it is drawn in that many cells; what is longer is cut off."""


class RowList(ScrollView, can_focus=True):
    """Rows of the same height, one of them highlighted."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "up", show=False, id="list.up"),
        Binding("down", "move(1)", "down", show=False, id="list.down"),
        Binding("pageup", "page(-1)", "page up", show=False, id="list.pageup"),
        Binding("pagedown", "page(1)", "page down", show=False, id="list.pagedown"),
        Binding("home", "first", "first", show=False, id="list.home"),
        Binding("end", "last", "last", show=False, id="list.end"),
        Binding("enter", "choose", "choose", show=False, id="list.choose"),
    ]

    highlighted: var[int] = var(0)
    """Which row; 0 where there is none."""

    @dataclass
    class Chosen(Message):
        """The user pressed Enter on a row, or clicked it."""

        row: int
        drawn: Row
        """The row itself: others may stand in its place by the time this is heard."""

    def __init__(self, *, height: int = 1, id: str | None = None) -> None:  # noqa: A002
        """`height` is how many lines each row takes."""
        super().__init__(id=id)
        self._row_height = height
        self._rows: Sequence[Row] = ()
        self._empty = ""

    def show(self, rows: Sequence[Row], *, highlighted: int = 0, empty: str = "") -> None:
        """Show other rows; `empty` is said where there are none."""
        self._rows = rows
        self._empty = empty
        self.highlighted = min(max(highlighted, 0), max(0, len(rows) - 1))
        self._measure()
        self._bring_into_view()

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    @property
    def text_rows(self) -> list[str]:
        """Everything as plain text, in the present width."""
        return [line.plain for row in self._rows for line in row.lines(self._width - len(_SIGN))]

    def action_move(self, steps: int) -> None:
        self.highlighted = min(max(self.highlighted + steps, 0), max(0, self.count - 1))

    def action_page(self, pages: int) -> None:
        self.action_move(pages * max(1, self.size.height // self._row_height - 1))

    def action_first(self) -> None:
        """Highlight the first row."""
        self.highlighted = 0

    def action_last(self) -> None:
        self.highlighted = max(0, self.count - 1)

    def action_choose(self) -> None:
        if self.count:
            self.post_message(self.Chosen(self.highlighted, self._rows[self.highlighted]))

    def watch_highlighted(self) -> None:
        self._bring_into_view()
        self.refresh()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_resize(self) -> None:
        self._measure()
        self._bring_into_view()

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        row = (offset.y + self.scroll_offset.y) // self._row_height
        if row < self.count:
            self.highlighted = row
            self.action_choose()

    def render_line(self, y: int) -> Strip:
        row, line = divmod(y + self.scroll_offset.y, self._row_height)
        content = Content("")
        if row < self.count:
            lines = self._rows[row].lines(self._width - len(_SIGN))
            content = lines[line] if line < len(lines) else content
            here = row == self.highlighted
            content = Content(_SIGN if here and line == 0 else _NO_SIGN) + content
            content = content.truncate(self._width, ellipsis=True)
            if here:
                content = content.pad_right(max(0, self._width - content.cell_length))
                style = "bold on $primary-muted" if self.has_focus else "on $primary-muted"
                content = content.stylize_before(style)
        elif not self.count and y == 0:
            content = Content.styled(self._empty, MUTED)
        return strip(content, self._width, self.visual_style)

    @property
    def _width(self) -> int:
        return max(1, self.scrollable_content_region.width)

    def _measure(self) -> None:
        height = max(1, self.count * self._row_height)
        self.virtual_size = Size(self._width, height)
        self.refresh()

    def _bring_into_view(self) -> None:
        if not self.is_mounted:
            return
        top = self.highlighted * self._row_height
        height = max(self._row_height, self.scrollable_content_region.height)
        if top < self.scroll_offset.y:
            self.scroll_to(y=top, animate=False, force=True)
        elif top + self._row_height > self.scroll_offset.y + height:
            self.scroll_to(y=top + self._row_height - height, animate=False, force=True)
