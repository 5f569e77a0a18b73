"""Conversations as JSON, whole: the tree, the settings and every token record.

The document says what it is ("chatapp": "conversations") and in which version, and holds a list of
conversations by the fields of the program's own values, so that importing brings back the same
values and exporting those gives the same bytes. Bytes are base64. A number that JSON has no word
for is an object: {"float": "-inf"}. Text is UTF-8 as it is; halves of surrogate pairs, which no
file can hold, are settled as in the store.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from chatapp.chat.conversation import Conversation
from chatapp.store.replies import plain
from chatapp.store.unicode import well_formed

KIND = "conversations"
VERSION = 1


def export_json(conversations: Sequence[Conversation]) -> str:
    """Conversations as one JSON document. Raises PackingError."""
    document = {
        "chatapp": KIND,
        "version": VERSION,
        "conversations": [conversation_json(conversation) for conversation in conversations],
    }
    return json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def conversation_json(conversation: Conversation) -> dict[str, Any]:
    """One conversation as the document holds it; its messages are a list, oldest first."""
    messages = [
        msgspec.to_builtins(replace(message, reply=plain(message.reply)))
        for message in conversation.messages.values()
    ]
    values: dict[str, Any] = msgspec.to_builtins(replace(conversation, messages={}))
    values["messages"] = messages
    settled: dict[str, Any] = _settled(values)
    return settled


def _settled(value: Any) -> Any:
    match value:
        case str():
            return well_formed(value)
        case float() if not math.isfinite(value):
            return {"float": repr(value)}
        case list() | tuple():
            return [_settled(item) for item in value]
        case dict():
            return {key: _settled(item) for key, item in value.items()}
    return value
