"""A scored text that is no message: its tokens in the colours of a scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.style import Style
from textual.widgets import Static

from chatapp.chat.record import TokenRecord
from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.line import Line
from chatapp.ui.layout.summary import text_summary
from chatapp.ui.layout.tokens import TokenLayout
from chatapp.ui.token_colours import Scale, legend, token_style
from chatapp.ui.widgets.lines_view import LinesView


class ScoredScreen(ModalScreen[None]):
    """Reads out a scored text."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "leave", "leave", id="scored.leave"),
    ]

    def __init__(self, title: str, records: Sequence[TokenRecord], scale: Scale) -> None:
        """Show a text by the records of its tokens."""
        super().__init__()
        self._title = title
        self._records = records
        self._scale: Scale = scale

    def compose(self) -> ComposeResult:
        """What it is, its numbers, the tokens, the legend."""
        title = Content.styled(f"{self._title}, as probable as the model finds it", "bold")
        summary = Content.styled(f"\n{text_summary(self._records)}", MUTED)
        with Vertical(classes="dialog tall"):
            yield Static(title + summary, markup=False, classes="dialog-title")
            yield LinesView(self._lines, id="scored-lines")
            yield Static(legend(self._scale, dark=self.app.current_theme.dark), markup=False)

    def on_mount(self) -> None:
        """Scroll with the keys at once."""
        self.query_one(LinesView).focus()

    def action_leave(self) -> None:
        """Go back."""
        self.dismiss(None)

    def _lines(self, width: int) -> list[Line]:
        layout = TokenLayout((record.bytes for record in self._records), width)
        return [layout.row(y, self._style, None) for y in range(layout.height)]

    def _style(self, index: int) -> Style:
        dark = self.app.current_theme.dark
        return token_style(self._records[index], self._scale, dark=dark)
