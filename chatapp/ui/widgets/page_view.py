"""A page about the inside of the model: its sentence, its lines, its remark, made for the width."""

from __future__ import annotations

import re
import textwrap

from textual.content import Content
from textual.timer import Timer

from chatapp.chat.facts import Progress
from chatapp.chat.text import sanitise
from chatapp.explain.views import Made
from chatapp.ui.layout.line import Line
from chatapp.ui.widgets.lines_view import LinesView

_DRAWN = re.compile("[\u2580-\u2593·•◉›]+")  # blocks, shades, points

_AT_ONCE = 0.2
"""How long, in seconds, the last page may stand while the next one is made."""


class PageView(LinesView):
    """Shows what an answer says, or how far it is."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 (Textual's own name)
        super().__init__(lambda _: [], id=id)
        self.words_first = True
        """Whether an answer's sentence stands before its lines."""
        self.is_loading = False
        """Whether the weights are on their way: who turns to another page or token waits for them,
        too, and asks then; to withdraw the question would be to begin anew."""

    def say(self, words: str) -> None:
        """Say something in place of an answer."""
        text = sanitise(words)
        self.show(
            lambda width: [Line(Content(row)) for row in textwrap.wrap(text, max(1, width)) or [""]]
        )

    def wait(self) -> Timer:
        """Say that an answer is on its way, unless the timer is stopped soon: it came at once."""
        self.is_loading = False
        return self.set_timer(_AT_ONCE, lambda: None if self.is_loading else self.say("…"))

    def report(self, progress: Progress) -> None:
        """Say how far the answer is."""
        # Reading a text goes on where it was left, and measuring tells how many steps there are.
        self.is_loading = progress.unit in ("tensors", "bytes") or not progress.total
        done = f" {progress.done}/{progress.total} {progress.unit}" if progress.total else ""
        self.say(f"{progress.stage}{done} …")

    def show_page(self, made: Made) -> None:
        """Show an answer."""
        self.is_loading = False
        self.show(
            lambda width: [
                Line(_coloured(row)) for row in made(width).rows(width, self.words_first)
            ]
        )


def _coloured(row: str) -> Content:
    """A row with what is drawn in it in the accent's colour."""
    parts: list[Content] = []
    end = 0
    for match in _DRAWN.finditer(row):
        parts.append(Content(row[end : match.start()]))
        parts.append(Content.styled(match.group(), "$text-accent"))
        end = match.end()
    return Content("").join([*parts, Content(row[end:])])
