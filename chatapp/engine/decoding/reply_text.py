"""From token ids to the text of a reply, and whether the text has reached its end.

One rule for every decoder: text is held back inside an unfinished character or a possible stop
sequence, and comes out when it is clear what it is, or when nothing more will come.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chatapp.chat.record import FinishReason
from chatapp.engine.runtimes.tokenizer import LeadingSpace, ModelTokenizer


class Detokenizer:
    """Turns one reply's ids into text, token by token.

    The joined text is that of transformers' `decode(ids, skip_special_tokens=True)`, but that
    bytes which are no UTF-8 become U+FFFD as Python replaces them. Special tokens have no text;
    added tokens that aren't special (<think>) are text, as they are there.
    """

    def __init__(self, tokenizer: ModelTokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._leading = tokenizer.leading_space

    def push(self, token_id: int) -> str:
        """What becomes printable with a token: nothing inside an unfinished character."""
        if token_id in self._tokenizer.special_ids:
            return ""
        data = self._tokenizer.token_bytes(token_id)
        if self._leading is not LeadingSpace.KEEP and data:
            data = self._without_leading_space(data)
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that was never finished."""
        return self._decoder.decode(b"", final=True)

    def _without_leading_space(self, data: bytes) -> bytes:
        whole_token = self._leading is LeadingSpace.DROP_OF_FIRST_TOKEN
        self._leading = LeadingSpace.KEEP
        return data.replace(b" ", b"") if whole_token else data.removeprefix(b" ")


class StopSequences:
    """Cuts a streaming text before the first stop sequence that it reaches."""

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(dict.fromkeys(stop for stop in stops if stop))
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Add text. Returns what can be printed, and whether a stop sequence was reached.

        After one was reached what stood behind it is dropped, and watching begins anew.
        """
        text = self._held + text
        found = [(at + len(s), at) for s in self._stops if (at := text.find(s)) >= 0]
        if found:
            self._held = ""
            _, start = min(found)  # the one that is complete first, however the text was cut
            return text[:start], True
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        """What was held back for a stop sequence that never came."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text are the start of a stop sequence."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


@dataclass(frozen=True, slots=True)
class Printed:
    """What one token did to the text."""

    text: str
    """What became printable with it."""
    ending: FinishReason | None
    """Why the reply ends here, if it does."""


class ReplyText:
    """The text of one reply as its tokens come."""

    def __init__(
        self,
        tokenizer: ModelTokenizer,
        end_ids: Sequence[int],
        stop: Sequence[str] = (),
        reply_ids: Sequence[int] = (),
        printed: str | None = None,
    ) -> None:
        """Begin a reply, or go on after `reply_ids` where it was cut, even inside a character.

        `printed` is what of them has been printed already; None is all that could be. The rest,
        held back for a stop sequence when the reply was stopped, comes out with the next token.
        """
        self._detokenizer = Detokenizer(tokenizer)
        self._end_ids = frozenset(end_ids)
        self._stops = StopSequences(tuple(stop))
        text = "".join(self._detokenizer.push(token_id) for token_id in reply_ids)
        known = printed is not None and text.startswith(printed)
        self._waiting, _ = self._stops.push(text[len(printed or "") :] if known else "")

    def push(self, token_id: int, last: FinishReason | None = None) -> Printed:
        """Take one token. `last`: why it is the last in any case, if it is."""
        text, self._waiting = self._waiting, ""
        ending = last
        if token_id in self._end_ids:
            ending = FinishReason.STOP
        else:
            fresh, matched = self._stops.push(self._detokenizer.push(token_id))
            text += fresh
            if matched:
                return Printed(text, FinishReason.STOP_SEQUENCE)
        return Printed(text + self.flush() if ending is not None else text, ending)

    def flush(self) -> str:
        """What was held back, when nothing more will come."""
        rest, _ = self._stops.push(self._detokenizer.flush())
        return rest + self._stops.flush()
