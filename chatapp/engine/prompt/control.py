"""Control tokens, and where a text spells one.

A control token is every special token of a vocabulary, and every other added token that isn't
mere whitespace (<think>, <tool_call>).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ControlToken:
    """An added token that only a format may write."""

    id: int
    content: str
    special: bool
    lstrip: bool = False
    """Whether it swallows the whitespace before it."""
    rstrip: bool = False
    """Whether it swallows the whitespace after it."""
    single_word: bool = False
    """Whether it is none inside a word."""


class ControlPattern:
    """Finds control tokens in text, as the real tokenizer would."""

    def __init__(self, tokens: Iterable[ControlToken]) -> None:
        self._by_content = {token.content: token for token in tokens}
        # The longest first, or "<|end|>" would be cut short by "<|e".
        contents = sorted(self._by_content, key=len, reverse=True)
        self._written = _regex(self._written_form(content) for content in contents)
        self._spelt = _regex(map(re.escape, contents))
        self._starts = {content[:n] for content in contents for n in range(1, len(content))}
        self._ends = {content[-n:] for content in contents for n in range(1, len(content))}
        self._all = "\0".join(contents)
        self._longest = max(map(len, contents), default=0)

    def find(self, text: str) -> tuple[str, ...]:
        """The control tokens a text spells, from left to right."""
        return tuple(self._written.findall(text))

    def split(self, text: str) -> list[str | ControlToken]:
        """A text cut at its control tokens, without the whitespace that those swallow."""
        parts: list[str | ControlToken] = []
        end = 0
        for match in self._written.finditer(text):
            parts += text[end : match.start()], self._by_content[match.group()]
            end = match.end()
        parts.append(text[end:])
        for number in range(1, len(parts), 2):
            token, before, after = parts[number], parts[number - 1], parts[number + 1]
            assert isinstance(token, ControlToken)  # every other part is one
            if token.lstrip and isinstance(before, str):
                parts[number - 1] = before.rstrip()
            if token.rstrip and isinstance(after, str):
                parts[number + 1] = after.lstrip()
        return [part for part in parts if part != ""]

    def risky_positions(self, text: str) -> tuple[int, ...]:
        """Where a text spells a control token, or could together with its surroundings.

        Once the characters at these positions are replaced by ones that no control token holds,
        the text can neither spell nor complete any.
        """
        found: set[int] = set()
        start = 0
        while match := self._spelt.search(text, start):
            found.add(match.start())
            start = match.start() + 1
        # With and without the whitespace around it, since a format may trim it.
        left, right = len(text) - len(text.lstrip()), len(text.rstrip())
        for n in range(1, min(self._longest, len(text) + 1)):
            found.update(
                e - n for e in (right, len(text)) if text[max(e - n, 0) : e] in self._starts
            )
            found.update(b for b in (left, 0) if text[b : b + n] in self._ends)
        middle = text.strip()
        if middle and len(middle) < self._longest and middle in self._all:
            found.add(left)
        return tuple(sorted(found))

    def _written_form(self, content: str) -> str:
        form = re.escape(content)
        return rf"(?<!\w){form}(?!\w)" if self._by_content[content].single_word else form


def _regex(alternatives: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(alternatives) or "(?!)")
