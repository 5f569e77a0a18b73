"""A file of conversations, whatever its form: looked into, not judged by its name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from chatapp.chat.conversation import Conversation
from chatapp.chat.errors import ImportFailed
from chatapp.store.formats.import_chatgpt import import_chatgpt, is_chatgpt_export
from chatapp.store.formats.import_json import import_json, is_our_json
from chatapp.store.formats.import_openai import import_openai, is_message_list

_Importer = Callable[[Any, float], Iterator[tuple[Conversation, int]]]


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
    importers: tuple[tuple[Callable[[object], bool], _Importer], ...] = (
        (is_chatgpt_export, import_chatgpt),
        (is_message_list, import_openai),
    )
    for fits, read in importers:
        if fits(document):
            found = list(read(document, now))
            kept = tuple(conversation for conversation, _ in found if conversation.messages)
            if not kept:
                raise ImportFailed("there is no message of a user or a model in it")
            return ImportedFile(kept, sum(left_out for _, left_out in found))
    raise ImportFailed(
        "it is neither chatapp's own JSON, nor a list of messages with role and content, "
        "nor ChatGPT's conversations.json"
    )


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
