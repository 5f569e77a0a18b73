"""One of several replies side by side: its tokens, coloured, with a cursor of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.style import Style

from chatapp.chat.conversation import Reply
from chatapp.chat.record import TokenRecord
from chatapp.ui.layout.line import strip
from chatapp.ui.layout.summary import reply_summary
from chatapp.ui.layout.tokens import TokenLayout
from chatapp.ui.token_colours import Scale, token_style


class ReplyColumn(ScrollView, can_focus=True):
    """A reply as it streams."""

    DEFAULT_CSS = """
    ReplyColumn {
        width: 1fr;
        height: 1fr;
        padding: 0 1;
        overflow-x: hidden;
        scrollbar-size-vertical: 1;
        border: round $panel-lighten-1;
        border-title-color: $foreground;
    }
    ReplyColumn:focus { border: round $primary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "token", id="column.left", show=False),
        Binding("right", "move(1)", "token", id="column.right", show=False),
        Binding("up", "move_row(-1)", "row", id="column.up", show=False),
        Binding("down", "move_row(1)", "row", id="column.down", show=False),
        Binding("end", "follow", "newest token", id="column.end", show=False),
    ]

    @dataclass
    class Pointed(Message):
        """Another token of this column is to be shown."""

        column: ReplyColumn

    def __init__(self, name: str, scale: Scale) -> None:
        super().__init__()
        self.title = name
        self.border_title = Content(name)
        self._scale: Scale = scale
        self.records: list[TokenRecord] = []
        self._layout_of = TokenLayout()
        self.cursor: int | None = None
        """The token pointed at; None follows the newest."""

    @property
    def record(self) -> TokenRecord | None:
        """The token pointed at, or the newest one."""
        if not self.records:
            return None
        return self.records[-1 if self.cursor is None else self.cursor]

    def add(self, records: Sequence[TokenRecord]) -> None:
        """Add some tokens."""
        self.records.extend(records)
        self._layout_of.extend(record.bytes for record in records)
        self._arrange()
        self.post_message(self.Pointed(self))

    def finish(self, reply: Reply) -> None:
        """Show the numbers of the complete reply."""
        if len(reply.records) != len(self.records):
            self.records = list(reply.records)
            self._layout_of = TokenLayout((one.bytes for one in self.records), self._inner)
        self.border_subtitle = Content(reply_summary(reply))
        self._arrange()
        self.post_message(self.Pointed(self))

    def tell_settings(self, words: str) -> None:
        """Say beside its name what it is written with now."""
        self.border_title = Content(f"{self.title} · {words}")

    def wait(self, words: str) -> None:
        """Say what is being waited for."""
        self.border_subtitle = Content(words)

    def action_move(self, steps: int) -> None:
        if self.records:
            newest = len(self.records) - 1
            self._point(newest if self.cursor is None else self.cursor + steps)

    def action_move_row(self, rows: int) -> None:
        if self.records:
            x, y = self._layout_of.place_of(
                len(self.records) - 1 if self.cursor is None else self.cursor
            )
            below = self._layout_of.token_at(x, y + rows)
            if below is not None and 0 <= y + rows < self._layout_of.height:
                self._point(below)

    def action_follow(self) -> None:
        self.cursor = None
        self._arrange()
        self.post_message(self.Pointed(self))

    def _point(self, index: int) -> None:
        self.cursor = min(max(index, 0), len(self.records) - 1)
        row = self._layout_of.place_of(self.cursor)[1]
        top, height = self.scroll_offset.y, max(self.scrollable_content_region.height, 1)
        if not top <= row < top + height:
            self.scroll_to(y=max(0, row - height // 2), animate=False, immediate=True)
        self.refresh()
        self.post_message(self.Pointed(self))

    def on_focus(self) -> None:
        self.post_message(self.Pointed(self))

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and self.records:
            found = self._layout_of.token_at(offset.x, offset.y + self.scroll_offset.y)
            if found is not None:
                self._point(found)

    def on_resize(self) -> None:
        """Break the rows anew."""
        self._layout_of.resize(self._inner)
        self._arrange()

    def render_line(self, y: int) -> Strip:
        row = y + self.scroll_offset.y
        base = self.visual_style
        if row >= self._layout_of.height or not self.records:
            return Strip.blank(self._inner, base.rich_style)
        content = self._layout_of.row(row, self._style, self.cursor).content
        return strip(content, self._inner, base)

    def _style(self, index: int) -> Style:
        dark = self.app.current_theme.dark
        return token_style(self.records[index], self._scale, dark=dark)

    @property
    def _inner(self) -> int:
        return max(1, self.scrollable_content_region.width)

    def _arrange(self) -> None:
        self.virtual_size = Size(self._inner, self._layout_of.height)
        if self.cursor is None:
            self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True)
        self.refresh()
