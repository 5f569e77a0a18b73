"""What a command in the prompt may become, each with what it does, drawn over the transcript."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Static

from chatapp.ui.drawing import MUTED

_SHOWN = 8


class Completions(Static):
    """A list above the prompt; it covers what stands there and moves nothing."""

    DEFAULT_CSS = """
    Completions {
        display: none;
        overlay: screen;
        width: 1fr;
        height: auto;
        padding: 0 1;
        background: $surface;
    }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 (Textual's own name)
        super().__init__(id=id, markup=False)
        self._found: Sequence[tuple[str, str]] = ()
        self._chosen: int | None = None

    @property
    def chosen(self) -> str | None:
        """The line that was chosen with the arrow keys."""
        return self._found[self._chosen][0] if self._chosen is not None else None

    def offer(self, found: Sequence[tuple[str, str]]) -> None:
        """Show other lines, each with what it does; none of them is chosen."""
        self._found = found
        self._chosen = None
        self._draw()

    def move(self, steps: int) -> None:
        """Choose the line above or below."""
        count = len(self._found)
        if count:
            before = self._chosen if self._chosen is not None else (-1 if steps > 0 else 0)
            self._chosen = (before + steps) % count
            self._draw()

    def _draw(self) -> None:
        rows = self._rows()
        self.display = bool(rows)
        self.styles.offset = (0, -len(rows))
        self.update(Content("\n").join(rows))

    def _rows(self) -> list[Content]:
        chosen = self._chosen or 0
        first = min(max(0, chosen - _SHOWN + 1), max(0, len(self._found) - _SHOWN))
        shown = self._found[first : first + _SHOWN]
        width = max((len(line) for line, _ in shown), default=0)
        rows: list[Content] = []
        for place, (line, does) in enumerate(shown, first):
            here = place == self._chosen
            row = Content("▸ " if here else "  ") + Content(f"{line:<{width}}  ")
            rows.append(row + Content.styled(does, "bold" if here else MUTED))
        if more := len(self._found) - first - len(shown):
            rows.append(Content.styled(f"  … {more} more", MUTED))
        return rows
