"""The system text as the first block of the transcript: what the model is told before all else.

It is often long and seldom looked at, so it is folded to its first rows; with the cursor in it, all
of it is there.
"""

from __future__ import annotations

from textual.content import Content

from chatapp.chat.conversation import Message
from chatapp.chat.numbers import count
from chatapp.chat.text import sanitise
from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.line import Line, wrap
from chatapp.ui.layout.message import MessageBlock

SYSTEM = "system"
"""Stands for the system text where a message's id is asked for."""

FOLDED_ROWS = 2
"""How many of its rows are there when it is folded."""

_FOLDED_FROM = FOLDED_ROWS + 2
"""From how many rows on it is folded: hiding a single one would win nothing."""


class SystemBlock(MessageBlock):
    """The system text and its rows; no message of the conversation."""

    def __init__(self, text: str) -> None:
        """Show a system text."""
        # The role is never shown or read; what matters is that no model wrote it.
        super().__init__(Message(id=SYSTEM, parent=None, role="user", text=text, created=0.0))

    def _body_height(self) -> int:
        return super()._body_height() - self._folded_rows

    @property
    def _folded_rows(self) -> int:
        """How many rows are not there."""
        rows = super()._body_height()
        return 0 if self.pointed or rows < _FOLDED_FROM else rows - FOLDED_ROWS

    def _lay_out_text(self) -> list[Line]:
        return wrap(Content.styled(sanitise(self.message.text), MUTED), self._inner)

    def _head(self) -> list[Line]:
        name = Content.styled("system", f"bold {MUTED}")
        if folded := self._folded_rows:
            name += Content.styled(f"  … {count(folded)} more rows", MUTED)
        return [Line(name)]
