"""From token ids to the text of a reply, and whether the text has reached its end.

One rule for every decoder: text is held back inside an unfinished character or a possible stop
sequence, and comes out when it is clear what it is, or when nothing more will come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chatapp.chat.record import FinishReason
from chatapp.engine.decoding.detokenize import Detokenizer, StopSequences
from chatapp.engine.runtimes.tokenizer import ModelTokenizer


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
