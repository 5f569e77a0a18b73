"""Another look at a message: other colours for its tokens, and a sign behind some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.style import Style

from chatapp.chat.whatif import WhatIf
from chatapp.ui.token_colours import step_of, step_style

IMPOSSIBLE, DIFFERS = "×", "≠"
"""Behind a token: it could not be drawn; another one would be the most probable."""


@dataclass(frozen=True, slots=True)
class Look:
    """How the tokens of one message are drawn, in place of the scale."""

    styles: Sequence[Style]
    """By token."""
    signs: tuple[str, ...] = ()
    """By token; empty for none."""
    tokens: tuple[bytes, ...] = ()
    """What it is made of, for a message whose tokens are not known otherwise."""

    def style(self, index: int) -> Style:
        """The style of a token; tokens beyond the known ones are plain."""
        return self.styles[index] if 0 <= index < len(self.styles) else Style()


def what_if_look(result: WhatIf, *, dark: bool) -> Look:
    """A reply under other settings, by the final probability of its tokens."""
    return Look(
        tuple(step_style(step_of(one.prob, "probability"), dark=dark) for one in result.tokens),
        tuple(
            IMPOSSIBLE if one.impossible else DIFFERS if one.differs else ""
            for one in result.tokens
        ),
    )


def with_sign(token: bytes, sign: str) -> bytes:
    """A token's bytes with a sign behind what is drawn of its first row."""
    head, newline, tail = token.partition(b"\n")
    return head + sign.encode() + newline + tail
