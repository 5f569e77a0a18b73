"""Many lines to be read: only those in view are drawn."""

from __future__ import annotations

from collections.abc import Callable

from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from chatapp.ui.layout.line import EMPTY, Line, strip


class LinesView(ScrollView, can_focus=True):
    """Lines made for the width there is."""

    def __init__(
        self,
        lines: Callable[[int], list[Line]],
        *,
        id: str | None = None,  # noqa: A002
    ) -> None:
        """`lines` gives the lines for a width in cells."""
        super().__init__(id=id)
        self._make = lines
        self._lines: list[Line] = []

    def show(self, lines: Callable[[int], list[Line]]) -> None:
        """Show other lines, from their beginning."""
        self._make = lines
        self._lay_out()
        self.scroll_to(y=0, animate=False)

    def renew(self) -> None:
        """Make the lines again; the end stays in view where it was."""
        at_end = self.scroll_offset.y >= self.max_scroll_y
        self._lay_out()
        if at_end:
            self.scroll_to(y=self.max_scroll_y, animate=False)

    @property
    def text_rows(self) -> list[str]:
        """All lines as plain text."""
        return [line.content.plain for line in self._lines]

    def on_resize(self) -> None:
        self._lay_out()

    def render_line(self, y: int) -> Strip:
        row = y + self.scroll_offset.y
        line = self._lines[row] if row < len(self._lines) else EMPTY
        return strip(line.content, self._width, self.visual_style)

    @property
    def _width(self) -> int:
        return max(1, self.scrollable_content_region.width)

    def _lay_out(self) -> None:
        self._lines = self._make(self._width)
        self.virtual_size = Size(self._width, len(self._lines))
        self.refresh()
