"""Looking into a reply and taking hold of it: pause, step, other tokens, find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType

from chatapp.chat.errors import ChatappError
from chatapp.chat.generation import Paused
from chatapp.chat.inspection import ReplyStep
from chatapp.chat.record import TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.session.inspector import Inspector
from chatapp.ui.screens.chat_dialogs import ChatDialogs
from chatapp.ui.screens.find import FindScreen
from chatapp.ui.screens.trace import TraceScreen
from chatapp.ui.widgets import hints
from chatapp.ui.widgets.candidates import MORE_CANDIDATES, MoreWanted
from chatapp.ui.widgets.hints import Hints


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """A place in a reply at which there is a token to look into, or to take another."""

    message_id: str
    index: int
    """Which token, from 0; in a reply that is held, the next one is the one behind the last."""
    sampling: SamplingParams | None
    """The settings it is shown with; None for those that its token was drawn with."""


class ChatInspect(ChatDialogs):
    """What a person does with single tokens."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f6", "pause", "pause or go on", id="reply.pause", priority=True),
        Binding("f7", "step", "take one token", id="reply.step", priority=True),
        Binding("f3", "trace", "trace: what each stage did", id="token.trace", priority=True),
        Binding("f8", "find_token", "find any token", id="token.find", priority=True),
    ]

    held: Paused | None = None
    """What could come next, while the reply is held."""
    _hold_wanted = False
    _leaving = False
    """Whether the step that is shown as held is being left, by F6, F7 or a choice."""
    _told_held = False

    @property
    def inspector(self) -> Inspector:
        """Answers questions about replies."""
        return Inspector(self.session)

    # Pause and step

    def action_pause(self) -> None:
        """Hold the reply before its next token, or let it go on."""
        if not self._under_way():
            return
        self._hold_wanted = not self._hold_wanted
        self._leaving = not self._hold_wanted
        if self._hold_wanted:
            self.session.pause()
        else:
            self.session.resume()

    def action_step(self) -> None:
        """Take one token of the reply and hold again."""
        if not self._under_way():
            return
        if self._hold_wanted:
            self._leaving = True
            self.session.step()
        else:
            self._hold_wanted = True
            self.session.pause()

    def reply_paused(self, paused: Paused) -> None:
        """Show what could come next."""
        if not self._told_held:
            self._told_held = True
            self.say("held before the next token; F7 takes one, F6 goes on")
            self.query_one(Hints).hints = hints.HELD
        self.held = paused
        self._leaving = not self._hold_wanted  # F6 may have come while this was on its way
        self.show_token()
        self.show_status()

    def tokens_came(self, records: list[TokenRecord]) -> None:
        """Show some tokens; what could have come next is past."""
        if self._hold_wanted:
            self.held = None  # the next `Paused` follows
        else:
            self._let_go()
        super().tokens_came(records)

    def turn_ended(self) -> None:
        """Nothing is held any more."""
        self._let_go()
        super().turn_ended()

    def _let_go(self) -> None:
        self._hold_wanted = False
        if self._told_held:
            self._told_held = False
            self.held = None
            self.show_hints()
            self.show_token()

    def _under_way(self) -> bool:
        if not self.session.replying:
            self.say("no reply is under way", "warning")
        return self.session.replying

    # The token pointed at

    def show_token(self) -> None:
        """Show the token pointed at, or what could come next in a reply that is held."""
        if self.held is not None and self.transcript.cursor is None:
            block = self.transcript.current
            self.panel.show_next(block.records if block is not None else (), self.held.next)
            return
        super().show_token()

    @property
    def place(self) -> TokenPlace | None:
        """Where the person points: at a token of a reply, or at the next one of a held reply."""
        block = self.transcript.current
        if self.held is not None and self.transcript.cursor is None and block is not None:
            return TokenPlace(block.message.id, self.held.next.index, self.held.sampling)
        pointed = self.transcript.pointed
        if pointed is None or pointed[0].message.reply is None:
            return None
        return TokenPlace(pointed[0].message.id, pointed[1], self.tried)

    @property
    def tried(self) -> SamplingParams | None:
        """Other settings that the token pointed at is shown with; None where they are its own."""
        return None

    def take_candidate_at(self, index: int, token_id: int) -> None:
        """Take a candidate of the token that the panel shows."""
        if (place := self._place()) is not None:
            self.take_tokens(replace(place, index=index), (token_id,))

    def take_tokens(self, place: TokenPlace, token_ids: Sequence[int]) -> None:
        """Take tokens at a place: they come next in a reply that is held there, else it branches.

        Args:
            place: where.
            token_ids: one or more, taken in order.
        """
        block = self.transcript.block_of(place.message_id)
        if self.held is None or block is None or not block.live:
            self.branch(place.message_id, place.index, token_ids)
        elif place.index != self.held.next.index:
            self.run_worker(self._branch(place, token_ids), group="branch")
        elif self._leaving:  # the choice would come a token too late
            self.say("this step is being left; choose when the next one is shown", "warning")
        else:
            self._leaving = True
            self.session.step(token_ids)

    async def _branch(self, place: TokenPlace, token_ids: Sequence[int]) -> None:
        await self.turns.stop()  # what came is kept; the branch begins in what is on the screen
        self.branch(place.message_id, place.index, token_ids)

    def _place(self) -> TokenPlace | None:
        """Where the person points; says so where it is no token of a reply."""
        if (place := self.place) is None:
            self.say("point at a token of a reply first", "warning")
        return place

    def step_at(self, place: TokenPlace) -> ReplyStep:
        """A place as the engine is asked about it. Raises EngineError."""
        return self.inspector.step(place.message_id, place.index, place.sampling)

    # All of the vocabulary

    @on(MoreWanted)
    def list_more(self, event: MoreWanted) -> None:
        """List the next ranks of the vocabulary below the candidates."""
        event.stop()
        self.run_worker(self._list_more(event), group="more", exclusive=True)

    async def _list_more(self, event: MoreWanted) -> None:
        place = self.place
        if place is None:
            return  # a scored message of the person's has the candidates that were recorded
        if place.index != event.record.index:
            self.panel.candidates.keep_asking()
            return
        try:
            page = await self.inspector.candidates(
                self.step_at(place), event.start, MORE_CANDIDATES
            )
        except ChatappError as error:
            self.panel.candidates.keep_asking()
            self.say(str(error), "warning")
        else:
            self.panel.candidates.add(event.record, page)

    def action_find_token(self) -> None:
        """Find a token of the vocabulary at this step."""
        self.find_token("")

    def find_token(self, text: str) -> None:
        """Find a token at this step, beginning with some text to look for."""
        place = self._place()
        if place is None:
            return

        def take(token_ids: Sequence[int] | None) -> None:
            if token_ids is not None:
                self.take_tokens(place, token_ids)

        try:
            screen = FindScreen(self.inspector, self.step_at(place), text)
        except ChatappError as error:
            self.say(str(error), "warning")
        else:
            self.app.push_screen(screen, take)

    # The trace

    def action_trace(self) -> None:
        """Show what each stage did at the token pointed at."""
        if (place := self._place()) is not None:
            self.run_worker(self._trace(place), group="trace", exclusive=True)

    async def _trace(self, place: TokenPlace) -> None:
        block = self.transcript.block_of(place.message_id)
        taken = block is not None and place.index < len(block.records)
        record = block.records[place.index] if block is not None and taken else None
        ids = [one.id for one in self.panel.candidates.listed]
        if record is not None and record.id not in ids:
            ids.append(record.id)
        try:
            traced = await self.inspector.trace(self.step_at(place), ids)
        except ChatappError as error:
            self.say(str(error), "warning")
            return
        self.app.push_screen(TraceScreen(traced, record, what_if=self.tried is not None))

    def show_hints(self) -> None:
        """Show the keys of what is focused."""
        focused = self.focused
        if self.held is not None:
            shown = hints.HELD
        elif focused is self.prompt:
            shown = hints.PROMPT
        elif focused is self.transcript:
            shown = hints.TRANSCRIPT
        else:
            shown = hints.PANEL
        self.query_one(Hints).hints = shown
