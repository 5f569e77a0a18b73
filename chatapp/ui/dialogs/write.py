"""A line or a text to be written: a title, a file name, another wording of a message."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input

from chatapp.chat.text import sanitise
from chatapp.ui.dialogs.dialog import Dialog
from chatapp.ui.widgets.vim import VimArea


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


class WriteScreen(Dialog[str | None]):
    """A text to be changed; None when it stays as it is."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "leave", id="write.leave"),
        Binding("ctrl+s,ctrl+enter", "keep", "keep", id="write.keep", priority=True),
    ]

    def __init__(self, title: str, text: str, what_happens: str, *, vim: bool = False) -> None:
        """`what_happens` says what keeping the text leads to; `vim`: by which keys it is edited."""
        super().__init__()
        self._vim = vim
        self._title = title
        self._text = text
        self._what_happens = what_happens

    def compose(self) -> ComposeResult:
        area = VimArea(self._text, id="write-text", compact=True)
        return self.framed(self._title, area, keys=f"ctrl+s {self._what_happens} · esc close")

    def on_mount(self) -> None:
        area = self.query_one(VimArea)
        area.vim = self._vim
        area.move_cursor(area.document.end)
        area.focus()

    def action_keep(self) -> None:
        """Give the text back; an empty or unchanged one changes nothing."""
        text = self.query_one(VimArea).text
        self.dismiss(text if text.strip() and text != self._text else None)
