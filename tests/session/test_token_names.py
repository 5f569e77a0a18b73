"""Tokens named by id or text; the real model's tokenizer says which texts are one token."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from chatapp.chat.prompt import TokenPiece
from chatapp.session.token_names import Bias, TokenNameError, parse_bias, token_named, unquoted

TOKENS = ["Blue", " Blue", "=", '""', " "]


class Tokens:
    """As much of an engine as names need: five tokens, and every other character is one."""

    async def tokenize(self, text: str, *, inside: bool = False) -> tuple[TokenPiece, ...]:
        assert inside  # a reply's tokens are named, not those of a text that stands by itself
        parts = [text] if text in TOKENS else list(text)
        return tuple(self._piece(part) for part in parts)

    async def pieces(self, ids: Sequence[int]) -> tuple[TokenPiece, ...]:
        return tuple(self._piece(TOKENS[id_]) for id_ in ids)

    def _piece(self, text: str) -> TokenPiece:
        return TokenPiece(TOKENS.index(text) if text in TOKENS else 99, text, text.encode())


async def named(name: str) -> int:
    engine: object = Tokens()
    return (await token_named(name, engine, len(TOKENS))).id  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "id_"),
    [("Blue", 0), (" Blue", 1), ("=", 2), ("4", 4), ("0", 0), ("0004", 4), ("0" * 5000 + "3", 3)],
)
async def test_a_token_goes_by_its_id_or_its_text(name: str, id_: int) -> None:
    assert await named(name) == id_


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("5", "there is no token 5; ids go from 0 to 4"),
        ("9" * 5000, "there is no token 99999999999999999999; ids go from 0 to 4"),
        ("Green", "'Green' is 5 tokens of this model"),
        ("", "not by nothing"),
    ],
)
async def test_what_is_no_token_is_refused_in_one_line(name: str, words: str) -> None:
    with pytest.raises(TokenNameError, match=words) as raised:
        await named(name)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 200


@pytest.mark.parametrize(
    ("text", "name"),
    [('" Blue"', " Blue"), ('  " Blue" ', " Blue"), ("Blue", "Blue"), ('""', ""), ('"', '"')],
)
def test_quotes_keep_spaces_and_are_no_part_of_a_name(text: str, name: str) -> None:
    assert unquoted(text) == name


def test_a_bias_is_a_name_and_a_number() -> None:
    assert parse_bias(" Blue=-2.5") == Bias(" Blue", -2.5)
    assert parse_bias("==1") == Bias("=", 1.0)
    assert parse_bias("4=-inf") == Bias("4", -math.inf)
    for text in ("Blue", "=1", "Blue=", "Blue=x", "Blue=nan", "Blue=inf"):
        with pytest.raises(TokenNameError, match="a bias must be TOKEN=NUMBER"):
            parse_bias(text)
