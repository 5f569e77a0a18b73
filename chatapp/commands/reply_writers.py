"""A reply on standard output: as text, or as JSON lines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from chatapp.chat.conversation import Reply
    from chatapp.chat.generation import TokenStep
    from chatapp.chat.jsonlines import JsonObject
    from chatapp.chat.sampling import SamplingParams
    from chatapp.chat.trace import StepTrace


class TextWriter:
    """The reply as text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._wrote_newline = True

    def start(self, _start: Reply) -> None:
        """Nothing is written before the first token."""

    def token(self, step: TokenStep) -> None:
        """Write what became printable with a token."""
        self.text(step.record.text)

    def text(self, text: str) -> None:
        """Write a piece of the reply."""
        from chatapp.chat.text import sanitise

        if text:
            # A pipe gets the exact text; a terminal would obey what is in it.
            self._stream.write(sanitise(text) if self._terminal else text)
            self._stream.flush()
            self._wrote_newline = text.endswith("\n")

    def end(self, _reply: Reply | None = None) -> None:
        """Leave the cursor at the start of a line."""
        if not self._wrote_newline:
            self._stream.write("\n")
            self._stream.flush()
            self._wrote_newline = True


class JsonWriter:
    """The reply as JSON lines, flushed as they come."""

    def __init__(self, stream: TextIO, choice: int | None = None) -> None:
        """`choice` says which of several replies this is; every line then tells it."""
        self._stream = stream
        self._choice = choice
        self._sampling: SamplingParams | None = None

    def start(self, reply: Reply) -> None:
        """Write what is known when the prompt has been read.

        Args:
            reply: still without tokens; its first span has the sampling parameters.
        """
        from chatapp.chat.jsonlines import start_json

        self._sampling = reply.sampling[-1].sampling
        self.line(start_json(reply, self._sampling))

    def token(self, step: TokenStep) -> None:
        """Write one token, with its trace where there is one."""
        from chatapp.chat.jsonlines import token_json

        changed = step.sampling if step.sampling != self._sampling else None
        self._sampling = step.sampling or self._sampling
        line = token_json(step.record, changed)
        if step.trace is not None:
            line["trace"] = trace_json(step.trace)
        self.line(line)

    def end(self, reply: Reply) -> None:
        """Write why and how fast it ended."""
        from chatapp.chat.jsonlines import end_json

        self.line(end_json(reply))

    def line(self, value: JsonObject) -> None:
        """Write one object."""
        from chatapp.chat.jsonlines import json_line

        if self._choice is not None:
            value = {"type": value["type"], "choice": self._choice, **value}
        self._stream.write(json_line(value) + "\n")
        self._stream.flush()


Writer = TextWriter | JsonWriter


def trace_json(trace: StepTrace) -> JsonObject:
    """One step stage by stage; a logit is null once its token is out of play."""
    return {
        "stages": [
            {
                "stage": stage.stage,
                "setting": stage.setting,
                "threshold": _finite(stage.threshold),
                "temperature": stage.temperature,
                "drawn": stage.drawn,
                "alive": stage.alive,
                "tokens": [
                    {
                        "id": token.id,
                        "logit": token.logit,
                        "prob": token.prob,
                        "removed": token.removed,
                    }
                    for token in stage.tokens
                ],
                "other_prob": stage.other_prob,
            }
            for stage in trace.stages
        ],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
