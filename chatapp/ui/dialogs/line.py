"""One line to be written: a title, a file name."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input

from chatapp.chat.text import sanitise
from chatapp.ui.dialogs.dialog import Dialog


class LineScreen(Dialog[str | None]):
    """A line to be changed; None when it stays as it is."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "leave", id="line.leave", priority=True),
    ]

    def __init__(self, title: str, text: str, what_happens: str) -> None:
        """`what_happens` says what keeping the line leads to."""
        super().__init__()
        self._title = title
        self._text = text
        self._what_happens = what_happens

    def compose(self) -> ComposeResult:
        line = Input(sanitise(self._text), id="line-text", compact=True)
        keys = f"enter {self._what_happens} · esc close"
        return self.framed(self._title, line, keys=keys, shape="narrow")

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    @on(Input.Submitted)
    def keep(self, event: Input.Submitted) -> None:
        """Give the line back; an empty one changes nothing."""
        event.stop()
        self.dismiss(event.value.strip() or None)
