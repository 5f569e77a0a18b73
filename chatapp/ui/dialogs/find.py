"""Finding a token, or any text in tokens: rank and probabilities, what cut it, what it takes.

A text that is no token of its own is offered besides, as the tokens that spell it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from textual.content import Content

from chatapp.chat.errors import ChatappError
from chatapp.chat.inspection import FoundToken, ReplyStep, SpeltText
from chatapp.chat.numbers import count, decimal, percent
from chatapp.chat.record import Candidate
from chatapp.chat.text import visible_token
from chatapp.explain.cells import fit_token
from chatapp.explain.removal import cut_by, shortfall
from chatapp.session.inspector import Inspector
from chatapp.ui.dialogs.picker import Choice, PickerScreen
from chatapp.ui.drawing import MUTED

_TITLE = "Find a token, or write any text to take"
_EMPTY = "write a text or an id; a space at its start counts"
_LIMIT = 50
_TOKEN_WIDTH = 16
_SPELT_SHOWN = 20
"""How many tokens of a text are shown."""
_SEAMS = ("on $primary 30%", "on $secondary 30%")
"""Grounds of neighbouring tokens; a blank parts them as well, since a token's own is drawn ␣."""


class FindScreen(PickerScreen[tuple[int, ...]]):
    """Find a token by text or id; gives back the ids to take in order, or None."""

    HELP = (
        "Write a text or an id. Tokens that are just this text stand first, then those that begin"
        " with it, then those that hold it. A space at the start counts. A text of several tokens"
        " stands as one row, with its seams: all of them are taken. Enter takes what is chosen."
    )

    def __init__(self, inspector: Inspector, step: ReplyStep, text: str = "") -> None:
        """Look among the tokens of a step; `text` is looked for at first."""
        super().__init__(
            _TITLE, (), empty=_EMPTY, text=text, placeholder="a text, or an id", chooses="takes it"
        )
        self._inspector = inspector
        self._step = step

    def narrow(self, text: str) -> None:
        self.work(partial(self._look, text), "find", exclusive=True)

    async def _look(self, text: str) -> None:
        if not text:
            self.fill(())
            return
        by_id: Sequence[FoundToken] = ()
        spelt: SpeltText | None = None
        empty = "no token has this text"
        try:
            if re.fullmatch(r"[0-9]{1,9}", text):  # no vocabulary has as many
                with suppress(ChatappError):  # no such id; the digits are looked for as text
                    by_id = await self._inspector.find_tokens(self._step, int(text))
            found = await self._inspector.find_tokens(self._step, text, _LIMIT)
        except ChatappError as error:
            self.fill((), str(error))
            return
        try:
            spelt = await self._inspector.spell(self._step, text)
        except ChatappError as error:
            empty = str(error)  # tokens can be found by a text that cannot be written
        rows = [_token_row(one) for one in by_id]
        if spelt is not None and len(spelt.tokens) > 1:
            rows.append(_text_row(spelt))
        self.fill((*rows, *map(_token_row, found)), empty, stay=False)


def _numbers(one: Candidate) -> Content:
    return Content(
        f"rank {count(one.rank)}  model {percent(one.model_prob)}"
        f"  T {percent(one.tempered_prob)}  final {percent(one.prob)}"
    )


def _token_row(found: FoundToken) -> Choice[tuple[int, ...]]:
    """A token in two lines: its numbers, and what it would have taken to be chosen."""
    one = found.candidate
    token = Content.styled(fit_token(one.bytes, _TOKEN_WIDTH), "bold")
    first = token + Content.styled(f" id {one.id:<6} ", MUTED) + _numbers(one)
    return Choice((one.id,), first + Content.styled(f"\n  {what_it_takes(found)}", MUTED))


def _text_row(spelt: SpeltText) -> Choice[tuple[int, ...]]:
    """A text in its tokens: their seams, their ids, and the numbers of the first one."""
    shown = spelt.tokens[:_SPELT_SHOWN]
    tokens = Content(" ").join(
        Content.styled(visible_token(token.bytes), f"bold {_SEAMS[place % 2]}")
        for place, token in enumerate(shown)
    )
    left = len(spelt.tokens) - len(shown)
    more = f" … {count(left)} more" if left else ""
    ids = " ".join(str(token.id) for token in shown)
    content = (
        tokens
        + Content.styled(f"{more}  all {count(len(spelt.tokens))} tokens, in order", MUTED)
        + Content.styled(f"\n  ids {ids}{more}", MUTED)
        + Content("\n  the first: ")
        + _numbers(spelt.first.candidate)
        + Content.styled(f"\n  {what_it_takes(spelt.first)}", MUTED)
    )
    return Choice(tuple(token.id for token in spelt.tokens), content)


def what_it_takes(found: FoundToken) -> str:
    """In words: which draws choose a token, or what keeps it from being chosen."""
    if found.draw_from is not None and found.draw_to is not None:
        chance = f"chosen by a draw from {found.draw_from:.4f} to {found.draw_to:.4f}"
    elif removal := found.candidate.removed_by:
        chance = f"{cut_by(removal)}: {shortfall(removal)}"
    else:
        chance = "the model gives it no chance"
    match found.bias_to_lead:
        case None:
            return f"{chance}; no bias helps"
        case bias if bias <= 0:
            return f"{chance}; it leads"
        case bias:
            return f"{chance}; leads with a bias of +{decimal(bias)}"
