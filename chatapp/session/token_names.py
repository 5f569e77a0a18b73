"""Tokens as people name them, by id or by their exact text, and what is said of them.

What a text's token is only the model's tokenizer knows, so names are resolved once it is loaded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chatapp.chat.errors import ChatappError

if TYPE_CHECKING:
    from chatapp.chat.prompt import TokenPiece
    from chatapp.session.protocols import Engine


class TokenNameError(ChatappError):
    """No token of the model goes by that name, or what is said of it cannot be read."""


@dataclass(frozen=True, slots=True)
class Bias:
    """A token, as it was named, and what is added to its logit."""

    token: str
    value: float


def parse_bias(text: str) -> Bias:
    """Read TOKEN=NUMBER; -inf bans. Raises TokenNameError."""
    token, sign, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not sign or not token or math.isnan(value) or value == math.inf:
        raise TokenNameError(f"a bias must be TOKEN=NUMBER, as in 464=-2.5, not {text!r}")
    return Bias(token, value)


def unquoted(name: str) -> str:
    """A name without the quotes in which the user keeps the space that most words begin with."""
    name = name.strip()
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] == '"' else name


async def token_named(name: str, engine: Engine, vocabulary: int) -> TokenPiece:
    """The token that goes by a name.

    `name`: an id in decimal digits, or a text that is one token inside of a reply. Raises
    TokenNameError: there is no such id, or the text is several tokens. Raises EngineError: the
    engine could not say.
    """
    if not name:
        raise TokenNameError("a token is named by its id or by its text, not by nothing")
    if name.isascii() and name.isdecimal():
        digits = name.lstrip("0") or "0"
        # Python reads no number of thousands of digits.
        if len(digits) > len(str(vocabulary)) or int(digits) >= vocabulary:
            raise TokenNameError(
                f"there is no token {digits[:20]}; ids go from 0 to {vocabulary - 1}"
            )
        return (await engine.pieces([int(digits)]))[0]
    pieces = await engine.tokenize(name, inside=True)
    if len(pieces) != 1:
        parts = ", ".join(f"{piece.id} {piece.token!r}" for piece in pieces[:8])
        raise TokenNameError(
            f"{name!r} is {len(pieces)} tokens of this model ({parts}); name one of them"
        )
    return pieces[0]
