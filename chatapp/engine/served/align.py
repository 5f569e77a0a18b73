"""Which part of a streamed text belongs to which token.

A server sends text in pieces of its own: a piece may hold no token, one or several, and a token's
numbers may come before its text or after it. So text and tokens are laid beside each other by their
bytes. Where a server makes bytes out of broken text (U+FFFD for part of a character), or puts a
space before the first word, the next token that is found again shows how much text the ones before
it had.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from chatapp.engine.served.kinds import Weighed

Placed = tuple[Weighed, bytes]
"""A token, and the bytes of the text that are its own."""


class Aligner:
    """Text and tokens of one answer, as they come."""

    def __init__(self, *, numbers: bool) -> None:
        """`numbers` tells whether tokens are expected beside the text."""
        self._numbers = numbers
        self._text = b""
        self._tokens: list[Weighed] = []

    def feed(self, text: bytes, tokens: Iterable[Weighed]) -> Iterator[Placed]:
        """Take in a piece of text and some tokens; tells those whose text is clear."""
        fresh = list(tokens)
        if self._text and not self._tokens and not fresh:
            yield self._without_token(len(self._text))  # two pieces running without a token
        self._text += text
        self._tokens += fresh
        while self._tokens and (placed := self._place()):
            yield from placed
        if self._text and not self._numbers and not self._tokens:
            yield self._without_token(len(self._text))

    def finish(self) -> Iterator[Placed]:
        """Nothing more comes: the last token has the rest of the text."""
        rest, self._text = self._text, b""
        for token in self._tokens[:-1]:
            taken = rest[: len(token.bytes)] if rest.startswith(token.bytes) else b""
            rest = rest[len(taken) :]
            yield token, taken
        if self._tokens or rest:
            yield (self._tokens or [Weighed(rest, math.nan)])[-1], rest
        self._tokens = []

    def _place(self) -> list[Placed]:
        first = self._tokens[0]
        if taken := _start(self._text, first.bytes):
            return [self._take(taken)]
        if first.bytes.startswith(self._text):  # that of an empty text included
            return []
        # It is not where it should be: look for what can be found, the nearest one first.
        found = [
            (at, number)
            for number, token in enumerate(self._tokens)
            if token.bytes and (at := self._text.find(token.bytes)) >= 0
        ]
        if not found:
            return []
        at, number = min(found)
        if number == 0:
            return [self._without_token(at)]
        return [self._take(0) for _ in range(number - 1)] + [self._take(at)]

    def _take(self, length: int) -> Placed:
        taken, self._text = self._text[:length], self._text[length:]
        return self._tokens.pop(0), taken

    def _without_token(self, length: int) -> Placed:
        taken, self._text = self._text[:length], self._text[length:]
        return Weighed(taken, math.nan), taken


def _start(text: bytes, token: bytes) -> int:
    """How much at the start of a text is a token's: its bytes, or what became of broken ones."""
    for shape in (token, token.decode("utf-8", "replace").encode()):
        if shape and text.startswith(shape):
            return len(shape)
    return 0
