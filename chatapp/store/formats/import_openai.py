"""Conversations out of OpenAI-style message lists.

Understood are a list of messages, an object with `messages`, a list of such objects, and JSON lines
of them (the form used for fine-tuning). The system text at the start becomes the conversation's; a
later one stays where it is. What is no text (tool calls, pictures) is left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from chatapp.chat.conversation import Conversation, Message, new_id, title_from
from chatapp.chat.errors import ImportFailed
from chatapp.chat.prompt import Role
from chatapp.store.unicode import well_formed

LAST_TIME = 253402300799.0
"""The last second of the year 9999: later times cannot be shown."""

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
}


def is_message_list(document: object) -> bool:
    """Whether a JSON document is a message list, or holds some."""
    match document:
        case {"messages": list()}:
            return True
        case [{"role": str()}, *_]:
            return True
        case [{"messages": list()}, *_]:
            return True
    return False


def import_openai(document: Any, now: float) -> Iterator[tuple[Conversation, int]]:
    """The conversations of a document, each with how many messages had to be left out.

    `now`: seconds since the epoch; the lists tell no times. Raises ImportFailed.
    """
    if isinstance(document, dict) or "role" in document[0]:
        document = [document]
    for place, item in enumerate(document):
        messages = item.get("messages") if isinstance(item, dict) else item
        if not isinstance(messages, list):
            raise ImportFailed(f"conversation {place + 1} has no list of messages")
        yield _conversation(messages, now, f"conversation {place + 1}")


def _conversation(messages: list[Any], now: float, where: str) -> tuple[Conversation, int]:
    conversation = Conversation(id=new_id(), created=now)
    left_out = 0
    for place, item in enumerate(messages):
        match item:
            case {"role": str(name)}:
                role, text = _ROLES.get(name), content_text(item.get("content"))
            case _:
                raise ImportFailed(f"{where}, message {place + 1}: it has no role")
        if role is None or not text:
            left_out += 1
        elif role == "system" and conversation.leaf is None:
            joined = f"{conversation.system}\n\n{text}" if conversation.system else text
            conversation = replace(conversation, system=joined)
        else:
            if role == "user" and not conversation.title:
                conversation = replace(conversation, title=title_from(text))
            message = Message(
                id=new_id(), parent=conversation.leaf, role=role, text=text, created=now
            )
            conversation = conversation.with_message(message)
    return conversation, left_out


def content_text(content: object) -> str:
    """The text of a message's content: a string, or the text parts of a list."""
    match content:
        case str():
            return well_formed(content)
        case list():
            parts = (_part_text(part) for part in content)
            return "\n\n".join(part for part in parts if part)
    return ""


def _part_text(part: object) -> str:
    match part:
        case str(text) | {"text": str(text)}:
            return well_formed(text)
    return ""
