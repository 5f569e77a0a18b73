"""Conversations as our own JSON, out and in, whole: the tree, the settings and every token record.

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
from types import MappingProxyType
from typing import Any

import msgspec

from chatapp.chat.conversation import Conversation, Message
from chatapp.chat.errors import ImportFailed
from chatapp.store.rows import plain
from chatapp.store.unicode import well_formed

KIND = "conversations"
VERSION = 1

LAST_TIME = 253402300799.0
"""The last second of the year 9999: later times cannot be shown."""


def export_json(conversations: Sequence[Conversation]) -> str:
    """Conversations as one JSON document. Raises PackingError."""
    document = {
        "chatapp": KIND,
        "version": VERSION,
        "conversations": [_conversation_json(conversation) for conversation in conversations],
    }
    return json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def _conversation_json(conversation: Conversation) -> object:
    """One conversation as the document holds it; its messages are a list, oldest first."""
    values = msgspec.to_builtins(replace(conversation, messages={}))
    values["messages"] = [
        msgspec.to_builtins(replace(message, reply=plain(message.reply)))
        for message in conversation.messages.values()
    ]
    return _settled(values)


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


def is_our_json(document: object) -> bool:
    return isinstance(document, dict) and document.get("chatapp") == KIND


def import_json(document: dict[str, Any]) -> tuple[Conversation, ...]:
    """The conversations of a document, exactly as they were. Raises ImportFailed."""
    version = document.get("version")
    if not isinstance(version, int) or version < 1:
        raise ImportFailed("it does not say which version of the format it has")
    if version > VERSION:
        raise ImportFailed(f"a newer chatapp wrote it (format {version}); update to read it")
    conversations = document.get("conversations")
    if not isinstance(conversations, list):
        raise ImportFailed("its list of conversations is missing")
    return tuple(_conversation(place, value) for place, value in enumerate(conversations))


def _conversation(place: int, value: object) -> Conversation:
    where = f"conversation {place + 1}"
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        raise ImportFailed(f"{where} has no list of messages")
    try:
        messages = msgspec.convert(_read(value["messages"]), tuple[Message, ...])
        empty = msgspec.convert(_read({**value, "messages": {}}), Conversation)
        by_id = {message.id: message for message in messages}
        if len(by_id) < len(messages):
            raise ImportFailed("two messages have the same id")
        conversation = replace(empty, messages=MappingProxyType(by_id))
        conversation.check()
        _check_numbers(conversation)
    except (ImportFailed, msgspec.ValidationError, ValueError) as error:
        raise ImportFailed(f"{where}: {error}") from None
    return conversation


def _check_numbers(conversation: Conversation) -> None:
    times = [conversation.created]
    durations = [0.0]
    for message in conversation.messages.values():
        times += [message.created, message.deleted or 0.0]
        if message.reply is not None:
            durations += [message.reply.seconds, message.reply.time_to_first_token]
            if any(not 0 <= id_ < 1 << 32 for id_ in message.reply.prompt_ids):
                raise ImportFailed("a token id in it is none that a model can have")
    if not all(0 <= moment <= LAST_TIME for moment in times):
        raise ImportFailed("a time in it lies before 1970 or after the year 9999")
    if not all(map(math.isfinite, durations)):
        raise ImportFailed("a duration in it is not finite")


def _read(value: Any) -> Any:
    """The JSON value with numbers beyond JSON read, and text settled as in the store."""
    match value:
        case str():
            return well_formed(value)
        case list():
            return [_read(item) for item in value]
        case {"float": str(number)} if len(value) == 1:
            return float(number)
        case dict():
            return {key: _read(item) for key, item in value.items()}
    return value
