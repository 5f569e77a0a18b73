"""The whole conversation as rows: where it branches, which path is current, which are (un)likely.

Only a branch is indented. What follows without a choice stands straight below, so that a long
conversation with few branches doesn't walk off the screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content

from chatapp.chat import numbers
from chatapp.chat.conversation import Conversation, Message
from chatapp.chat.text import sanitise
from chatapp.ui.drawing import MUTED

CURRENT, MOST, LEAST = "●", "▲", "▼"
"""On the current path; on the most likely one; on the least likely one."""
_STATS_FROM_WIDTH = 44
"""In fewer cells the words are worth more than the numbers."""


@dataclass(frozen=True, slots=True)
class TreeRow:
    """One message of the tree."""

    message: Message
    guide: str
    """The lines that lead to it."""
    current: bool
    most_likely: bool
    least_likely: bool
    tokens: int
    mean_logprob: float | None
    """Of the tokens of this message alone; None where no model wrote it."""

    def lines(self, width: int) -> Sequence[Content]:
        """Marks, guides, who, the first words; at the right how likely its tokens were."""
        marks = Content.styled(CURRENT if self.current else " ", "$text-accent")
        marks += Content.styled(MOST if self.most_likely else " ", "$text-success")
        marks += Content.styled(LEAST if self.least_likely else " ", "$text-warning")
        guide = self.guide
        if len(guide) > width // 2:
            guide = "…" + guide[1 - width // 2 :]
        left = marks + Content.styled(f" {guide}", MUTED)
        if self.message.role == "user":
            left += Content.styled("you ", "bold $text-primary")
        else:
            left += Content.styled("assistant ", "bold $text-success")
        # Enough of the text for the widest screen: a message can have a million characters.
        left += Content(" ".join(sanitise(self.message.text[: 4 * width]).split()))
        right = self._stats() if width >= _STATS_FROM_WIDTH else Content("")
        left = left.truncate(max(0, width - right.cell_length), ellipsis=True)
        gap = " " * max(0, width - right.cell_length - left.cell_length)
        return (left + gap + right,)

    def _stats(self) -> Content:
        if self.mean_logprob is None:
            return Content("")
        words = f"  {numbers.count(self.tokens)} tok  {numbers.decimal(self.mean_logprob)}"
        return Content.styled(words, MUTED)


@dataclass(frozen=True, slots=True)
class Tree:
    """All rows, and what is to be said about the paths."""

    rows: tuple[TreeRow, ...]
    paths: int
    """How many paths lead to an end."""
    most_likely: float | None
    """The mean logprob of the most likely path; None where fewer than two can be compared."""
    least_likely: float | None

    @property
    def words(self) -> str:
        """What the marks mean here."""
        paths = "1 path" if self.paths == 1 else f"{self.paths} paths"
        if self.most_likely is None or self.least_likely is None:
            return f"{paths} · {CURRENT} current"
        most, least = numbers.decimal(self.most_likely), numbers.decimal(self.least_likely)
        return (
            f"{paths} · {CURRENT} current · {MOST} most likely {most}"
            f" · {LEAST} least likely {least}  (mean logprob a token)"
        )


def make_tree(conversation: Conversation) -> Tree:
    """Lay out what is not deleted, siblings oldest first."""
    means = conversation.mean_logprobs()
    most = conversation.most_likely() if len(means) > 1 else None
    least = conversation.least_likely() if len(means) > 1 else None
    current = {message.id for message in conversation.path()}
    likely = {message.id for message in conversation.path_to(most)}
    unlikely = {message.id for message in conversation.path_to(least)}
    rows: list[TreeRow] = []
    for message, guide in _walk(conversation):
        logprobs = message.reply.logprobs if message.reply is not None else ()
        rows.append(
            TreeRow(
                message,
                guide,
                message.id in current,
                message.id in likely,
                message.id in unlikely,
                len(logprobs),
                math.fsum(logprobs) / len(logprobs) if logprobs else None,
            )
        )
    return Tree(
        tuple(rows),
        len(conversation.leaves()),
        means[most] if most is not None else None,
        means[least] if least is not None else None,
    )


def _walk(conversation: Conversation) -> list[tuple[Message, str]]:
    """Each message with the lines that lead to it, a branch whole before the next one begins."""
    below: dict[str | None, list[Message]] = {}
    for message in conversation.messages.values():
        if message.deleted is None:
            below.setdefault(message.parent, []).append(message)
    found: list[tuple[Message, str]] = []
    waiting: list[tuple[Message, str, str]] = []  # with its own guide, and that of what follows

    def enter(parent: str | None, guide: str) -> None:
        children = below.get(parent, [])
        if len(children) == 1:
            waiting.append((children[0], guide, guide))
            return
        for child in reversed(children):
            last = child is children[-1]
            waiting.append(
                (child, guide + ("└ " if last else "├ "), guide + ("  " if last else "│ "))
            )

    enter(None, "")
    while waiting:
        message, guide, following = waiting.pop()
        found.append((message, guide))
        enter(message.id, following)
    return found
