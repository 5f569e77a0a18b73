"""A reply as it grows: from the events of its generation to the value that is kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from chatapp.chat.conversation import Reply
from chatapp.chat.facts import Progress
from chatapp.chat.generation import (
    GenerationEnd,
    GenerationEvent,
    Paused,
    PromptRead,
    TokenStep,
)
from chatapp.chat.record import FinishReason, SamplingSpan, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.thinking import ThinkingWatch

REPLACEMENT = "\ufffd"
"""What is printed for bytes that are no character."""


class GrowingReply:
    """A reply while it streams: appends cheaply, makes the immutable value when asked."""

    def __init__(
        self, start: Reply, sampling: SamplingParams, kept: tuple[TokenRecord, ...] = ()
    ) -> None:
        """Begin a reply.

        `start`: what is known before the first token. `kept`: the start that is taken over from
        another reply.
        """
        self._start = start
        self._kept = len(kept)
        self._records = list(kept)
        self._text = [record.text for record in kept]
        self._watch = ThinkingWatch(start.thinking)
        self._thought = start.thinking
        self._thought_before = start.thinking.seconds if start.thinking else 0.0
        self._read_at = time.monotonic()
        self._spans = [*start.sampling, SamplingSpan(len(kept), sampling)]

    @property
    def text(self) -> str:
        return "".join(self._text)

    def take(self, event: GenerationEvent) -> None:
        match event:
            case PromptRead():
                # The model reads a kept start as the end of its prompt; here it is the reply's.
                prompt_ids = event.prompt_ids[: len(event.prompt_ids) - self._kept]
                self._start = replace(
                    self._start, prompt_ids=prompt_ids, cached_tokens=event.cached_tokens
                )
                self._read_at = time.monotonic()
                self._watch = ThinkingWatch(event.thinking)
                for text in self._text:
                    self._watch.push(text)
                self._thought = self._watch.found(self._thought_before)
            case TokenStep():
                if event.sampling is not None and self._spans[-1].sampling != event.sampling:
                    if self._spans[-1].start == event.record.index:
                        self._spans.pop()  # a server that does not know some of it
                    self._spans.append(SamplingSpan(event.record.index, event.sampling))
                self._records.append(event.record)
                self._text.append(event.record.text)
                if not self._watch.over:
                    self._watch.push(event.record.text)
                    seconds = self._thought_before + time.monotonic() - self._read_at
                    self._thought = self._watch.found(seconds)
            case GenerationEnd():
                self._start = replace(
                    self._start,
                    finish_reason=event.reason,
                    seconds=event.seconds,
                    time_to_first_token=event.time_to_first_token,
                    error=event.message if event.reason is FinishReason.ERROR else "",
                )
            case Progress() | Paused():
                pass

    def fail(self, message: str) -> None:
        """It failed; what came is kept."""
        self._start = replace(self._start, finish_reason=FinishReason.ERROR, error=message)

    @property
    def count(self) -> int:
        return len(self._records)

    def reply(self, since: int = 0) -> Reply:
        """The reply as far as it has come, with its records from number `since` on."""
        records, spans = tuple(self._records[since:]), tuple(self._spans)
        return replace(self._start, records=records, sampling=spans, thinking=self._thought)


def kept_to_continue(reply: Reply, text: str) -> tuple[tuple[TokenRecord, ...], str]:
    """The tokens a reply goes on from: without its end token, or the stop sequence it ended by.

    Args:
        reply: the reply that was cut.
        text: what is shown of it.

    Returns:
        The tokens, and what is shown behind them: the start of a token that the stop sequence cut.
    """
    records = reply.records
    if records and reply.finish_reason is FinishReason.STOP:
        return records[:-1], ""
    if reply.finish_reason is FinishReason.STOP_SEQUENCE:
        return kept_within(records, text)
    if (
        records
        and records[-1].text.endswith(REPLACEMENT)
        and REPLACEMENT.encode() not in (records[-1].bytes)
    ):
        # Half a character was printed as such at the limit; it may be completed now.
        last = replace(records[-1], text=records[-1].text.rstrip(REPLACEMENT))
        return (*records[:-1], last), ""
    return records, ""


def kept_within(
    records: tuple[TokenRecord, ...], text: str, control_ids: Sequence[int] = ()
) -> tuple[tuple[TokenRecord, ...], str]:
    """The most tokens of a reply that a text begins with, and the rest of the text.

    They end between two characters. Tokens of `control_ids` are no part of the text.
    """
    data = text.encode("utf-8", "surrogatepass")
    if records and records[0].bytes.startswith(b" ") and not data.startswith(b" "):
        data = b" " + data  # which no reply of such a model shows at its start
    at = end = count = 0
    for number, record in enumerate(records, 1):
        if record.id not in control_ids:
            if not data.startswith(record.bytes, at):
                break
            at += len(record.bytes)
        if at == len(data) or data[at] & 0xC0 != 0x80:
            count, end = number, at
    return records[:count], data[end:].decode("utf-8", "surrogatepass") if count else text


def spans_before(base: Reply | None, count: int) -> tuple[SamplingSpan, ...]:
    """The parameters the kept tokens of another reply were drawn with."""
    return tuple(span for span in base.sampling if span.start < count) if base else ()
