"""How to encode text with a tokenizer.json so that it can never hold a control token.

In the real tokenizer any text that spells one becomes it
(huggingface/transformers#29279). Here a second tokenizer is built from the same JSON in which each
control token has a name that nobody can type; everything else, ids included, is as it was.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from chatapp.engine.prompt.control import ControlToken
from chatapp.engine.runtimes.tokenizer import Where

Json = dict[str, Any]


def control_tokens(tokenizer: Tokenizer) -> tuple[ControlToken, ...]:
    return tuple(
        ControlToken(
            number, token.content, token.special, token.lstrip, token.rstrip, token.single_word
        )
        for number, token in sorted(tokenizer.get_added_tokens_decoder().items())
        if token.content and (token.special or token.content.strip())
    )


def plain_tokenizers(tokenizer: Tokenizer) -> Mapping[Where, Tokenizer]:
    """Tokenizers without control tokens, made of the real one; at most two are different ones.

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
        return dict.fromkeys(Where, at_start)
    inside = Tokenizer.from_str(json.dumps(bare))
    after_control = inside if once else at_start
    return {Where.START: at_start, Where.AFTER_CONTROL: after_control, Where.INSIDE: inside}


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
