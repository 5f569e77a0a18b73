"""The forms a conversation can be written in, by name and by the ending of a file's name.

Token records go out as JSON lines and as CSV, for scripts and notebooks. JSON lines have the form
of `chatapp ask --json`: for each reply of the current path a start, one object a token, an end. CSV
has one row a token, with the message it belongs to and without its candidates; `token` and `text`
are exact, so a program that treats cells as formulas should be told to read them as text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from chatapp.chat.conversation import Conversation, Message, Reply
from chatapp.chat.errors import StoreError, UsageError
from chatapp.chat.jsonlines import end_json, json_line, start_json, token_json
from chatapp.chat.sampling import SamplingParams
from chatapp.store.formats.export_html import export_html
from chatapp.store.formats.export_markdown import export_markdown
from chatapp.store.formats.own_json import export_json
from chatapp.store.packing import PackingError
from chatapp.store.unicode import well_formed

COLUMNS = (
    "message",
    "index",
    "id",
    "token",
    "bytes",
    "text",
    "logprob",
    "tempered_prob",
    "prob",
    "rank",
    "entropy_bits",
    "p_end",
    "temperature",
    "other_prob",
)


def export_jsonl(conversation: Conversation) -> str:
    """The replies of the current path as JSON lines. Raises PackingError."""
    lines: list[str] = []
    for _, reply in _replies(conversation):
        sampling = reply.sampling[0].sampling if reply.sampling else SamplingParams()
        lines.append(json_line(start_json(reply, sampling)))
        changes = {span.start: span.sampling for span in reply.sampling if span.start > 0}
        lines.extend(
            json_line(token_json(record, changes.get(place)))
            for place, record in enumerate(reply.records)
        )
        lines.append(json_line(end_json(reply)))
    return "".join(f"{line}\n" for line in lines)


def export_csv(conversation: Conversation) -> str:
    """The tokens of the current path's replies as CSV; bytes are hexadecimal. Raises PackingError.

    What is not finite is an empty cell, as it is null in JSON.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for message, reply in _replies(conversation):
        for record in reply.records:
            writer.writerow(
                token_json(record) | {"message": message.id, "bytes": record.bytes.hex()}
            )
    return well_formed(text.getvalue())


def _replies(conversation: Conversation) -> Iterator[tuple[Message, Reply]]:
    for message in conversation.path():
        if message.reply is not None:
            yield message, message.reply


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
