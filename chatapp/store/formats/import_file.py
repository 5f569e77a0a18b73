"""A file of conversations, whatever its form: looked into, not judged by its name.

Besides our own JSON these are understood:

- OpenAI-style message lists: a list of messages, an object with `messages`, a list of such objects,
  and JSON lines of them (the form used for fine-tuning). The system text at the start becomes the
  conversation's; a later one stays where it is.
- ChatGPT's exported conversations.json. Each conversation there is a tree already: `mapping` holds
  nodes with a parent and children, and `current_node` is where its path ends. Ids are kept, so that
  bringing the same file in again changes nothing.

What is no text (tool calls, pictures, hidden system messages) is left out; in a tree, what follows
it moves up to the nearest message that is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from chatapp.chat.conversation import Conversation, Message, new_id, title_from
from chatapp.chat.errors import ImportFailed
from chatapp.chat.prompt import Role
from chatapp.store.formats.own_json import LAST_TIME, import_json, is_our_json
from chatapp.store.unicode import well_formed

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
}
_SPEAKERS: Mapping[str, Role] = {"user": "user", "assistant": "assistant"}
"""Whose messages are kept of a tree."""


@dataclass(frozen=True, slots=True)
class ImportedFile:
    """What was in a file."""

    conversations: tuple[Conversation, ...]
    left_out: int = 0
    """Messages that hold no text of a user or a model: tool calls, pictures."""


def import_text(data: bytes, now: float) -> ImportedFile:
    """Read a file's conversations: our JSON, OpenAI-style message lists, or ChatGPT's export.

    `now`: seconds since the epoch, for forms that tell no time. Raises ImportFailed: it is none of
    these, or something in it is not as it must be.
    """
    document = _document(data)
    if is_our_json(document):
        return ImportedFile(import_json(document))
    match document:
        case {"mapping": dict()}:
            read = _trees([document], now)
        case [{"mapping": dict()}, *_]:
            read = _trees(document, now)
        case {"messages": list()} | [{"role": str()}, *_]:
            read = _message_lists([document], now)
        case [{"messages": list()}, *_]:
            read = _message_lists(document, now)
        case _:
            raise ImportFailed(
                "it is neither chatapp's own JSON, nor a list of messages with role and content, "
                "nor ChatGPT's conversations.json"
            )
    found = list(read)
    kept = tuple(conversation for conversation, _ in found if conversation.messages)
    if not kept:
        raise ImportFailed("there is no message of a user or a model in it")
    return ImportedFile(kept, sum(left_out for _, left_out in found))


def _document(data: bytes) -> Any:
    """The file as one JSON value; JSON lines become a list."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ImportFailed("it is not a UTF-8 text") from None
    if not text.strip():
        raise ImportFailed("it is empty")
    try:
        return json.loads(text)
    except RecursionError:
        raise ImportFailed("its values are nested too deeply") from None
    except ValueError as whole_error:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise ImportFailed(f"it is not valid JSON: {whole_error}") from None


def _message_lists(items: list[Any], now: float) -> Iterator[tuple[Conversation, int]]:
    """A conversation for each list, with how many messages had to be left out."""
    for place, item in enumerate(items):
        messages = item.get("messages") if isinstance(item, dict) else item
        if not isinstance(messages, list):
            raise ImportFailed(f"conversation {place + 1} has no list of messages")
        yield _of_messages(messages, now, f"conversation {place + 1}")


def _of_messages(messages: list[Any], now: float, where: str) -> tuple[Conversation, int]:
    conversation = Conversation(id=new_id(), created=now)
    left_out = 0
    for place, item in enumerate(messages):
        match item:
            case {"role": str(name)}:
                role, text = _ROLES.get(name), _content_text(item.get("content"))
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


def _trees(items: list[Any], now: float) -> Iterator[tuple[Conversation, int]]:
    """A conversation for each of ChatGPT's, with how many messages had to be left out."""
    for place, item in enumerate(items):
        match item:
            case {"mapping": dict(mapping)}:
                nodes = {id_: node for id_, node in mapping.items() if isinstance(node, dict)}
                yield _of_nodes(item, nodes, now)
            case _:
                raise ImportFailed(f"conversation {place + 1} has no mapping")


def _of_nodes(
    item: dict[str, Any], nodes: dict[str, dict[str, Any]], now: float
) -> tuple[Conversation, int]:
    created = _time(item.get("create_time"), now)
    conversation = Conversation(
        id=_text(item.get("conversation_id")) or _text(item.get("id")) or new_id(),
        created=created,
        title=" ".join(_text(item.get("title")).split()),
        model=_text(item.get("default_model_slug")),
    )
    nearest: dict[str | None, str | None] = {}
    left_out = 0
    for node_id, parent_id in _from_the_roots(nodes):
        nearest[node_id] = nearest.get(parent_id)
        raw = nodes[node_id].get("message")
        if not isinstance(raw, dict):
            continue
        name, text = _said(raw)
        role = _SPEAKERS.get(name)
        if role and text.strip():
            message = Message(
                id=well_formed(node_id),
                parent=nearest[node_id],
                role=role,
                text=text,
                created=_time(raw.get("create_time"), created),
            )
            nearest[node_id] = message.id
            conversation = conversation.with_message(message)
        elif name != "system" or text:
            left_out += 1
    current = item.get("current_node")
    leaf = nearest.get(current) if isinstance(current, str) else None
    if leaf is None and conversation.messages:
        leaf = conversation.leaves()[-1]
    return replace(conversation, leaf=leaf), left_out


def _from_the_roots(nodes: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str | None]]:
    """Every node once with its parent, parents first; siblings in their parent's order."""
    below: dict[str | None, list[str]] = {}
    for id_, node in nodes.items():
        parent = node.get("parent")
        known = isinstance(parent, str) and parent in nodes
        below.setdefault(parent if known else None, []).append(id_)
    waiting: list[tuple[str, str | None]] = [(id_, None) for id_ in reversed(below.get(None, []))]
    while waiting:  # nodes that are their own ancestors are never reached
        id_, parent = waiting.pop()
        yield id_, parent
        told = nodes[id_].get("children")
        order = enumerate(told if isinstance(told, list) else ())
        places = {one: place for place, one in order if isinstance(one, str)}
        following = sorted(below.get(id_, []), key=lambda one: places.get(one, len(places)))
        waiting.extend((one, id_) for one in reversed(following))


def _said(raw: dict[str, Any]) -> tuple[str, str]:
    """Who says a message, in ChatGPT's word, and its text; empty where it tells none."""
    name = text = ""
    if isinstance(author := raw.get("author"), dict):
        name = _text(author.get("role"))
    match raw.get("content"):
        case {"content_type": "text" | "multimodal_text", "parts": parts}:
            text = _content_text(parts)
    return name, text


def _content_text(content: object) -> str:
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


def _text(value: object) -> str:
    return well_formed(value) if isinstance(value, str) else ""


def _time(value: object, default: float) -> float:
    if isinstance(value, int | float) and 0 <= value <= LAST_TIME:
        return float(value)
    return default
