"""Looking into a reply and taking hold of it: pause, step, other tokens, find."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType

from chatapp.chat.errors import ChatappError
from chatapp.chat.generation import Paused
from chatapp.chat.inspection import ReplyStep
from chatapp.chat.record import TokenRecord
from chatapp.inspector import Inspector
from chatapp.ui.layout.message import MessageBlock
from chatapp.ui.screens.chat_dialogs import ChatDialogs
from chatapp.ui.screens.find import FindScreen
from chatapp.ui.screens.trace import TraceScreen
from chatapp.ui.widgets import hints
from chatapp.ui.widgets.candidates import MoreWanted
from chatapp.ui.widgets.hints import Hints

MORE_CANDIDATES = 100
"""How many ranks join the list of candidates at a time."""


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
        if self._hold_wanted:
            self.session.pause()
        else:
            self.session.resume()

    def action_step(self) -> None:
        """Take one token of the reply and hold again."""
        if not self._under_way():
            return
        if self._hold_wanted:
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

    def take_token(self, token_id: int) -> None:
        """Take a token: the next one of a reply that is held, else in place of the one pointed
        at."""
        if self._chooses_next:
            self.session.step(token_id)
            return
        pointed = self._pointed_reply()
        if pointed is None:
            return
        block, index = pointed
        self.run_worker(self._branch(block.message.id, index, token_id), group="branch")

    async def _branch(self, message_id: str, index: int, token_id: int) -> None:
        if self.held is not None:
            await self.turns.stop()  # what came is kept; the branch begins in what is on the screen
        self.branch(message_id, index, token_id)

    @property
    def _chooses_next(self) -> bool:
        """Whether the panel shows what could come next."""
        return self.held is not None and self.transcript.cursor is None

    def _pointed_reply(self) -> tuple[MessageBlock, int] | None:
        """The reply and the token pointed at; says so where there is none."""
        pointed = self.transcript.pointed
        if pointed is None or pointed[0].message.reply is None:
            self.say("point at a token of a reply first", "warning")
            return None
        return pointed

    def _step(self) -> ReplyStep | None:
        """The step pointed at as the engine is asked about it; says so where there is none."""
        pointed = self._pointed_reply()
        if pointed is None:
            return None
        try:
            return self.inspector.step(pointed[0].message.id, pointed[1])
        except ChatappError as error:
            self.say(str(error), "warning")
            return None

    # All of the vocabulary

    @on(MoreWanted)
    def list_more(self, event: MoreWanted) -> None:
        """List the next ranks of the vocabulary below the candidates."""
        event.stop()
        self.run_worker(self._list_more(event), group="more", exclusive=True)

    async def _list_more(self, event: MoreWanted) -> None:
        pointed = self.transcript.pointed
        if pointed is None or pointed[0].message.reply is None:
            return  # a scored message of the person's has the candidates that were recorded
        if self._chooses_next:
            return  # the logits of a step are kept once its token is taken
        step = self._step()
        if step is None or step.index != event.index:
            self.panel.candidates.keep_asking()
            return
        try:
            page = await self.inspector.candidates(step, event.start, MORE_CANDIDATES)
        except ChatappError as error:
            self.panel.candidates.keep_asking()
            self.say(str(error), "warning")
        else:
            self.panel.candidates.add(page)

    def action_find_token(self) -> None:
        """Find a token of the vocabulary at this step."""
        self.find_token("")

    def find_token(self, text: str) -> None:
        """Find a token at this step, beginning with some text to look for."""
        step = None if self._chooses_next else self._step()
        if step is None and not self._chooses_next:
            return

        def take(token_id: int | None) -> None:
            if token_id is not None:
                self.take_token(token_id)

        waiting = self.held.next if self.held is not None else None
        screen = FindScreen(self.session.engine, step, waiting, text)
        self.app.push_screen(screen, take)

    # The trace

    def action_trace(self) -> None:
        """Show what each stage did at the token pointed at."""
        if self._chooses_next:
            self.say("nothing is taken yet; F7 takes a token, then F3 tells of it", "warning")
            return
        step = self._step()
        if step is not None:
            self.run_worker(self._trace(step), group="trace", exclusive=True)

    async def _trace(self, step: ReplyStep) -> None:
        pointed = self.transcript.pointed
        if pointed is None:
            return
        block, index = pointed
        record = block.records[index]
        listed = [one.id for one in self.panel.candidates.listed]
        ids = listed if record.id in listed else [*listed, record.id]
        try:
            traced = await self.inspector.trace(step, ids)
        except ChatappError as error:
            self.say(str(error), "warning")
            return
        self.app.push_screen(TraceScreen(traced, record))

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
