"""Where the user writes: several rows, a history, completion, a live count of tokens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Static

from chatapp.chat import numbers
from chatapp.chat.errors import ChatappError
from chatapp.chat.prompt import TokenPiece
from chatapp.chat.text import sanitise
from chatapp.ui.widgets.prompt_history import History
from chatapp.ui.widgets.vim import VIM, VimArea

COUNT_AFTER_SECONDS = 0.15
"""How long the user must pause before their tokens are counted."""


_IN_TURN = ("submit", "newline", "complete")


class PromptInput(VimArea):
    """The text itself."""

    HELP = (
        "Write a message and press Enter. Shift+Enter, Ctrl+J or Alt+Enter begins a new row.\n"
        "↑ and ↓ in the first and last row bring back what was sent before.\n"
        "A line that begins with / is a command; Tab completes it. A message that must begin with"
        " / is written with //.\n"
        "@notes.txt in a message sends that file's text with it, as /attach does; what it costs is"
        " shown before it is sent.\n"
        "The number at the right is how many tokens the message has.\n" + VIM
    )

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "send", id="prompt.send"),
        Binding("shift+enter,ctrl+j,alt+enter", "newline", "new row", id="prompt.newline"),
        Binding("up", "row(-1)", "history or row above", id="prompt.up", show=False),
        Binding("down", "row(1)", "history or row below", id="prompt.down", show=False),
        Binding("tab", "complete", "complete a command", id="prompt.complete"),
        Binding("ctrl+underscore", "undo", "undo typing", id="prompt.undo", show=False),
        Binding("ctrl+g", "editor", "write in $EDITOR", id="prompt.editor"),
    ]

    @dataclass
    class Submitted(Message):
        """The user pressed Enter."""

        text: str

    class CompletionAsked(Message):
        """The user pressed Tab."""

    @dataclass
    class CompletionMoved(Message):
        """The user moves in the list of completions."""

        steps: int

    class EditorAsked(Message):
        """The user wants to write elsewhere."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 (Textual's own name)
        super().__init__(
            id=id, show_line_numbers=False, soft_wrap=True, compact=True, tab_behavior="focus"
        )
        self.highlight_cursor_line = False
        self.history_texts = History()
        self.completing = False
        """Whether completions are offered: ↑ and ↓ move among them."""
        self.recalled: str | None = None
        """What the history brought back last: nothing is completed in it."""

    def take(self, text: str) -> None:
        """Replace everything by a text, and go to its end."""
        self.mode = "normal" if text and self.mode != "insert" else "insert"
        self.text = sanitise(text)
        self.move_cursor(self.document.end)

    def action_submit(self) -> None:
        """Hand the text over; whoever takes it clears it."""
        self.post_message(self.Submitted(self.text))

    def action_newline(self) -> None:
        self.insert("\n")

    def row(self, steps: int) -> None:
        """Up or down a row, in the completions, or to what was sent before or after."""
        older = steps < 0
        if self.completing:
            self.post_message(self.CompletionMoved(steps))
        elif older and not self.cursor_at_first_line:
            self.action_cursor_up()
        elif not older and not self.cursor_at_last_line:
            self.action_cursor_down()
        else:
            texts = self.history_texts
            text = texts.older(self.text) if older else texts.newer()
            if text is not None:
                self.recalled = text
                self.take(text)

    def action_row(self, steps: int) -> None:
        self.row(steps)

    def action_complete(self) -> None:
        """Complete a command, or go on to the next widget."""
        if self.text.startswith("/"):
            self.post_message(self.CompletionAsked())
        else:
            self.screen.focus_next()

    def action_editor(self) -> None:
        self.post_message(self.EditorAsked())

    async def _on_key(self, event: events.Key) -> None:
        """Do what depends on the text in its turn.

        A priority binding would overtake letters that were typed before it and still wait to be
        written; an ordinary one never hears of Enter, which a TextArea keeps for itself.
        """
        if event.is_printable:
            return
        active = self.screen.active_bindings.get(event.key)
        if active is not None and active.node is self and active.binding.action in _IN_TURN:
            event.stop()
            event.prevent_default()
            await self.run_action(active.binding.action)

    async def _on_paste(self, event: events.Paste) -> None:
        """Take pasted text as it will be shown: what a terminal would obey is made visible."""
        event.prevent_default()
        event.stop()
        text = sanitise(event.text.replace("\r\n", "\n").replace("\r", "\n"))
        if result := self._replace_via_keyboard(text, *self.selection):
            self.move_cursor(result.end_location)
            self.focus()


class PromptBar(Horizontal):
    """The prompt with its sign and its count."""

    @dataclass
    class Cut(Message):
        """What is written was cut into tokens; there are none of an empty text."""

        pieces: Sequence[TokenPiece]

    def __init__(
        self,
        tokenize: Callable[[str], Awaitable[Sequence[TokenPiece] | None]],
        *,
        id: str | None = None,  # noqa: A002
    ) -> None:
        """`tokenize` cuts a text into tokens; None while that cannot be done."""
        super().__init__(id=id)
        self._tokenize = tokenize
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        yield Static(Content("›"), id="prompt-sign", markup=False)
        yield PromptInput(id="prompt")
        yield Static(Content(""), id="prompt-count", markup=False)

    def on_mount(self) -> None:
        self.watch(self.input, "mode", self._show_mode)

    def _show_mode(self) -> None:
        sign = {"insert": "›", "normal": "n", "visual": "v", "lines": "V"}[self.input.mode]
        self.query_one("#prompt-sign", Static).update(Content(sign), layout=False)

    @property
    def input(self) -> PromptInput:
        """The text itself."""
        return self.query_one(PromptInput)

    def on_text_area_changed(self) -> None:
        """Count anew after a pause."""
        self.count_soon()

    def count_soon(self) -> None:
        """Count the tokens once the user pauses."""
        if self._timer is not None:
            self._timer.stop()
        if not self.input.text:
            self._show_count(())
            return
        self._timer = self.set_timer(COUNT_AFTER_SECONDS, self._count_tokens)

    @work(group="count", exclusive=True)
    async def _count_tokens(self) -> None:
        text = self.input.text
        try:
            pieces = await self._tokenize(text)
        except ChatappError:
            pieces = None  # the engine's own notice says why
        if text == self.input.text:
            self._show_count(pieces or ())

    def _show_count(self, pieces: Sequence[TokenPiece]) -> None:
        self.post_message(self.Cut(pieces))
        text = numbers.count(len(pieces)) if pieces else ""
        line = self.query_one("#prompt-count", Static)
        before, after = line.content, Content(text)
        if before != after:  # a screen that need not be laid out anew shows the next key sooner
            line.update(after, layout=len(str(before)) != len(text))
