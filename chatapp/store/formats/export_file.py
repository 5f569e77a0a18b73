"""The forms a conversation can be written in, by name and by the ending of a file's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from chatapp.chat.conversation import Conversation
from chatapp.chat.errors import StoreError, UsageError
from chatapp.store.formats.export_html import export_html
from chatapp.store.formats.export_json import export_json
from chatapp.store.formats.export_markdown import export_markdown
from chatapp.store.formats.export_records import export_csv, export_jsonl
from chatapp.store.packing import PackingError


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """One form."""

    name: str
    text: str
    """What is in it, in a few words."""
    write: Callable[[Conversation], str]


EXPORT_FORMATS: Mapping[str, ExportFormat] = {
    item.name: item
    for item in (
        ExportFormat("json", "everything; can be imported", lambda item: export_json([item])),
        ExportFormat("md", "the current path as Markdown", export_markdown),
        ExportFormat("html", "the current path as a page, tokens coloured", export_html),
        ExportFormat("jsonl", "the token records as JSON lines", export_jsonl),
        ExportFormat("csv", "the tokens as a table", export_csv),
    )
}

_ALSO = {"markdown": "md", "htm": "html", "ndjson": "jsonl"}


def find_export_format(name: str) -> ExportFormat:
    """The form of that name, or of a file of that name. Raises UsageError."""
    ending = (PurePath(name).suffix or name).lstrip(".").lower()
    ending = _ALSO.get(ending, ending)
    if ending not in EXPORT_FORMATS:
        raise UsageError(
            f"there is no export format for {name!r}; there are {', '.join(EXPORT_FORMATS)}"
        )
    return EXPORT_FORMATS[ending]


def export_text(conversations: Sequence[Conversation], form: ExportFormat) -> str:
    """Conversations in one text. More than one need JSON.

    Raises UsageError: more than one in a form that holds one. Raises StoreError: the token records
    of a reply cannot be read.
    """
    try:
        if form.name == "json":
            return export_json(conversations)
        if len(conversations) != 1:
            raise UsageError(f"only json can hold several conversations; {form.name} holds one")
        return form.write(conversations[0])
    except PackingError as error:
        raise StoreError(f"the conversation could not be exported: {error}") from None
