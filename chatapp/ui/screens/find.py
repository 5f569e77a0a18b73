"""Finding a token: its rank and its probabilities, what cut it, what it would have taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from chatapp.chat.errors import ChatappError
from chatapp.chat.inspection import FoundToken, ReplyStep
from chatapp.chat.prompt import TokenPiece
from chatapp.chat.record import Candidate, TokenRecord
from chatapp.chat.text import sanitise, visible_token
from chatapp.protocols import Engine
from chatapp.ui.drawing import MUTED
from chatapp.ui.numbers import count, decimal, percent
from chatapp.ui.widgets.cells import fit_token
from chatapp.ui.widgets.removal import cut_by, shortfall

_LIMIT = 50
_TOKEN_WIDTH = 16


class FindScreen(ModalScreen[int | None]):
    """Find a token by text or id; gives back the id of the one to take, or None."""

    HELP = (
        "Write a text or an id. Tokens that are just this text stand first, then those that begin"
        " with it, then those that hold it. A space at the start counts. Enter takes the token."
    )

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "leave", id="find.leave"),
        Binding("up", "move(-1)", "up", show=False, id="find.up", priority=True),
        Binding("down", "move(1)", "down", show=False, id="find.down", priority=True),
        Binding("enter", "choose", "take this token", show=False, id="find.choose", priority=True),
    ]

    def __init__(
        self, engine: Engine, step: ReplyStep | None, waiting: TokenRecord | None, text: str = ""
    ) -> None:
        """Look among the tokens of a step.

        Args:
            engine: who is asked.
            step: which step; None for one at which nothing is taken yet.
            waiting: that step, where nothing is taken yet; else None.
            text: what is looked for at first.
        """
        super().__init__()
        self._engine = engine
        self._step = step
        self._waiting = waiting if step is None else None
        self._text = text
        self._ids: list[int] = []

    def compose(self) -> ComposeResult:
        """What is typed, what is found, the keys."""
        with Vertical(classes="dialog"):
            yield Static(
                Content.styled("Find a token", "bold"), markup=False, classes="dialog-title"
            )
            yield Input(self._text, placeholder="a text, or an id", id="find-text", compact=True)
            yield OptionList(id="find-list", compact=True, markup=False)
            yield Static(Content.styled("enter takes it · esc leave", MUTED), markup=False)

    def on_mount(self) -> None:
        """Type at once."""
        self.query_one(OptionList).can_focus = False
        self.query_one(Input).focus()
        if not self._text:
            self._show([], "write a text or an id; a space at its start counts")

    @on(Input.Changed)
    def look(self, event: Input.Changed) -> None:
        """Look for what is typed."""
        event.stop()
        if not event.value:
            self._show([], "write a text or an id; a space at its start counts")
            return
        self.run_worker(self._look(event.value), group="find", exclusive=True)

    async def _look(self, text: str) -> None:
        try:
            if self._step is None:
                self._show_pieces(await self._engine.tokenize(text))
                return
            found = list(await self._engine.find_tokens(self._step, text, _LIMIT))
            if re.fullmatch(r"[0-9]+", text):
                found = [*await self._by_id(int(text)), *found]
        except ChatappError as error:
            self._show([], str(error))
            return
        self._show([(one.candidate.id, _found(one)) for one in found], "no token has this text")

    async def _by_id(self, token_id: int) -> Sequence[FoundToken]:
        assert self._step is not None  # `_look` is the only caller
        try:
            return await self._engine.find_tokens(self._step, token_id)
        except ChatappError:
            return ()  # no such id; the digits are looked for as text

    def _show_pieces(self, pieces: Sequence[TokenPiece]) -> None:
        """While a reply is held only recorded candidates have numbers; any token can be taken."""
        known = {one.id: one for one in self._waiting.candidates} if self._waiting else {}
        rows = []
        for place, piece in enumerate(pieces[:1]):
            one = known.get(piece.id)
            words = _numbers(one) if one else Content.styled("not among the candidates", MUTED)
            token = Content.styled(fit_token(piece.bytes, _TOKEN_WIDTH), "bold")
            row = token + Content.styled(f" id {piece.id}  ", MUTED) + words
            if len(pieces) > 1 and not place:
                rest = visible_token(b"".join(other.bytes for other in pieces[1:]))
                row += Content.styled(f"\n  the text goes on with {rest}", MUTED)
            rows.append((piece.id, row))
        self._show(rows, "no token has this text")

    def _show(self, rows: Sequence[tuple[int, Content]], empty: str) -> None:
        self._ids = [token_id for token_id, _ in rows]
        options = self.query_one(OptionList)
        options.clear_options()
        if not rows:
            options.add_option(Option(Content.styled(sanitise(empty), MUTED), disabled=True))
            return
        options.add_options([Option(content) for _, content in rows])
        options.highlighted = 0

    @on(OptionList.OptionSelected)
    def take(self, event: OptionList.OptionSelected) -> None:
        """A click chooses."""
        event.stop()
        if event.option_index < len(self._ids):
            self.dismiss(self._ids[event.option_index])

    def action_move(self, steps: int) -> None:
        """Move in the list, while the text stays where it is."""
        options = self.query_one(OptionList)
        if self._ids:
            here = options.highlighted or 0
            options.highlighted = min(max(here + steps, 0), len(self._ids) - 1)

    def action_choose(self) -> None:
        """Give back the token that is highlighted."""
        highlighted = self.query_one(OptionList).highlighted
        if highlighted is not None and highlighted < len(self._ids):
            self.dismiss(self._ids[highlighted])

    def action_leave(self) -> None:
        """Take none."""
        self.dismiss(None)


def _numbers(one: Candidate) -> Content:
    return Content(
        f"rank {count(one.rank)}  model {percent(one.model_prob)}"
        f"  T {percent(one.tempered_prob)}  final {percent(one.prob)}"
    )


def _found(found: FoundToken) -> Content:
    """A token in two lines: its numbers, and what it would have taken to be chosen."""
    one = found.candidate
    token = Content.styled(fit_token(one.bytes, _TOKEN_WIDTH), "bold")
    first = token + Content.styled(f" id {one.id:<6} ", MUTED) + _numbers(one)
    return first + Content.styled(f"\n  {what_it_takes(found)}", MUTED)


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
