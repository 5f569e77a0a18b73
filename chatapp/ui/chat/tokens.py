"""What is done with single tokens: look at any of the vocabulary, take another, trace, find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from chatapp.chat.errors import ChatappError
from chatapp.chat.inspection import ReplyStep
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.served import SERVERS
from chatapp.ui.actions import CommandError, action
from chatapp.ui.chat.base import ChatBase
from chatapp.ui.chat.hold import Hold
from chatapp.ui.chat.messages import Messages
from chatapp.ui.chat.what_if import WhatIf
from chatapp.ui.dialogs.find import FindScreen
from chatapp.ui.dialogs.trace import TraceScreen
from chatapp.ui.widgets.candidates import MORE_CANDIDATES, MoreWanted

MOST_DIGITS = 9
"""A longer number is no rank: no vocabulary has as many tokens."""


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """A place in a reply at which there is a token to look into, or to take another."""

    message_id: str
    index: int
    """Which token, from 0; in a reply that is held, the next one is the one behind the last."""
    sampling: SamplingParams | None
    """The settings it is shown with; None for those that its token was drawn with."""


class Tokens:
    """Acts on the token pointed at."""

    def __init__(self, chat: ChatBase, messages: Messages, hold: Hold, what_if: WhatIf) -> None:
        self._chat = chat
        self._messages = messages
        self._hold = hold
        self._what_if = what_if

    @property
    def place(self) -> TokenPlace | None:
        """Where the user points: at a token of a reply, or at the next one of a held reply."""
        transcript, held = self._chat.transcript, self._hold.paused
        block = transcript.current
        if held is not None and transcript.cursor is None and block is not None:
            return TokenPlace(block.message.id, held.next.index, held.sampling)
        pointed = transcript.pointed
        if pointed is None or pointed[0].message.reply is None:
            return None
        return TokenPlace(pointed[0].message.id, pointed[1], self._what_if.tried)

    def _place(self) -> TokenPlace | None:
        """Where the user points; says so where it is no token of a reply."""
        if (place := self.place) is None:
            self._chat.say("point at a token of a reply first", "warning")
        return place

    def step_at(self, place: TokenPlace) -> ReplyStep:
        """A place as the engine is asked about it. Raises EngineError."""
        return self._chat.inspector.step(place.message_id, place.index, place.sampling)

    # Other tokens

    def take_candidate(self, index: int, token_id: int) -> None:
        """Take a candidate of the token that the panel shows."""
        if (place := self._place()) is not None:
            self.take(replace(place, index=index), (token_id,))

    def take(self, place: TokenPlace, token_ids: Sequence[int]) -> None:
        """Take tokens, in order: they come next in a reply that is held there, else it branches."""
        block, held = self._chat.transcript.block_of(place.message_id), self._hold.paused
        if held is None or block is None or not block.live:
            self._messages.branch(place.message_id, place.index, token_ids)
        elif place.index != held.next.index:
            self._chat.run_worker(self._branch(place, token_ids), group="branch")
        else:
            self._hold.take(token_ids)

    async def _branch(self, place: TokenPlace, token_ids: Sequence[int]) -> None:
        # What came is kept; the branch begins in what is on the screen.
        await self._chat.turns.stop()
        self._messages.branch(place.message_id, place.index, token_ids)

    @action("branch", usage="[RANK or TEXT]")
    async def branch(self, argument: str = "") -> None:
        """Take another token at the cursor, or any text (" text" keeps a space), and go on."""
        place = self.place
        if not argument:
            self._choose_candidate()
            return
        if place is None:
            raise CommandError("there is no token to branch at; point at one in a reply first")
        if argument.isdecimal() and len(argument) <= MOST_DIGITS:
            self.take(place, (await self._token_of_rank(place, int(argument)),))
        else:
            self.take(place, await self._tokens_of_text(place, argument))

    def _choose_candidate(self) -> None:
        transcript = self._chat.transcript
        pointed = transcript.pointed
        if pointed is None or pointed[0].message.reply is None:
            raise CommandError("there is no token to branch at; point at one in a reply first")
        self._chat.unfold_panel()
        if transcript.cursor is None:
            block, index = pointed
            transcript.point(block.message.id, index)
        self._chat.panel.candidates.focus()
        self._chat.say("↑↓ choose a candidate, Enter takes it: the reply goes on from there")

    async def _token_of_rank(self, place: TokenPlace, rank: int) -> int:
        step = self.step_at(place)
        facts = self._chat.session.facts
        if facts is not None and facts.runtime in SERVERS:  # which tells no more than is listed
            listed = [one for one in self._chat.panel.candidates.listed if one.rank]
            if 1 <= rank <= len(listed):
                return listed[rank - 1].id
            raise CommandError(f"{facts.runtime} tells {len(listed)} candidates of this token")
        most = facts.vocab_size if facts is not None else 0
        if not 1 <= rank <= most:
            raise CommandError(
                f'/branch takes a rank from 1 to {most}, or a text; "{rank}" is a text'
            )
        page = await self._chat.inspector.candidates(step, rank - 1, 1)
        return page.candidates[0].id

    async def _tokens_of_text(self, place: TokenPlace, text: str) -> tuple[int, ...]:
        """A candidate that is listed, by its text; any other text in as many tokens as it has."""
        if len(text) > 2 and text[0] == text[-1] == '"':
            text = text[1:-1]  # the command line keeps no space at a text's start
        else:
            for candidate in self._chat.panel.candidates.listed:
                if text == candidate.token.strip():
                    return (candidate.id,)
        spelt = await self._chat.inspector.spell(self.step_at(place), text)
        return tuple(token.id for token in spelt.tokens)

    # All of the vocabulary

    def list_more(self, event: MoreWanted) -> None:
        """List the next ranks of the vocabulary below the candidates."""
        self._chat.work(lambda: self._list_more(event), "more")

    async def _list_more(self, event: MoreWanted) -> None:
        place, candidates = self.place, self._chat.panel.candidates
        if place is None:
            return  # a scored message of the user's has the candidates that were recorded
        if place.index != event.record.index:
            candidates.keep_asking()
            return
        try:
            page = await self._chat.inspector.candidates(
                self.step_at(place), event.start, MORE_CANDIDATES
            )
        except ChatappError:
            candidates.keep_asking()
            raise
        candidates.add(event.record, page)

    @action("find", usage="[TEXT]", keys="f8", key_id="token.find")
    def find(self, text: str = "") -> None:
        """Find any token at the cursor, by text or id."""
        place = self._place()
        if place is None:
            return

        def take(token_ids: Sequence[int] | None) -> None:
            if token_ids is not None:
                self.take(place, token_ids)

        screen = FindScreen(self._chat.inspector, self.step_at(place), text)
        self._chat.app.push_screen(screen, take)

    @action("trace", keys="f3", key_id="token.trace")
    def trace(self, _: str = "") -> None:
        """What each stage of the sampler did at the cursor."""
        if (place := self._place()) is not None:
            self._chat.work(lambda: self._trace(place), "trace")

    async def _trace(self, place: TokenPlace) -> None:
        block = self._chat.transcript.block_of(place.message_id)
        taken = block is not None and place.index < len(block.records)
        record = block.records[place.index] if block is not None and taken else None
        ids = [one.id for one in self._chat.panel.candidates.listed]
        if record is not None and record.id not in ids:
            ids.append(record.id)
        traced = await self._chat.inspector.trace(self.step_at(place), ids)
        what_if = self._what_if.tried is not None
        self._chat.app.push_screen(TraceScreen(traced, record, what_if=what_if))
