"""The first row: which model runs and on what, which chat is open, how full the context is, how
fast it goes."""

from __future__ import annotations

from dataclasses import dataclass

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from chatapp.chat import numbers
from chatapp.chat.facts import ModelFacts, Progress
from chatapp.chat.text import sanitise
from chatapp.ui.drawing import MUTED, bar
from chatapp.ui.services import ModelState

_WORDS = {
    ModelState.NONE: "no model",
    ModelState.FETCHING: "fetching",
    ModelState.LOADING: "loading",
    ModelState.DEAD: "engine ended · F5 starts it again",
}
_BAR = 12
_TITLE = 32
"""The most cells that a chat's title takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the header shows."""

    state: ModelState = ModelState.NONE
    model: str = ""
    """What is being loaded; for a model that is ready, `facts` tells."""
    progress: Progress | None = None
    facts: ModelFacts | None = None
    context_used: int | None = 0
    """Tokens; None where the server does not tell how many a text has."""
    tokens_per_second: float = 0.0
    temperature: float = 0.0
    replying: bool = False
    chat: str = ""
    """The open chat's title."""
    template: str = ""
    """What the chat was made from."""


class Header(Widget):
    """One row."""

    status: reactive[Status] = reactive(Status())

    def render(self) -> Content:
        """As much as the width has room for; the right side goes first, part by part."""
        width = self.size.width
        left, right = self._left(), self._right()
        while right and left[0].cell_length + _length(right) + 2 > width:
            right.pop(0)
        while len(left) > 1 and _length(left) + _length(right) + 2 > width:
            left.pop()
        separator = Content.styled(" · ", MUTED)
        start, end = separator.join(left), separator.join(right)
        gap = max(1, width - start.cell_length - end.cell_length)
        return (start + " " * gap + end).truncate(width, ellipsis=True)

    def _left(self) -> list[Content]:
        status = self.status
        if status.state is ModelState.READY and status.facts is not None:
            facts = status.facts
            others = (facts.weight_format, facts.runtime, facts.device, status.template)
            parts = [
                Content.styled(sanitise(facts.name), "bold"),
                *(Content(sanitise(text)) for text in others if text),
            ]
            if status.chat:
                title = Content.styled(sanitise(status.chat), MUTED)
                parts.append(title.truncate(_TITLE, ellipsis=True))
            return parts
        words = Content.styled(_WORDS[status.state], "$text-warning")
        if status.state in (ModelState.FETCHING, ModelState.LOADING):
            words = Content(f"{_WORDS[status.state]} ") + Content.styled(
                sanitise(status.model), "bold"
            )
            return [words, *_progress(status.progress)]
        return [words]

    def _right(self) -> list[Content]:
        status = self.status
        parts: list[Content] = []
        if status.facts is not None and status.state is ModelState.READY:
            total = status.facts.context_length
            used = status.context_used
            share = int(100 * (used or 0) / total) if total else 0
            style = "$text-error" if share >= 95 else "$text-warning" if share >= 80 else ""
            if used is None or not total:  # a server does not tell both
                told = [numbers.count(used)] if used is not None else []
                told += [f"of {numbers.count(total)}"] if total else []
                words = f"ctx {' '.join(told)}" if told else ""
            else:
                words = f"ctx {numbers.count(used)}/{numbers.count(total)} ({share} %)"
            if words:
                parts.append(Content.styled(words, style))
        if status.tokens_per_second > 0:
            style = "$text-success" if status.replying else ""
            parts.append(Content.styled(numbers.rate(status.tokens_per_second), style))
        parts.append(Content.styled(f"T {status.temperature:.2f}", "bold"))
        return parts


def _length(parts: list[Content]) -> int:
    return sum(part.cell_length + 3 for part in parts) - 3 if parts else 0


def _progress(progress: Progress | None) -> list[Content]:
    if progress is None:
        return []
    if not progress.total:
        return [Content.styled(progress.stage, MUTED)]
    fraction = progress.done / progress.total
    percent = Content(f" {int(100 * fraction)} %")
    return [bar(fraction, _BAR) + percent, Content.styled(progress.stage, MUTED)]
