"""The last row: the keys that matter where the user is."""

from __future__ import annotations

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from chatapp.ui.drawing import MUTED

Hint = tuple[str, str]

PROMPT: tuple[Hint, ...] = (
    ("enter", "send"),
    ("esc", "stop"),
    ("tab", "look into tokens"),
    ("ctrl+↑↓", "temperature"),
    ("ctrl+p", "commands"),
    ("f1", "help"),
)
TRANSCRIPT: tuple[Hint, ...] = (
    ("←→↑↓", "token"),
    ("n", "unsure"),
    ("b", "branch"),
    ("t", "panel"),
    ("i", "inside"),
    ("j", "journey"),
    ("r", "again"),
    ("c", "continue"),
    ("e", "edit"),
    ("y", "copy"),
    ("[ ]", "siblings"),
    ("esc", "back"),
    ("f1", "help"),
)
HELD: tuple[Hint, ...] = (
    ("f6", "go on"),
    ("f7", "one token"),
    ("enter", "take a candidate by hand"),
    ("esc", "stop"),
    ("f1", "help"),
)
PANEL: tuple[Hint, ...] = (
    ("↑↓", "choose"),
    ("←→", "change"),
    ("enter", "take"),
    ("tab", "next"),
    ("esc", "back"),
    ("f1", "help"),
)


class Hints(Widget):
    """One row; hints that do not fit are left out from the middle, help stays."""

    hints: reactive[tuple[Hint, ...]] = reactive(PROMPT)

    def render(self) -> Content:
        hints = list(self.hints)
        while len(hints) > 1 and self._length(hints) > self.size.width:
            hints.pop(-2)
        parts = [
            Content.styled(key, "bold $text-primary") + Content.styled(f" {what}", MUTED)
            for key, what in hints
        ]
        return Content.styled(" · ", MUTED).join(parts)

    @staticmethod
    def _length(hints: list[Hint]) -> int:
        return sum(len(key) + len(what) + 4 for key, what in hints) - 3
