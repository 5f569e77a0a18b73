"""The sampler's trace of one step, on a screen of its own: a table needs the width."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from chatapp.chat.inspection import TracedStep
from chatapp.chat.record import TokenRecord
from chatapp.chat.text import visible_token
from chatapp.ui.dialogs.dialog import Dialog
from chatapp.ui.widgets.trace_table import TraceTable


class TraceScreen(Dialog[None]):
    """What each stage did to the candidates of one token."""

    HELP = TraceTable.HELP
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f3,q", "leave", "leave", id="trace.leave"),
    ]

    def __init__(
        self, traced: TracedStep, record: TokenRecord | None, *, what_if: bool = False
    ) -> None:
        """`record` is the token that was taken, None where none is yet; `what_if`: whether the
        settings are others than those it was drawn with."""
        super().__init__()
        self._traced = traced
        self._record = record
        self._what_if = what_if

    def compose(self) -> ComposeResult:
        record = self._record
        words = "The next token, stage by stage: nothing is taken yet"
        if record is not None:
            words = f"Token {record.index + 1}, stage by stage: {visible_token(record.bytes)}"
        if self._what_if:
            words += "   (what if: not the settings it was drawn with)"
        table = TraceTable(self._traced, record.id if record is not None else None)
        keys = "↑↓ candidate · ←→ stages · l logits · esc close"
        return self.framed(words, table, keys=keys, shape="tall")

    def on_mount(self) -> None:
        self.query_one(TraceTable).focus()
