"""The chat: header, transcript, panels, prompt. It shows what its features tell it, and hands them
what the user does; what any of it means is theirs to know."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message as Notice
from textual.widgets import Static, TextArea

from chatapp.chat import numbers
from chatapp.chat.errors import ChatappError
from chatapp.chat.facts import Progress
from chatapp.chat.generation import Paused, PromptRead
from chatapp.chat.prompt import TokenPiece
from chatapp.chat.record import ENDED_WELL, FinishReason, TokenRecord
from chatapp.chat.sampling import SamplingParams, find
from chatapp.chat.served import SERVERS
from chatapp.chat.template import NO_TEMPLATE
from chatapp.session.saving import SaveFailed
from chatapp.session.session import MessageAdded, ReplyEnded
from chatapp.ui.actions import Actions, Line, bindings_of, message_of, read_line
from chatapp.ui.chat.attachments import Attachments, Room
from chatapp.ui.chat.base import SHORT_BELOW, ChatBase
from chatapp.ui.chat.chats import ChatMenu
from chatapp.ui.chat.compare import Compare
from chatapp.ui.chat.conversations import Conversations
from chatapp.ui.chat.hold import Hold
from chatapp.ui.chat.inside import Inside
from chatapp.ui.chat.messages import Messages
from chatapp.ui.chat.models import Models
from chatapp.ui.chat.sampling import Sampling, rule_words
from chatapp.ui.chat.scores import Scores
from chatapp.ui.chat.shorter import Shorter
from chatapp.ui.chat.titles import Titles
from chatapp.ui.chat.tokens import Tokens
from chatapp.ui.chat.turns import DRAWS_PER_SECOND, News, TurnOver, Turns
from chatapp.ui.chat.view import View
from chatapp.ui.chat.what_if import TITLE, WhatIf
from chatapp.ui.dialogs.settings import SettingsScreen
from chatapp.ui.drawing import MUTED, bar, renew
from chatapp.ui.services import ModelState, Services
from chatapp.ui.token_colours import SCALES, legend
from chatapp.ui.widgets import hints
from chatapp.ui.widgets.candidates import CandidateChosen, MoreWanted
from chatapp.ui.widgets.completions import Completions
from chatapp.ui.widgets.header import Header, Status
from chatapp.ui.widgets.hints import Hints
from chatapp.ui.widgets.notices import Notices
from chatapp.ui.widgets.parameter_row import shown_value
from chatapp.ui.widgets.prompt import PromptBar, PromptInput
from chatapp.ui.widgets.sampling_panel import SamplingPanel
from chatapp.ui.widgets.sparkline import Sparklines
from chatapp.ui.widgets.token_panel import TokenPanel
from chatapp.ui.widgets.transcript import Transcript

TICKS_A_NUMBER = 4
"""While tokens stream the panel and the header are drawn every so many ticks at most: nobody reads
a distribution fifteen times a second, and drawing one costs more than the words do."""
_PREFILL_BAR = 24
_STOPPING = "stopping …"

FEATURES = (
    ChatMenu,
    Messages,
    Tokens,
    Hold,
    WhatIf,
    Inside,
    Scores,
    Compare,
    Sampling,
    Attachments,
    Models,
    View,
)
"""Whose actions there are."""


class ChatScreen(ChatBase):
    """The one screen that is always there."""

    @dataclass
    class Typed(Notice):
        """A letter that what was focused has not taken."""

        key: str
        character: str | None

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "escape", "stop the reply, else leave what is focused", id="chat.escape"),
        Binding("t", "act('panel', '+')", "next page of the panel", id="panel.next"),
        Binding("T", "act('panel', '-')", "page of the panel before", id="panel.before"),
        Binding(
            "less_than_sign", "act('layer', '-')", "attention of the layer before", id="panel.lower"
        ),
        Binding("greater_than_sign", "act('layer', '+')", "of the next layer", id="panel.higher"),
        Binding(
            "comma", "act('head', '-')", "of the head before, or the mean", id="panel.head_before"
        ),
        Binding("full_stop", "act('head', '+')", "of the next head", id="panel.head_after"),
        *bindings_of(FEATURES),
    ]

    def __init__(self, services: Services, complaints: Sequence[str] = ()) -> None:
        """Show the session of `services`; `complaints` are said at once, with its notices."""
        super().__init__()
        self.services = services
        self.session = services.session
        self._at_start = (*services.notices, *complaints)
        self._ticks_since_numbers = 0
        self._numbers_behind = False  # whether panel and header show less than what has come
        self._shown = ""  # the id of the chat on the screen
        self._drafts: dict[str, str] = {}  # by chat
        self._ended_well = False  # the reply under way or the last one
        self.models = Models(self, self._model_ready)
        self.turns = Turns(self.session, self.show_turn, self.models.ready, services.clock)
        self.conversations = Conversations(services, self)
        self.chats = ChatMenu(self, self.conversations)
        self.messages = Messages(self, self.conversations)
        self.shorter = Shorter(self, self.conversations, self.messages)
        self.hold = Hold(self)
        self.what_if = WhatIf(self)
        self.tokens = Tokens(self, self.messages, self.hold, self.what_if)
        self.scores = Scores(self, self.models)
        self.sampler = Sampling(self, self.conversations, self.models, self.what_if)
        self.inside = Inside(self, self.models, self.what_if)
        self.compare = Compare(self, self.models)
        self.titles = Titles(self)
        self.attachments = Attachments(self, self._count_tokens, self._room)
        self.looks = View(self, self.models, self.conversations)
        self.actions = Actions(one for one in vars(self).values() if isinstance(one, FEATURES))

    def compose(self) -> ComposeResult:
        yield Header(id="header")
        with Horizontal(id="main"):
            with Vertical(id="left"):
                yield Transcript(id="transcript")
                yield Static(Content(""), id="legend", markup=False)
            with Vertical(id="side"):
                yield TokenPanel(id="token-panel")
                yield Static(Content.styled("sampling", MUTED), id="sampling-title")
                yield SamplingPanel(self.session.sampling, id="sampling")
        yield Notices(id="notices")
        yield Static(Content(""), id="waiting", markup=False)
        yield Static(Content(""), id="attachments", markup=False)
        yield Completions(id="completions")
        yield PromptBar(self._tokenize, id="prompt-bar")
        yield Static(Content(""), id="pieces", markup=False)
        yield Hints(id="hints")

    def on_mount(self) -> None:
        self.prompt.focus()
        self.prompt.vim = self.services.vim
        for scale in SCALES:
            if scale == self.services.scale:
                self.transcript.scale = scale
        self.panel.brief = self.services.panel == "brief"
        self.conversation_changed()
        if self._at_start:
            self.say("\n".join(self._at_start), "warning")
        for name in ("view", "scale", "cursor"):
            self.watch(self.transcript, name, self.show_legend, init=False)
        self.watch(self.app, "theme", self._change_theme, init=False)
        self.watch(self.panel, "tab", self.inside.tab_turned, init=False)
        self.set_interval(1 / DRAWS_PER_SECOND, self.tick)
        # The engine's process would take the processor from the first drawing.
        self.call_after_refresh(self.models.load)

    async def on_unmount(self) -> None:
        await self.stop_everything()

    async def stop_everything(self) -> None:
        """Before the end: stop the reply, save it, and give up what is asked and loaded."""
        self._leaving = True
        await self.what_if.close()
        await self.turns.stop()
        await self.messages.keep_waiting()
        await self.models.close()

    # Actions

    async def do(self, line: Line) -> bool:
        """Do what a line says. Returns whether it was done; if not, it was said why."""
        try:
            await self.actions.run(line)
        except ChatappError as error:
            self.say(str(error), "warning")
            return False
        return True

    async def action_act(self, name: str, argument: str = "") -> None:
        await self.do(Line(name, argument))

    async def action_escape(self) -> None:
        """Stop the reply; else leave what is focused."""
        self.query_one(Notices).clear()
        if self.turns.busy:
            self.turns.cancel()
            self.say(_STOPPING)
        elif not self.what_if.go_back():
            if self.transcript.cursor is not None:
                self.transcript.action_follow()
            self.prompt.focus()

    def action_ban(self) -> None:
        self.sampler.ban_candidate()

    def action_bias(self, steps: int) -> None:
        self.sampler.bias_candidate(steps)

    def _change_theme(self) -> None:
        self.inside.forget()
        self.inside.follow()
        self.show_legend()

    # The prompt

    @on(PromptInput.Submitted)
    async def submit(self, event: PromptInput.Submitted) -> None:
        """Send a message, or do what a command says."""
        text = event.text
        if (chosen := self.query_one(Completions).chosen) is not None:
            self.prompt.take(chosen)
            return
        if not text.strip():
            return
        line = read_line(text)
        if line is not None:
            if await self.do(line):
                self.prompt.history_texts.add(text)
                if self.prompt.text == text:
                    self.prompt.take("")
            return
        message = await self.attachments.join(message_of(text))
        if message is None or not await self._has_room(message):
            return
        self.prompt.history_texts.add(text)
        self.prompt.take("")
        self.query_one(Notices).clear()
        self.messages.send(message)

    async def _has_room(self, message: str) -> bool:
        """Whether a message fits behind what the chat holds; says so where it does not.

        It is judged by its own tokens: what the format writes around it is not counted.
        """
        room = self._room()
        tokens = await self._count_tokens(message) if room.length else None
        left = max(0, room.length - room.used)
        if tokens is None or tokens < left:
            return True
        self.say(
            f"not sent: it has {numbers.tokens(tokens)}, and the context has room for"
            f" {numbers.count(left)} of {numbers.count(room.length)}; make it shorter, or begin a"
            " new chat with Ctrl+N",
            "warning",
        )
        if tokens < room.length - room.length // 4 and not self.turns.busy:
            self.shorter.offer(message, room.length)
        return False

    @on(TextArea.Changed, "#prompt")
    def follow_prompt(self) -> None:
        """Follow what is written: completions, files, and the model is not idle."""
        self._show_completions()
        self.attachments.show_soon()
        self.titles.later()

    def _show_completions(self) -> None:
        text = self.prompt.text
        found = [one for one in self.actions.completions(text) if one[0] != text]
        if text == self.prompt.recalled:
            found = []  # ↑ and ↓ go on through the history
        self.query_one(Completions).offer(found)
        self.prompt.completing = bool(found)

    @on(PromptInput.CompletionAsked)
    def complete(self) -> None:
        """Write the completion that is chosen, else what all have in common, or the first one."""
        if (chosen := self.query_one(Completions).chosen) is not None:
            self.prompt.take(chosen)
            return
        found = [line for line, _ in self.actions.completions(self.prompt.text)]
        if not found:
            return
        common = os.path.commonprefix(found)  # noqa: RUF071 (no paths)
        self.prompt.take(common if len(common) > len(self.prompt.text) else found[0])

    @on(PromptInput.CompletionMoved)
    def choose_completion(self, event: PromptInput.CompletionMoved) -> None:
        self.query_one(Completions).move(event.steps)

    @on(PromptInput.EditorAsked)
    async def write_in_editor(self) -> None:
        await self.action_act("editor")

    def is_for_prompt(self, event: events.Key) -> bool:
        """Whether a key is a letter that the prompt should have, though another widget is focused.

        What is focused comes first: its own keys, and what it takes as text.
        """
        focused = self.focused
        if focused is self.prompt or not event.is_printable or not self.is_mounted:
            return False
        if not self.prompt.focusable:
            return False
        if focused is not None and focused.check_consume_key(event.key, event.character):
            return False
        return event.key not in self.active_bindings

    def on_key(self, event: events.Key) -> None:
        """Keep a letter that came to what is focused and was not taken there after all."""
        known = event.key in self.active_bindings
        if event.is_printable and not known and self.prompt.focusable:
            event.stop()
            self.post_message(self.Typed(event.key, event.character))

    def on_paste(self, event: events.Paste) -> None:
        if self.focused is not self.prompt:
            event.stop()
            self.set_focus(self.prompt)
            self.prompt.post_message(events.Paste(event.text))

    async def _tokenize(self, text: str) -> Sequence[TokenPiece] | None:
        """The tokens of a text; None while no model can tell."""
        if self.models.state is not ModelState.READY:
            return None
        try:
            return await self.session.engine.tokenize(text)
        except ChatappError:
            return None

    async def _count_tokens(self, text: str) -> int | None:
        pieces = await self._tokenize(text)
        return None if pieces is None else len(pieces)

    @on(PromptBar.Cut)
    def show_pieces(self, event: PromptBar.Cut) -> None:
        """Draw the tokens of what is written below it, where that is wanted."""
        self.inside.show_written(event.pieces)

    def _room(self) -> Room:
        facts = self.session.facts
        return Room(facts.context_length if facts else 0, self.header.status.context_used or 0)

    # A turn

    def show_turn(self, news: News) -> None:
        match news:
            case ChatappError():
                self.say_error(str(news))
            case BaseException():
                self.fault(news)
            case _ if self.gone:
                pass
            case list():
                self.tokens_came(news)
            case MessageAdded():
                self.titles.put_off()
                self.scores.stop()
                self.what_if.end()
                self.transcript.add(news.message, self.session.conversation)
                self.show_token()
                self.prompt.cursor_blink = False  # each blink draws; the model needs the processor
            case Progress():  # in the place of the reply: how much of the prompt is read
                words = f"{news.stage} {numbers.count(news.done)}"
                if news.total:
                    filled = bar(news.done / news.total, _PREFILL_BAR).plain
                    words = f"{news.stage} {filled} {news.done}/{news.total} {news.unit}"
                self.transcript.wait(words)
            case PromptRead():
                self.transcript.wait("…", news.thinking)
                self.show_status()
                if news.note:
                    self.say(news.note, "warning")
            case Paused():
                self.hold.held(news)
            case ReplyEnded():
                self._reply_ended(news)
            case SaveFailed():
                self.say_unsaved(news)
            case TurnOver():
                self._turn_over()

    def tokens_came(self, records: list[TokenRecord]) -> None:
        """Show some tokens; the numbers about the newest one follow within some ticks."""
        self.hold.went_on()
        self.transcript.feed(records)
        self._numbers_behind = True

    def _reply_ended(self, ended: ReplyEnded) -> None:
        """Show the complete reply, and say why it ended where that is no matter of course."""
        self.transcript.finish(ended.message, self.session.conversation)
        self.show_token()
        reply = ended.message.reply
        self._ended_well = reply is not None and reply.finish_reason in ENDED_WELL
        if reply is not None and reply.finish_reason is FinishReason.ERROR:
            self.say_error(f"{ended.notice or reply.error}; Ctrl+R tries again")
        elif ended.notice:
            self.say(ended.notice, "warning")

    def _turn_over(self) -> None:
        """Show the speed of the whole reply, and a system text that was changed meanwhile."""
        self.hold.let_go()
        self.prompt.cursor_blink = True
        if self.query_one(Notices).words == _STOPPING:
            self.query_one(Notices).clear()
        self.show_status()
        if self.session.conversation.system.strip() != self.transcript.system_text.strip():
            self.transcript.show(self.session.conversation)
        self.inside.follow()
        self.call_later(self.scores.soon)
        self.titles.later()
        well, self._ended_well = self._ended_well, False
        self.messages.turn_ended(well=well)

    def _model_ready(self) -> None:
        self.show_status()
        self.query_one(PromptBar).count_soon()
        self.work(self.conversations.say_model, "say-model")

    # Conversations

    def conversation_changed(self) -> None:
        self.scores.stop()  # it asks about messages that may be none of this chat
        self.what_if.end()
        self.inside.forget()
        self._change_drafts()
        # Another path is current only once what streamed has stopped; another title changes nothing
        # of what stands here, and the reply under way is drawn as it comes.
        if not self.turns.busy:
            self.transcript.show(self.session.conversation)
        for message in self.session.conversation.path():
            if message.role == "user":
                self.prompt.history_texts.add(message.text)
        self.show_sampling()
        self.show_token()
        self.scores.conversation_changed()

    def _change_drafts(self) -> None:
        """Another chat has another draft in its prompt, and nothing of the last one's notices."""
        shown, self._shown = self._shown, self.session.conversation.id
        if shown in ("", self._shown):
            return
        self.query_one(Notices).clear()
        if read_line(self.prompt.text) is None:
            self._drafts[shown] = self.prompt.text
            self.prompt.take(self._drafts.pop(self._shown, ""))

    # Drawing

    def tick(self) -> None:
        """Draw what came since the last time."""
        self.turns.flush()
        self._ticks_since_numbers += 1
        if self._numbers_behind and self._ticks_since_numbers >= TICKS_A_NUMBER:
            self._numbers_behind = False
            self._ticks_since_numbers = 0
            if self.transcript.cursor is None:
                self.show_token()
            self.show_status()
        if self.models.state in (ModelState.FETCHING, ModelState.LOADING):
            self.show_status()
            if self.turns.busy:
                self.transcript.wait(f"waiting for {self.models.ref}")

    def show_status(self) -> None:
        replies = [message.reply for message in reversed(self.session.conversation.path())]
        reply = next((one for one in replies if one is not None), None)
        facts, used, read = self.session.facts, 0, 0
        if reply is not None:
            read = len(reply.prompt_ids)
            used = read + len(reply.records)
        speed = reply.tokens_per_second if reply is not None else 0.0
        if self.turns.busy:
            read = self.turns.prompt_tokens
            used = read + self.turns.tokens
            speed = self.turns.tokens_per_second
        unknown = facts is not None and facts.runtime in SERVERS and used > 0 and not read
        template = self.session.conversation.template
        self.header.status = Status(
            state=self.models.state,
            model=self.models.ref,
            progress=self.models.progress,
            facts=facts,
            context_used=None if unknown else used,
            tokens_per_second=speed,
            temperature=self.session.sampling.temperature,
            replying=self.turns.busy,
            chat=self.session.conversation.title,
            template="" if template == NO_TEMPLATE.name else template,
        )

    @on(Transcript.CursorMoved)
    def show_token(self) -> None:
        self.inside.follow()
        if not self.query_one("#side").display:
            return  # it is shown what is pointed at when it unfolds
        held, transcript = self.hold.paused, self.transcript
        if self.scores.show_token() or (held is None and self.what_if.show_token()):
            return
        if held is not None and transcript.cursor is None:
            block = transcript.current
            records = block.records if block is not None else ()
            self.panel.show(records, other=held.next, taken=False)
            return
        pointed = transcript.pointed
        if pointed is None:
            self.panel.show(())
            return
        block, index = pointed
        reply = block.message.reply
        changes = [span.start for span in reply.sampling[1:]] if reply is not None else []
        self.panel.show(block.records, index, changes)

    @on(Sparklines.TokenPointed)
    def point_on_curves(self, event: Sparklines.TokenPointed) -> None:
        pointed = self.transcript.pointed
        if pointed is not None:
            self.transcript.point(pointed[0].message.id, event.index)

    @on(CandidateChosen)
    def take_candidate(self, event: CandidateChosen) -> None:
        self.tokens.take_candidate(event.index, event.token_id)

    @on(MoreWanted)
    def list_more(self, event: MoreWanted) -> None:
        event.stop()
        self.tokens.list_more(event)

    @property
    def sampling(self) -> SamplingParams:
        question = self.what_if.question
        return question.sampling if question is not None else self.session.sampling

    @on(SamplingPanel.Changed)
    def take_sampling(self, event: SamplingPanel.Changed) -> None:
        self.set_sampling(event.sampling)

    def set_sampling(self, sampling: SamplingParams) -> None:
        if self.what_if.on:
            self.what_if.turn(sampling)
        else:
            self.session.set_sampling(sampling)
        self.show_sampling()

    def show_sampling(self) -> None:
        sampling = self.sampling
        self.query_one("#sampling", SamplingPanel).sampling = sampling
        for screen in self.app.screen_stack:
            if isinstance(screen, SettingsScreen) and screen.is_mounted:
                screen.show(sampling)
        title = TITLE if self.what_if.on else "sampling"
        style = "bold $text-warning" if self.what_if.on else MUTED
        words = [title, *rule_words(sampling)]
        if self.size.height < SHORT_BELOW:  # the rows of these have no room
            words[1:1] = [
                f"{letter} {shown_value(find(name), getattr(sampling, name))}"
                for letter, name in (("k", "top_k"), ("p", "top_p"), ("m", "min_p"))
            ]
        text = Content.styled(" · ".join(words), style)
        self.query_one("#sampling-title", Static).update(text, layout=False)
        self.show_status()

    def show_legend(self) -> None:
        text = Content("")
        if self.what_if.on:
            text = self.what_if.legend()
        elif (attention := self.inside.legend()) is not None:
            text = attention
        elif self.transcript.view == "tokens" or self.transcript.cursor is not None:
            scale = legend(self.transcript.scale, dark=self.app.current_theme.dark)
            text = self.scores.legend() or scale
        line = self.query_one("#legend", Static)
        line.display = bool(text)
        renew(line, text)

    @on(events.DescendantFocus)
    def show_hints(self) -> None:
        if self.hold.paused is not None:
            shown = hints.HELD
        elif self.focused is self.prompt:
            shown = hints.PROMPT
        elif self.focused is self.transcript:
            shown = hints.TRANSCRIPT
        else:
            shown = hints.PANEL
        self.query_one(Hints).hints = shown
