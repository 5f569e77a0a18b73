"""The chat: header, transcript, panels, prompt. It shows what the controls tell it, and hands them
what the person does; what any of it means is theirs to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static, TextArea

from chatapp.chat.errors import ChatappError
from chatapp.ui.commands.registry import Line, message_of, read_line
from chatapp.ui.commands.table import ALL
from chatapp.ui.control.conversations import ConversationControl
from chatapp.ui.control.model import ModelControl, ModelState
from chatapp.ui.control.turns import DRAWS_PER_SECOND, Turns
from chatapp.ui.drawing import MUTED, renew
from chatapp.ui.screens.chat_titles import ChatTitles
from chatapp.ui.services import Services
from chatapp.ui.token_colours import SCALES
from chatapp.ui.widgets.candidates import CandidateChosen
from chatapp.ui.widgets.header import Header
from chatapp.ui.widgets.hints import Hints
from chatapp.ui.widgets.notices import Notices
from chatapp.ui.widgets.prompt import PromptBar, PromptInput
from chatapp.ui.widgets.sampling_panel import SamplingPanel
from chatapp.ui.widgets.sparkline import Sparklines
from chatapp.ui.widgets.token_panel import TokenPanel
from chatapp.ui.widgets.transcript import Transcript

_COMPLETIONS_SHOWN = 6


class ChatScreen(ChatTitles):
    """The one screen that is always there."""

    @dataclass
    class Typed(Message):
        """A letter that what was focused has not taken."""

        key: str
        character: str | None

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "escape", "stop the reply, else leave what is focused", id="chat.escape"),
        Binding("ctrl+n", "new", "new chat", id="chat.new", priority=True),
        Binding("ctrl+o", "chats", "chats", id="chat.chats", priority=True),
        Binding("ctrl+l", "models", "models", id="chat.models", priority=True),
        Binding("ctrl+t", "toggle_tokens", "tokens or Markdown", id="chat.tokens", priority=True),
        Binding("ctrl+b", "toggle_panel", "side panel", id="chat.panel", priority=True),
        Binding("ctrl+r", "regenerate", "another reply", id="chat.regenerate", priority=True),
        Binding("f1", "help", "help for what is focused", id="chat.help", priority=True),
        Binding("f2", "settings", "settings", id="chat.settings", priority=True),
        Binding("f4", "tree", "tree of the chat", id="chat.tree", priority=True),
        Binding("f5", "restart", "load the model again", id="chat.restart"),
    ]

    def __init__(self, services: Services, complaints: Sequence[str] = ()) -> None:
        """Show the session of `services`; `complaints` are said at once, with its notices."""
        super().__init__()
        self.services = services
        self._at_start = (*services.notices, *complaints)
        self.session = services.session
        self.models = ModelControl(services, self)
        self.turns = Turns(self.session, self, self.models.ready, services.clock)
        self.conversations = ConversationControl(services, self.turns, self)

    def compose(self) -> ComposeResult:
        """Everything there is."""
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
        yield Static(Content(""), id="attachments", markup=False)
        yield Static(Content(""), id="completions", markup=False)
        yield PromptBar(self._count_tokens, id="prompt-bar")
        yield Hints(id="hints")

    def on_mount(self) -> None:
        """Show the conversation, and begin to load the model behind it."""
        self.prompt.focus()
        for scale in SCALES:
            if scale == self.services.scale:
                self.transcript.scale = scale
        self.conversation_changed()
        if self._at_start:
            self.say("\n".join(self._at_start), "warning")
        for name in ("view", "scale", "cursor"):
            self.watch(self.transcript, name, self.show_legend, init=False)
        self.watch(self.app, "theme", self.show_legend, init=False)
        self.set_interval(1 / DRAWS_PER_SECOND, self.tick)
        # The engine's process would take the processor from the first drawing.
        self.call_after_refresh(self.models.load)

    async def on_unmount(self) -> None:
        """Leave nothing running, however the screen came to its end."""
        await self.stop_everything()

    # The prompt

    @on(PromptInput.Submitted)
    async def submit(self, event: PromptInput.Submitted) -> None:
        """Send a message, or do what a command says."""
        text = event.text
        if not text.strip():
            return
        line = read_line(text)
        if line is not None:
            if await self.run_command(line):
                self.prompt.history_texts.add(text)
                self.prompt.take("")
            return
        if self.turns.busy:
            self.say("a reply is under way; Esc stops it, then send", "warning")
            return
        message = await self.with_attachments(message_of(text))
        if message is None:
            return
        self.prompt.history_texts.add(text)
        self.prompt.take("")
        self.query_one(Notices).clear()
        self.send(message)

    async def run_command(self, line: Line) -> bool:
        """Do what a command says. Returns whether it was done; if not, it was said why."""
        try:
            await ALL.run(line, self)
        except ChatappError as error:
            self.say(str(error), "warning")
            return False
        return True

    @on(TextArea.Changed, "#prompt")
    def show_completions(self) -> None:
        """Offer what a command may become."""
        found = ALL.completions(self.prompt.text, self)
        if found == [self.prompt.text]:
            found = []
        shown = found[:_COMPLETIONS_SHOWN]
        rows = [Content.styled(f"  {text}", MUTED) for text in shown]
        if len(found) > len(shown):
            rows.append(Content.styled(f"  … {len(found) - len(shown)} more", MUTED))
        completions = self.query_one("#completions", Static)
        completions.display = bool(rows)
        renew(completions, Content("\n").join(rows))

    @on(PromptInput.CompletionAsked)
    def complete(self) -> None:
        """Write what all completions have in common, or the first one."""
        found = ALL.completions(self.prompt.text, self)
        if not found:
            return
        common = found[0]
        for text in found[1:]:
            while not text.startswith(common):
                common = common[:-1]
        self.prompt.take(common if len(common) > len(self.prompt.text) else found[0])

    @on(PromptInput.EditorAsked)
    def write_in_editor(self) -> None:
        """Let the person's own editor change the text."""
        self.edit_in_editor()

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
        """Let what is pasted anywhere go to the prompt."""
        if self.focused is not self.prompt:
            event.stop()
            self.set_focus(self.prompt)
            self.prompt.post_message(events.Paste(event.text))

    # Sampling

    @on(SamplingPanel.Changed)
    def take_sampling(self, event: SamplingPanel.Changed) -> None:
        """Take what the panel was turned to."""
        self.set_sampling(event.sampling)

    # Panels and cursor

    @on(Transcript.CursorMoved)
    def follow_cursor(self) -> None:
        """Show the token that is pointed at."""
        self.show_token()

    @on(Sparklines.TokenPointed)
    def point_on_curves(self, event: Sparklines.TokenPointed) -> None:
        """Point at a token of the reply whose curves were clicked."""
        pointed = self.transcript.pointed
        if pointed is not None:
            self.transcript.point(pointed[0].message.id, event.index)

    @on(CandidateChosen)
    def take_candidate(self, event: CandidateChosen) -> None:
        """Take another token and go on from it."""
        self.take_candidate_at(event.index, event.token_id)

    def on_descendant_focus(self) -> None:
        """Show the keys of what is focused."""
        self.show_hints()

    # Keys

    async def action_escape(self) -> None:
        """Stop the reply; else leave what is focused."""
        self.query_one(Notices).clear()
        if self.turns.busy:
            self.turns.cancel()
            return
        if self.end_what_if():
            return
        if self.transcript.cursor is not None:
            self.transcript.action_follow()
        self.prompt.focus()

    async def action_new(self) -> None:
        """Begin a new chat."""
        await self.conversations.begin()
        self.prompt.focus()

    def action_restart(self) -> None:
        """Load the model again."""
        if self.models.state in (ModelState.NONE, ModelState.DEAD):
            self.models.load()
        else:
            self.say("the model is there already")

    def action_toggle_tokens(self) -> None:
        """Show replies as Markdown or as tokens."""
        self.transcript.view = "markdown" if self.transcript.view == "tokens" else "tokens"

    def action_toggle_panel(self) -> None:
        """Show or hide the side panel."""
        self.want_panel(not self.query_one("#side").display)

    def on_resize(self) -> None:
        """Fold the side panel where there is no room for it."""
        self.fold_panel()
