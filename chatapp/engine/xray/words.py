"""Words as tokens, and sums of words: the tokenizer alone says at once what is wrong with one."""

from __future__ import annotations

import re

from chatapp.chat.errors import EngineError
from chatapp.engine.runtimes.tokenizer import ModelTokenizer


def find_token(tokenizer: ModelTokenizer, word: str) -> tuple[int, bool]:
    """The one token of a word, with a space before it where that is one token, else as it stands.

    "id:504" names a token by its number.

    Returns:
        Its id, and whether a space stands before it.

    Raises:
        EngineError: it is several tokens, none, or no id of this model.
    """
    if word.startswith("id:"):
        number = word[3:]
        if not number.isdecimal() or len(number) > 9 or int(number) >= tokenizer.vocab_size:
            raise EngineError(
                f"there is no token {word!r}; ids go from id:0 to id:{tokenizer.vocab_size - 1}"
            )
        return int(number), False
    bare = word.strip()
    if not bare:
        raise EngineError("there is no word to look up")
    for text, spaced in ((f" {bare}", True), (word, False)):
        ids = tokenizer.encode_inside(text)
        if len(ids) == 1:
            return ids[0], spaced
    pieces = tokenizer.pieces(tokenizer.encode_inside(f" {bare}"))
    shown = " ".join(f"{one.token!r} (id:{one.id})" for one in pieces[:8])
    raise EngineError(f"{bare!r} is {len(pieces)} tokens, no single one: {shown}; give one of them")


def read_sum(expression: str) -> list[tuple[int, str]]:
    """The signs and words of "woman - man + uncle". Raises EngineError where it is none."""
    parts = re.split(r"\s+([+\-−])\s+", expression.strip())
    if not parts[0]:
        raise EngineError('there is nothing to add; write a sum such as "woman - man + uncle"')
    signs = [1, *(1 if sign == "+" else -1 for sign in parts[1::2])]
    words = parts[::2]
    if len(words) < 2:
        raise EngineError(
            f'{expression!r} is no sum; put spaces around the signs: "woman - man + uncle"'
        )
    return list(zip(signs, words, strict=True))
