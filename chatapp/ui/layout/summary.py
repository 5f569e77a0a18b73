"""A reply, or any scored text, in one line of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from chatapp.chat.conversation import Reply
from chatapp.chat.numbers import bits, count, decimal, rate, tokens
from chatapp.chat.record import FinishReason, TokenRecord, perplexity

_ENDED = {
    FinishReason.STOP: "the model ended it",
    FinishReason.STOP_SEQUENCE: "ended by a stop sequence",
    FinishReason.LENGTH: "cut at the maximum length",
    FinishReason.CONTEXT: "cut: the context is full",
    FinishReason.CANCELLED: "stopped",
    FinishReason.ERROR: "failed",
}


def text_summary(records: Sequence[TokenRecord]) -> str:
    """Perplexity, mean entropy, and how many tokens were not the most probable one."""
    if not records:
        return "no tokens"
    entropy = math.fsum(record.entropy_bits for record in records) / len(records)
    others = sum(record.rank > 1 for record in records)
    return (
        f"{tokens(len(records))} · perplexity"
        f" {decimal(perplexity([one.logprob for one in records]))}"
        f" · mean entropy {bits(entropy)} · {count(others)} not the model's first choice"
    )


def reply_summary(reply: Reply) -> str:
    """The same of a reply, with its speed and why it ended."""
    parts = [text_summary(reply.records)]
    if reply.tokens_per_second > 0:
        parts.append(rate(reply.tokens_per_second))
    if reply.finish_reason is not None:
        parts.append(_ENDED[reply.finish_reason])
    if any(record.draw is not None for record in reply.records):
        parts.append(f"seed {reply.seed}")
    return " · ".join(parts)
