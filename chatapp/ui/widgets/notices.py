"""Words for the user, above the prompt: what was done, what failed and what to do.

Passing notices leave by themselves; a failure stays until Esc or the next message. Nothing here is
ever read as markup.
"""

from __future__ import annotations

from typing import Literal

from textual.content import Content
from textual.reactive import reactive
from textual.timer import Timer
from textual.widgets import Static

from chatapp.chat.text import sanitise
from chatapp.ui.drawing import MUTED

Level = Literal["note", "warning", "error"]

_SECONDS = {"note": 5.0, "warning": 12.0}
_SIGNS = {"note": "·", "warning": "!", "error": "✗"}
_STYLES = {"note": MUTED, "warning": "$text-warning", "error": "$text-error"}


class Notices(Static):
    """The last thing said; hidden when there is nothing to say."""

    words: reactive[str] = reactive("")
    """What is being said; empty for nothing."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 (Textual's own name)
        super().__init__(id=id, markup=False)
        self._timer: Timer | None = None
        self.display = False

    def say(self, words: str, level: Level = "note") -> None:
        """Say something in place of what was said before."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        self.words = words
        self.display = bool(words)
        text = Content.styled(f"{_SIGNS[level]} {sanitise(words)}", _STYLES[level])
        self.update(text)
        if words and level in _SECONDS:
            self._timer = self.set_timer(_SECONDS[level], self.clear)

    def clear(self) -> None:
        """Say nothing."""
        self.say("")
