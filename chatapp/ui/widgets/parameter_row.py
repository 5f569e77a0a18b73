"""One sampling parameter as a row: its name, a slider, its value.

A row shows and reports; what a value may be, and what becomes of it, is the panel's business.
"""

from __future__ import annotations

from dataclasses import dataclass

from textual import events, on
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from chatapp.chat.sampling import Parameter
from chatapp.chat.text import sanitise
from chatapp.explain.cells import fit
from chatapp.ui.widgets import slider

OFF = "off"

_VALUE_WIDTH = 6
_LABEL_WIDTH = 15

_LABEL = "$foreground 80%"
_FILLED = "$primary"
_REST = "$foreground 30%"
_KNOB = "bold $accent"
_AT_OFF = "$foreground 60%"
_INPUT = "bold $foreground"
_ERROR = "$text-error"


def shown_value(parameter: Parameter, value: float) -> str:
    """The value as a row prints it; where its stage does nothing, "off"."""
    return OFF if value == parameter.off else parameter.format(value)


class ParameterRow(Widget):
    """One parameter: its name, a slider, its value; below it what was wrong with an input."""

    DEFAULT_CSS = """
    ParameterRow {
        height: auto;
        &.-selected { background: $foreground 10%; }
    }
    SamplingPanel:focus ParameterRow.-selected { background: $primary 30%; }
    """
    ALLOW_SELECT = False
    """Dragging the knob selects no text."""

    value: reactive[float] = reactive(0.0)
    selected: reactive[bool] = reactive(False)
    typed: reactive[str | None] = reactive[str | None](None)
    """What the user is typing; None when the slider is shown."""
    error: reactive[str] = reactive("", layout=True)

    @dataclass
    class Handled(Message):
        """The mouse pointed at the row, and may have done more."""

        row: ParameterRow
        value: float | None = None
        """Where the slider was put."""
        steps: int = 0
        """How far the wheel moved the value."""
        edit: bool = False
        """Whether at the value, to type another."""

    def __init__(self, parameter: Parameter, value: float) -> None:
        super().__init__()
        self.parameter = parameter
        self.set_reactive(ParameterRow.value, value)
        self._dragging = False

    def watch_selected(self, selected: bool) -> None:
        self.set_class(selected, "-selected")

    # Drawing

    def render(self) -> Content:
        width = self.size.width
        mark = "›" if self.selected else " "
        label = Content.styled(fit(mark + self.parameter.label, self._label_width), _LABEL)
        line = label + (self._slider() if self.typed is None else self._input(width))
        if not self.error:
            return line
        error = Content.styled(sanitise(self.error), _ERROR)
        return Content("\n").join([line, *error.wrap(max(width, 1))])

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        """One line, and those of the error."""
        if not self.error or width < 1:
            return 1
        return 1 + len(Content(sanitise(self.error)).wrap(width))

    def _slider(self) -> Content:
        before, knob, after = slider.draw(self.parameter, self.value, self._slider_width)
        off = self.value == self.parameter.off
        text = shown_value(self.parameter, self.value)
        value = text.rjust(_VALUE_WIDTH + 1) if self._slider_width else f" {text}"
        return Content.assemble(
            (before, _REST if off else _FILLED),
            (knob, _AT_OFF if off else _KNOB),
            (after, _REST),
            (value, _AT_OFF if off else _INPUT),
        )

    def _input(self, width: int) -> Content:
        room = max(width - self._label_width - 1, 1)
        typed = (self.typed or "")[-room + 1 :] if room > 1 else ""
        return Content.assemble((typed, _INPUT), ("▏", _KNOB))

    @property
    def _label_width(self) -> int:
        return min(_LABEL_WIDTH, max(self.size.width - _VALUE_WIDTH - 1, 0))

    @property
    def _slider_width(self) -> int:
        width = self.size.width - self._label_width - _VALUE_WIDTH - 1
        return width if width >= 3 else 0

    # Mouse

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Take hold of the slider, or point at the row."""
        offset = event.get_content_offset(self)
        if offset is None or event.button != 1:
            return
        place = offset.x - self._label_width if offset.y == 0 else -1
        if self.typed is None and 0 <= place < self._slider_width:
            self._dragging = True
            self.capture_mouse()
            self._turn(place)
        else:
            self.post_message(self.Handled(self, edit=place >= self._slider_width))

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._dragging:
            left = self.content_region.x + self._label_width
            place = int(event.screen_offset.x) - left
            self._turn(min(max(place, 0), self._slider_width - 1))

    def on_mouse_up(self) -> None:
        if self._dragging:
            self._dragging = False
            self.release_mouse()

    def _turn(self, place: int) -> None:
        value = slider.value_at(self.parameter, place, self._slider_width)
        self.post_message(self.Handled(self, value=value))

    @on(events.MouseScrollUp)
    @on(events.MouseScrollDown)
    def step_by_wheel(self, event: events.MouseEvent) -> None:
        """Step over the slider or the value; over the name the list scrolls."""
        offset = event.get_content_offset(self)
        if offset is None or offset.x < self._label_width:
            return
        event.stop()
        event.prevent_default()
        steps = 1 if isinstance(event, events.MouseScrollUp) else -1
        self.post_message(self.Handled(self, steps=steps))
