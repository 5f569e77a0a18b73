"""Token records as JSON lines and as CSV, for scripts and notebooks.

JSON lines have the form of `chatapp ask --json`: for each reply of the current path a start, one
object a token, an end. CSV has one row a token, with the message it belongs to and without its
candidates; `token` and `text` are exact, so a program that treats cells as formulas should be told
to read them as text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from chatapp.chat.conversation import Conversation, Message, Reply
from chatapp.chat.jsonlines import end_json, json_line, start_json, token_json
from chatapp.chat.sampling import SamplingParams
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
        start = start_json(reply, sampling)
        lines.append(json_line(start))
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
            row = token_json(record) | {"message": message.id, "bytes": record.bytes.hex()}
            writer.writerow(row)
    return well_formed(text.getvalue())


def _replies(conversation: Conversation) -> Iterator[tuple[Message, Reply]]:
    for message in conversation.path():
        if message.reply is not None:
            yield message, message.reply
