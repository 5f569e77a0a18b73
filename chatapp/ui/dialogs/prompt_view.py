"""Exactly what the model reads: the text with every control token marked, and each token's id."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content

from chatapp.chat import numbers
from chatapp.chat.prompt import RenderedPrompt, TokenPiece
from chatapp.chat.text import sanitise, visible_token
from chatapp.ui.dialogs.dialog import Dialog
from chatapp.ui.drawing import CONTROL, MUTED, piece_style
from chatapp.ui.layout.line import Line
from chatapp.ui.layout.tokens import TokenLayout
from chatapp.ui.widgets.lines_view import LinesView


class PromptScreen(Dialog[None]):
    """Reads out a rendered prompt."""

    HELP = "The prompt as tokens or as a table of ids; t changes between the two."

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "leave", "leave", id="prompt_view.leave"),
        Binding("t", "other_view", "text or table", id="prompt_view.toggle"),
    ]

    def __init__(self, rendered: RenderedPrompt) -> None:
        """Show what an engine rendered."""
        super().__init__()
        self._rendered = rendered
        self._table = False

    def compose(self) -> ComposeResult:
        lines = LinesView(self._text_lines, id="prompt-lines")
        keys = "reversed: control tokens · t text or table · esc close"
        return self.framed(self._title(), lines, keys=keys, shape="tall")

    def on_mount(self) -> None:
        self.query_one(LinesView).focus()

    def action_other_view(self) -> None:
        self._table = not self._table
        self.query_one(LinesView).show(self._table_lines if self._table else self._text_lines)

    def _title(self) -> Content:
        rendered = self._rendered
        controls = sum(token.control for token in rendered.tokens)
        words = (
            f"What the model reads next: {numbers.tokens(len(rendered.tokens))}, "
            f"{controls} of them control tokens · format {rendered.format}"
        )
        title = Content.styled(words, "bold")
        if rendered.stop:
            stops = ", ".join(repr(stop) for stop in rendered.stop)
            title += Content.styled(f"\nstops at {sanitise(stops)}", MUTED)
        if rendered.note:
            title += Content.styled(f"\n{sanitise(rendered.note)}", "$text-warning")
        return title

    def _text_lines(self, width: int) -> list[Line]:
        tokens = self._rendered.tokens
        layout = TokenLayout((token.bytes for token in tokens), width)
        return [
            layout.row(y, lambda index: piece_style(tokens[index], index), None)
            for y in range(layout.height)
        ]

    def _table_lines(self, _width: int) -> list[Line]:
        return [_table_line(index, token) for index, token in enumerate(self._rendered.tokens)]


def _table_line(index: int, token: TokenPiece) -> Line:
    place = Content.styled(f"{index:>6}  ", MUTED)
    number = Content(f"{token.id:>7}  ")
    text = Content.styled(visible_token(token.bytes), CONTROL if token.control else "")
    kind = Content.styled("  control", "$text-accent") if token.control else Content("")
    return Line(place + number + text + kind)
