"""The sampler's trace of one step, on a screen of its own: a table needs the width."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from chatapp.chat.inspection import TracedStep
from chatapp.chat.record import TokenRecord
from chatapp.chat.text import visible_token
from chatapp.ui.dialogs.dialog import Dialog
from chatapp.ui.dialogs.help import help_for
from chatapp.ui.drawing import MUTED
from chatapp.ui.widgets.trace_table import TraceTable


class TraceScreen(Dialog[None]):
    """What each stage did to the candidates of one token."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f3,q", "leave", "leave", id="trace.leave"),
        Binding("f1", "help", "help", id="trace.help"),
    ]

    def __init__(
        self, traced: TracedStep, record: TokenRecord | None, *, what_if: bool = False
    ) -> None:
        """Show a step.

        Args:
            traced: what the stages did.
            record: the token that was taken; None where none is yet.
            what_if: whether the settings are others than those it was drawn with.
        """
        super().__init__()
        self._traced = traced
        self._record = record
        self._what_if = what_if

    def compose(self) -> ComposeResult:
        """Which token, the table, the keys."""
        record = self._record
        words = "The next token, stage by stage: nothing is taken yet"
        if record is not None:
            words = f"Token {record.index + 1}, stage by stage: {visible_token(record.bytes)}"
        if self._what_if:
            words += "   (what if: not the settings it was drawn with)"
        keys = "↑↓ candidate · ←→ stages · l logits · esc close"
        with Vertical(classes="dialog tall"):
            yield Static(Content.styled(words, "bold"), markup=False, classes="dialog-title")
            yield TraceTable(self._traced, record.id if record is not None else None)
            yield Static(Content.styled(keys, MUTED), markup=False)

    def on_mount(self) -> None:
        """Take the keys."""
        self.query_one(TraceTable).focus()

    def action_help(self) -> None:
        """The keys."""
        self.app.push_screen(help_for(self, TraceTable.HELP, ()))

    def action_leave(self) -> None:
        """Go back."""
        self.dismiss(None)
