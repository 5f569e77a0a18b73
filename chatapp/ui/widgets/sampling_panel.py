"""The sampling controls: every parameter a row that keyboard and mouse can turn at any time.

The rows are built from `PARAMETERS`; nothing here knows what a parameter does. The panel holds one
immutable `SamplingParams` and posts `Changed` when the user makes another one of it. Setting
`sampling` from outside redraws and posts nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Static

from chatapp.chat.sampling import PARAMETERS, ParameterError, SamplingParams, find
from chatapp.chat.text import sanitise
from chatapp.ui.widgets.parameter_row import ParameterRow

MAIN_PARAMETERS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
"""What stands beside the conversation."""

ALL_PARAMETERS = tuple(PARAMETERS)
"""What a list of all settings shows."""

_LONGEST_INPUT = 24


class SamplingPanel(VerticalScroll, can_focus=True, inherit_bindings=False):
    """Some or all sampling parameters, to be turned."""

    DEFAULT_CSS = """
    SamplingPanel {
        height: auto;
        max-height: 100%;
        scrollbar-size-vertical: 1;
    }
    SamplingPanel > .help {
        dock: bottom;
        height: auto;
        color: $foreground 60%;
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "select(-1)", "setting", id="sampling.up", show=False),
        Binding("down", "select(1)", "setting", id="sampling.down", show=False),
        Binding("left", "step(-1)", "less", id="sampling.less", show=False),
        Binding("right", "step(1)", "more", id="sampling.more", show=False),
        Binding("shift+left", "step(-10)", "much less", id="sampling.much_less", show=False),
        Binding("shift+right", "step(10)", "much more", id="sampling.much_more", show=False),
        Binding("home", "reset", "default", id="sampling.default"),
        Binding("delete", "switch_off", "off", id="sampling.off"),
        Binding("space", "switch", "on or off", id="sampling.switch"),
        Binding("enter", "edit", "type a value", id="sampling.edit"),
    ]

    sampling: reactive[SamplingParams] = reactive(SamplingParams())
    """The parameters shown. Setting them posts nothing."""
    selected: reactive[int] = reactive(0)
    """The row that the keys turn."""

    @dataclass
    class Changed(Message):
        """The user turned something."""

        sampling: SamplingParams

    def __init__(
        self,
        sampling: SamplingParams | None = None,
        *,
        names: Sequence[str] = MAIN_PARAMETERS,
        show_help: bool = False,
        id: str | None = None,  # noqa: A002 (Textual's own name)
    ) -> None:
        """Make a panel of these parameters, in this order.

        `show_help`: whether a line at the bottom says what the selected one does.
        """
        super().__init__(id=id)
        self.set_reactive(SamplingPanel.sampling, sampling or SamplingParams())
        self._rows = [
            ParameterRow(parameter, getattr(self.sampling, parameter.name))
            for parameter in map(find, names)
        ]
        self._had: dict[str, float] = {}
        """What stages were set to before they were switched off."""
        self._help = Static("", classes="help", markup=False) if show_help else None

    def compose(self) -> ComposeResult:
        yield from self._rows
        if self._help is not None:
            yield self._help

    def on_mount(self) -> None:
        """Select the first row."""
        self.watch_selected(0, self.selected)

    # State

    @property
    def row(self) -> ParameterRow:
        """The row that the keys turn."""
        return self._rows[self.selected]

    def validate_selected(self, selected: int) -> int:
        return min(max(selected, 0), len(self._rows) - 1)

    def watch_selected(self, old: int, new: int) -> None:
        self._rows[old].selected = False
        self._rows[old].typed, self._rows[old].error = None, ""
        self.row.selected = True
        if self._help is not None:
            self._help.update(self.row.parameter.text)
        if self.is_mounted:
            self.scroll_to_widget(self.row, animate=False)

    def watch_sampling(self, sampling: SamplingParams) -> None:
        for row in self._rows:
            row.value = getattr(sampling, row.parameter.name)

    def _change(self, sampling: SamplingParams) -> None:
        self.row.error = ""
        if sampling != self.sampling:
            self.sampling = sampling
            self.post_message(self.Changed(sampling))

    # Keys

    def action_select(self, rows: int) -> None:
        self.selected += rows

    def action_step(self, steps: int) -> None:
        self._change(self.sampling.stepped(self.row.parameter.name, steps))

    def action_reset(self) -> None:
        parameter = self.row.parameter
        self._change(self.sampling.with_values({parameter.name: parameter.default}))

    def action_switch_off(self) -> None:
        """Set the selected value to where its stage does nothing, if there is such a value."""
        parameter = self.row.parameter
        if parameter.off is not None:
            self._change(self.sampling.with_values({parameter.name: parameter.off}))

    def action_switch(self) -> None:
        """Switch the selected stage off, or on again with the value that it had."""
        parameter = self.row.parameter
        value = getattr(self.sampling, parameter.name)
        before = self._had.get(parameter.name, parameter.default)
        if parameter.off is None:
            return
        if value != parameter.off:
            self._had[parameter.name] = value
            self.action_switch_off()
        elif before != parameter.off:
            self._change(self.sampling.with_values({parameter.name: before}))
        else:  # it was never on: one step
            self.action_step(1 if parameter.off < parameter.high else -1)

    def action_edit(self) -> None:
        parameter = self.row.parameter
        self._type(parameter.format(getattr(self.sampling, parameter.name)))

    def check_consume_key(self, key: str, character: str | None = None) -> bool:
        """Say which keys are taken as text."""
        if character is None or not character.isprintable():
            return False
        return self.row.typed is not None or character in "0123456789.-"

    def on_key(self, event: events.Key) -> None:
        """Type a value: a digit begins, Enter applies, Esc gives up."""
        typed = self.row.typed
        if self.check_consume_key(event.key, event.character):
            self._type((typed or "") + (event.character or ""))
        elif event.key == "escape" and (typed is not None or self.row.error):
            self.on_blur()
        elif typed is None:
            return
        elif event.key == "enter":
            self._apply(typed)
        elif event.key == "backspace":
            self._type(typed[:-1])
        elif event.key not in ("left", "right", "home", "delete", "shift+left", "shift+right"):
            return
        event.stop()
        event.prevent_default()

    def on_paste(self, event: events.Paste) -> None:
        event.stop()
        self._type((self.row.typed or "") + event.text.strip())

    def on_blur(self) -> None:
        """Give up an input that was not applied."""
        self.row.typed, self.row.error = None, ""

    def _type(self, text: str) -> None:
        self.row.error = ""
        self.row.typed = sanitise(text).replace("\n", " ")[:_LONGEST_INPUT]

    def _apply(self, text: str) -> None:
        try:
            changed = self.sampling.with_text(self.row.parameter.name, text.strip())
        except ParameterError as error:
            self.row.error = str(error)
            return
        self.row.typed = None
        self._change(changed)

    def on_parameter_row_handled(self, event: ParameterRow.Handled) -> None:
        event.stop()
        self.selected = self._rows.index(event.row)
        if event.value is not None:
            self._change(self.sampling.with_values({event.row.parameter.name: event.value}))
        elif event.steps:
            self.action_step(event.steps)
        elif event.edit:
            self.action_edit()
