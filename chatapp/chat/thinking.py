"""What a model thinks before it answers, and how its text marks that."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

SWITCHES = ("enable_thinking", "thinking")
"""What chat templates call the variable that has a model think, or not."""

THINK = {"auto": None, "on": True, "off": False}
"""What a user says of whether a model is to think; auto leaves it to its template."""

_TAGS = re.compile(r"<([\w:|-]*think[\w:|-]*)>|\[(THINK)\]")


@dataclass(frozen=True, slots=True)
class Thinking:
    """How the thinking at the start of a reply is marked, and how much there is."""

    open: str = "<think>"
    close: str = "</think>"
    begun: bool = False
    """The prompt ends inside it, so that the reply has no opening mark."""
    tokens: int = 0
    """How many of the reply's first tokens belong to it, marks included; 0 where it has none."""
    seconds: float = 0.0
    """From the prompt's end to the closing mark; 0 where that is not known."""

    def end(self, text: str) -> int:
        """Where a reply's answer begins: behind the thinking, its marks and the blanks there.

        The length of the text where it is not closed; 0 where the reply doesn't think.
        """
        start = 0 if self.begun else text.find(self.open)
        if start < 0 or text[:start].strip():
            return 0
        close = text.find(self.close, start)
        if close < 0:
            return len(text)
        behind = text[close + len(self.close) :]
        return len(text) - len(behind.lstrip())


def thinking_of(template: str) -> Thinking:
    """The marks that a chat template names, or else the usual ones."""
    for tag, bracketed in _TAGS.findall(template):
        opened, closed = (f"<{tag}>", f"</{tag}>") if tag else (f"[{bracketed}]", f"[/{bracketed}]")
        if closed in template or tag == "think":
            return Thinking(opened, closed)
    return Thinking()


def answer_in(text: str, thinking: Thinking | None) -> str:
    """A reply's text without its thinking."""
    return text[(thinking or Thinking()).end(text) :]


class ThinkingWatch:
    """Follows a reply as it comes, and finds its thinking, however tokens cut the marks."""

    def __init__(self, thinking: Thinking | None = None) -> None:
        self._marks = thinking or Thinking()
        self._tail = ""
        self.inside = self._marks.begun
        """Whether the next token belongs to the thinking."""
        self.over = False
        """Whether no thinking can come any more."""
        self.count = 0
        """How many tokens have come, up to the end of the thinking."""

    def push(self, text: str) -> bool:
        """Take a token's text.

        Returns whether it belongs to the thinking: it stands behind the opening mark, up to and
        with the last token of the closing one.
        """
        if self.over:
            return False
        self.count += 1
        self._tail += text
        if not self.inside:
            head = self._tail.lstrip()
            if head.startswith(self._marks.open):
                self.inside = True
                self._tail = head[len(self._marks.open) :]
            elif not self._marks.open.startswith(head):
                self.over, self.count = True, 0
            return False
        self.over = self._marks.close in self._tail
        self.inside = not self.over
        self._tail = self._tail[-len(self._marks.close) :]
        return True

    def found(self, seconds: float) -> Thinking | None:
        """What has come of it so far; `seconds`: how long that took."""
        thinks = self.inside or (self.over and self.count > 0)
        return replace(self._marks, tokens=self.count, seconds=seconds) if thinks else None
