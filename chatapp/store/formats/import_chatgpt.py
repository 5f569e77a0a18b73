"""Conversations out of ChatGPT's exported conversations.json.

Each conversation there is a tree already: `mapping` holds nodes with a parent and children, and
`current_node` is where its path ends. Nodes without a text of their own (the root, hidden system
messages, tool calls, pictures) are left out; what follows them moves up to the nearest message
that is kept. Ids are kept, so that bringing the same file in again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from chatapp.chat.conversation import Conversation, Message, new_id
from chatapp.chat.errors import ImportFailed
from chatapp.chat.prompt import Role
from chatapp.store.formats.import_openai import LAST_TIME, content_text
from chatapp.store.unicode import well_formed

_ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant"}


def is_chatgpt_export(document: object) -> bool:
    """Whether a JSON document is a conversations.json, or one conversation of it."""
    match document:
        case {"mapping": dict()} | [{"mapping": dict()}, *_]:
            return True
    return False


def import_chatgpt(document: Any, now: float) -> Iterator[tuple[Conversation, int]]:
    """The conversations of a document, each with how many messages had to be left out.

    `now`: seconds since the epoch, for conversations that tell no time. Raises ImportFailed.
    """
    for place, item in enumerate(document if isinstance(document, list) else [document]):
        match item:
            case {"mapping": dict(mapping)}:
                yield _conversation(item, mapping, now)
            case _:
                raise ImportFailed(f"conversation {place + 1} has no mapping")


def _conversation(
    item: dict[str, Any], mapping: dict[str, Any], now: float
) -> tuple[Conversation, int]:
    created = _time(item.get("create_time"), now)
    conversation = Conversation(
        id=_text(item.get("conversation_id")) or _text(item.get("id")) or new_id(),
        created=created,
        title=" ".join(_text(item.get("title")).split()),
        model=_text(item.get("default_model_slug")),
    )
    nearest: dict[str, str | None] = {}
    left_out = 0
    for node_id, parent_id in _from_the_roots(mapping):
        node = mapping[node_id]
        above = nearest.get(parent_id) if parent_id is not None else None
        nearest[node_id] = above
        raw = node.get("message")
        if not isinstance(raw, dict):
            continue
        message = _message(node_id, above, raw, created)
        if message is not None:
            nearest[node_id] = message.id
            conversation = conversation.with_message(message)
        elif _role_name(raw) != "system" or content_text(_parts(raw)):
            left_out += 1
    current = item.get("current_node")
    leaf = nearest.get(current) if isinstance(current, str) else None
    if leaf is None and conversation.messages:
        leaf = conversation.leaves()[-1]
    return replace(conversation, leaf=leaf), left_out


def _from_the_roots(mapping: dict[str, Any]) -> list[tuple[str, str | None]]:
    """Every node once with its parent, parents first; siblings in their parent's order."""
    nodes = {id_: node for id_, node in mapping.items() if isinstance(node, dict)}
    parents = {id_: _parent(node, nodes) for id_, node in nodes.items()}
    below: dict[str | None, list[str]] = {}
    for id_, parent in parents.items():
        below.setdefault(parent, []).append(id_)
    for parent, ids in below.items():
        told = nodes[parent].get("children") if parent is not None else None
        if isinstance(told, list):
            places = {id_: place for place, id_ in enumerate(told) if isinstance(id_, str)}
            ids.sort(key=lambda id_: places.get(id_, len(places)))
    order: list[tuple[str, str | None]] = []
    waiting = list(reversed(below.get(None, [])))
    while waiting:
        id_ = waiting.pop()
        order.append((id_, parents[id_]))
        waiting.extend(reversed(below.get(id_, [])))
    return order  # nodes that are their own ancestors are never reached


def _parent(node: dict[str, Any], nodes: dict[str, Any]) -> str | None:
    parent = node.get("parent")
    return parent if isinstance(parent, str) and parent in nodes else None


def _message(
    node_id: str, parent: str | None, raw: dict[str, Any], default_time: float
) -> Message | None:
    """A node's message; None where it is no person's or model's text."""
    role, text = _ROLES.get(_role_name(raw)), content_text(_parts(raw))
    if role is None or not text.strip():
        return None
    return Message(
        id=well_formed(node_id),
        parent=parent,
        role=role,
        text=text,
        created=_time(raw.get("create_time"), default_time),
    )


def _role_name(raw: dict[str, Any]) -> str:
    author = raw.get("author")
    return _text(author.get("role")) if isinstance(author, dict) else ""


def _parts(raw: dict[str, Any]) -> object:
    content = raw.get("content")
    if not isinstance(content, dict) or content.get("content_type") not in (
        "text",
        "multimodal_text",
    ):
        return None
    return content.get("parts")


def _text(value: object) -> str:
    return well_formed(value) if isinstance(value, str) else ""


def _time(value: object, default: float) -> float:
    if isinstance(value, int | float) and 0 <= value <= LAST_TIME:
        return float(value)
    return default
