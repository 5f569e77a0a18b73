"""The order of the sampler's stages, changed by the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from chatapp.chat.sampling import EDITS, ORDERS, PARAMETERS, SamplingParams
from chatapp.explain.removal import parameter_of, stage_name
from chatapp.ui.dialogs.dialog import Dialog
from chatapp.ui.drawing import MUTED
from chatapp.ui.widgets.parameter_row import shown_value

_KEYS = (
    "↑↓ choose · shift+↑ shift+↓ (or K J) move · 1 transformers' order · 2 llama.cpp's · esc close"
)


class OrderScreen(Dialog[None]):
    """Stages in their order; every change holds from the next token on."""

    HELP = "The stages of the sampler run from top to bottom."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q", "leave", "leave", id="order.leave"),
        Binding("up", "select(-1)", "stage above", id="order.up"),
        Binding("down", "select(1)", "stage below", id="order.down"),
        Binding("shift+up,K", "shift(-1)", "move the stage up", id="order.earlier"),
        Binding("shift+down,J", "shift(1)", "move the stage down", id="order.later"),
        Binding("1", "preset('transformers')", "transformers' order", id="order.transformers"),
        Binding("2", "preset('llama.cpp')", "llama.cpp's order", id="order.llama"),
    ]

    def __init__(self, sampling: SamplingParams, turn: Callable[[SamplingParams], None]) -> None:
        """Show the order of `sampling`; `turn` takes every change at once."""
        super().__init__()
        self.sampling = sampling
        self._turn = turn
        self.selected = 0

    def compose(self) -> ComposeResult:
        edits = ", ".join(stage_name(stage) for stage in EDITS)
        title = Content.styled("Order of the stages", "bold")
        title += Content.styled(f"\nfirst, always: {edits}", MUTED)
        rows = Static(self._rows(), id="order-rows", markup=False)
        return self.framed(title, rows, keys=f"\n{_KEYS}", shape="narrow")

    def action_select(self, rows: int) -> None:
        self.selected = min(max(self.selected + rows, 0), len(self.sampling.order) - 1)
        self._show()

    def action_shift(self, rows: int) -> None:
        order = list(self.sampling.order)
        place = self.selected + rows
        if 0 <= place < len(order):
            order.insert(place, order.pop(self.selected))
            self.selected = place
            self._change(tuple(order))

    def action_preset(self, name: str) -> None:
        self._change(ORDERS[name])

    def _change(self, order: tuple[str, ...]) -> None:
        self.sampling = replace(self.sampling, order=order)
        self._turn(self.sampling)
        self._show()

    def _show(self) -> None:
        self.query_one("#order-rows", Static).update(self._rows())

    def _rows(self) -> Content:
        rows: list[Content] = []
        for place, stage in enumerate(self.sampling.order):
            parameter = PARAMETERS[parameter_of(stage)]
            value = shown_value(parameter, getattr(self.sampling, parameter.name))
            name = parameter.label
            mark = "›" if place == self.selected else " "
            row = f"{mark} {place + 1}. {name:<14}{value:>8}"
            rows.append(Content.styled(row, "reverse" if place == self.selected else ""))
        known = [name for name, order in ORDERS.items() if order == self.sampling.order]
        rows.append(Content.styled(f"\nthis is {known[0] if known else 'your own'} order", MUTED))
        return Content("\n").join(rows)
