"""Control tokens, and how to encode text so that it can never hold one.

A control token is every special token of a vocabulary, and every other added token that isn't
mere whitespace (<think>, <tool_call>). In the real tokenizer any text that spells one becomes it
(huggingface/transformers#29279). Here a second tokenizer is built from the same JSON in which each
control token has a name that nobody can type; everything else, ids included, is as it was.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

Json = dict[str, Any]


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


def control_tokens(tokenizer: Tokenizer) -> tuple[ControlToken, ...]:
    """The control tokens of a tokenizer, by id."""
    return tuple(
        ControlToken(
            number, token.content, token.special, token.lstrip, token.rstrip, token.single_word
        )
        for number, token in sorted(tokenizer.get_added_tokens_decoder().items())
        if token.content and (token.special or token.content.strip())
    )


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


@dataclass(frozen=True, slots=True)
class PlainTokenizers:
    """Tokenizers without control tokens, by where in the prompt a text stands."""

    at_start: Tokenizer
    """For the very start of a prompt."""
    after_control: Tokenizer
    """For text that follows a control token."""
    inside: Tokenizer
    """For text that goes on after a reply's exact ids: no space is put before it."""


def plain_tokenizers(tokenizer: Tokenizer) -> PlainTokenizers:
    """Build them from the real one; at most two are different objects.

    SentencePiece-like tokenizers put a space before a text. Some do it once, at the start, others
    after every control token too; none may do it where a text merely goes on.
    """
    plain = _without_control_tokens(json.loads(tokenizer.to_str()), control_tokens(tokenizer))
    at_start = Tokenizer.from_str(json.dumps(plain))
    once = _prefixes_once(plain.get("pre_tokenizer"))
    bare = {
        **plain,
        "pre_tokenizer": _without_prefix(plain.get("pre_tokenizer")),
        "normalizer": _without_prefix(plain.get("normalizer")),
    }
    if bare == plain:
        return PlainTokenizers(at_start, at_start, at_start)
    inside = Tokenizer.from_str(json.dumps(bare))
    return PlainTokenizers(at_start, inside if once else at_start, inside)


def _without_control_tokens(tokenizer: Json, tokens: tuple[ControlToken, ...]) -> Json:
    """The JSON with every control token under a name that no text can spell.

    They are renamed and not removed, since the ids of added tokens follow from their order.
    """
    secret = secrets.token_hex(16)
    names = {token.content: f"\ufdd0{secret}{token.id}" for token in tokens}
    added = [
        {**item, "content": names.get(item["content"], item["content"])}
        for item in tokenizer["added_tokens"]
    ]
    return {
        **tokenizer,
        "added_tokens": added,
        "model": _renamed_model(tokenizer["model"], names),
        "post_processor": None,
        "padding": None,
        "truncation": None,
    }


def _renamed_model(model: Json, names: Mapping[str, str]) -> Json:
    """The model with those entries of its vocabulary renamed, and no merge that leads to one."""
    vocab = model["vocab"]
    if isinstance(vocab, list):  # Unigram: pairs of piece and score
        return {**model, "vocab": [[names.get(piece, piece), score] for piece, score in vocab]}
    if names.keys().isdisjoint(vocab):
        return model
    renamed = {**model, "vocab": {names.get(entry, entry): id_ for entry, id_ in vocab.items()}}
    if unknown := model.get("unk_token"):
        renamed["unk_token"] = names.get(unknown, unknown)
    if "merges" in model:
        prefix = model.get("continuing_subword_prefix") or ""
        renamed["merges"] = [
            merge for merge in model["merges"] if not _merge_parts(merge, prefix) & names.keys()
        ]
    return renamed


def _merge_parts(merge: str | list[str], prefix: str) -> set[str]:
    """The two tokens of a merge, and what they make."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return {first, second, first + second.removeprefix(prefix)}


def _prefixes_once(step: Json | None) -> bool:
    """Whether the space before a text is put at the start of the whole text only."""
    if step is None:
        return False
    if step["type"] == "Sequence":
        return any(map(_prefixes_once, step["pretokenizers"]))
    return bool(step["type"] == "Metaspace" and step.get("prepend_scheme") == "first")


def _without_prefix(step: Json | None) -> Json | None:
    """A normalizer or pre-tokenizer that puts nothing before the text."""
    if step is None or step["type"] == "Prepend":
        return None
    for key in ("pretokenizers", "normalizers"):
        if key in step:
            kept = [inner for inner in map(_without_prefix, step[key]) if inner is not None]
            return {**step, key: kept}
    if step["type"] == "Metaspace":
        return {**step, "prepend_scheme": "never"}
    if step["type"] == "ByteLevel":
        return {**step, "add_prefix_space": False}
    return step
