"""Which recorded ids are read: those that say what their reply shows.

The ids of a reply come out of a file: a database, an import. A forged one could show harmless words
and let the model read others, a system turn among them. So ids are believed when this engine wrote
them itself, or when their text is the reply's and no special token, which has no text, hides among
them; else the reply is read as the text that the user sees.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from chatapp.chat.prompt import Prompt, Turn
from chatapp.engine.decoding.reply_text import Detokenizer
from chatapp.engine.runtimes.tokenizer import ModelTokenizer

NOT_BELIEVED = (
    "the tokens that are recorded with a reply don't say what it shows; its text was read instead"
)
_KEPT = 4096
"""How many verdicts and written replies are remembered."""


class Belief:
    """What one loaded model wrote, and which ids it may read back."""

    def __init__(self, tokenizer: ModelTokenizer) -> None:
        self._tokenizer = tokenizer
        self._written: list[tuple[int, ...]] = []
        self._known: dict[Turn, bool] = {}

    def add(self, ids: Iterable[int]) -> None:
        """The model wrote these, from the start of a reply on."""
        self._written = [*self._written[1 - _KEPT :], tuple(ids)]

    def checked(self, prompt: Prompt) -> tuple[Prompt, str]:
        """A prompt without the ids that aren't believed, and words for the user about them."""
        turns = list(prompt.turns)
        for place, turn in enumerate(turns):
            is_open = prompt.continue_reply and place == len(turns) - 1
            if turn.ids is not None and not self._believes(turn, is_open):
                turns[place] = replace(turn, ids=None)
        if tuple(turns) == prompt.turns:
            return prompt, ""
        return replace(prompt, turns=tuple(turns)), NOT_BELIEVED

    def _believes(self, turn: Turn, is_open: bool) -> bool:
        ids = turn.ids or ()
        if any(written[: len(ids)] == ids for written in self._written):
            return True
        if is_open:  # its last token may have been chosen by hand
            *start, last = ids
            if any(written[: len(start)] == tuple(start) for written in self._written):
                return 0 <= last < self._tokenizer.vocab_size
        if (known := self._known.get(turn)) is None:
            known = self._says(turn.text, ids)
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[turn] = known
        return known

    def _says(self, text: str, ids: tuple[int, ...]) -> bool:
        tokenizer = self._tokenizer
        if any(not 0 <= one < tokenizer.vocab_size or one in tokenizer.special_ids for one in ids):
            return False
        detokenizer = Detokenizer(tokenizer)
        said = "".join(map(detokenizer.push, ids))
        # A reply that was stopped inside a character may show it or not.
        return text in (said, said + detokenizer.flush())
