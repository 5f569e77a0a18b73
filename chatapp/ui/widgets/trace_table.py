"""What each stage of the sampler did to one step, as a table: a row a candidate, a column a stage.

Columns that do not fit are reached with ← →. The rest of the vocabulary is one row, and every
column ends with its sum, which is 100 % or the fault is there to be seen.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from textual.binding import Binding, BindingType
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from chatapp.chat.inspection import StageTrace, TracedStep, TracedToken
from chatapp.chat.numbers import count, decimal, percent, percent_figure, temperature
from chatapp.chat.record import Candidate
from chatapp.explain.cells import fit, fit_token
from chatapp.explain.removal import cut_by, setting_text, shortfall, stage_name
from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.line import Parts, strip_of

Figures = Literal["probability", "logit"]

_TOKEN = 16
_COLUMN = 10
_HEAD = 2
_FOOT = ("others", "sum", "alive", "drew", "detail", "cut", "draw")
_SUM_DUST = 1e-6


class TraceTable(Widget, can_focus=True):
    """One traced step, with a row cursor."""

    DEFAULT_CSS = "TraceTable { height: 1fr; }"
    HELP = (
        "Each column is one stage, in the order they ran; below its name stands what it was set to."
        " A figure is the candidate's probability after the stage, among what was still in play;"
        " × is where it was cut. l shows logits in place of probabilities."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "candidate", id="trace.up", show=False),
        Binding("down", "move(1)", "candidate", id="trace.down", show=False),
        Binding("pageup", "move(-10)", "page up", id="trace.pageup", show=False),
        Binding("pagedown", "move(10)", "page down", id="trace.pagedown", show=False),
        Binding("left", "shift(-1)", "stages before", id="trace.left", show=False),
        Binding("right", "shift(1)", "stages after", id="trace.right", show=False),
        Binding("l", "logits", "logits or probabilities", id="trace.logits"),
    ]

    row: reactive[int] = reactive(0)
    first_stage: reactive[int] = reactive(0)
    figures: reactive[Figures] = reactive[Figures]("probability")

    def __init__(self, traced: TracedStep, taken_id: int | None) -> None:
        """Show a step at which that token was taken; None where none is yet."""
        super().__init__()
        self._traced = traced
        self._taken = taken_id
        self._top = 0
        ids = [one.id for one in traced.candidates]
        self.set_reactive(TraceTable.row, ids.index(taken_id) if taken_id in ids else 0)

    def validate_row(self, row: int) -> int:
        return min(max(row, 0), max(len(self._traced.candidates) - 1, 0))

    def validate_first_stage(self, first: int) -> int:
        return min(max(first, 0), max(len(self._traced.trace.stages) - self._columns, 0))

    def action_move(self, rows: int) -> None:
        self.row += rows

    def action_shift(self, columns: int) -> None:
        """Show the stages before or after."""
        self.first_stage += columns

    def action_logits(self) -> None:
        """Show logits, or probabilities again."""
        self.figures = "probability" if self.figures == "logit" else "logit"

    @property
    def _columns(self) -> int:
        """How many stages fit."""
        return max(1, (self.size.width - _TOKEN) // _COLUMN)

    @property
    def _stages(self) -> tuple[StageTrace, ...]:
        return self._traced.trace.stages[self.first_stage : self.first_stage + self._columns]

    def render_line(self, y: int) -> Strip:
        """One of: head, candidates, foot."""
        width, height = self.size.width, self.size.height
        rows = max(1, min(height - _HEAD - len(_FOOT), len(self._traced.candidates)))
        self._top = min(max(self._top, self.row - rows + 1), self.row)
        parts: Parts = ()
        ground = ""
        if y < _HEAD:
            parts = self._head(y)
        elif y < _HEAD + rows:
            place = self._top + y - _HEAD
            parts = self._candidate(place)
            ground = "on $primary 40%" if place == self.row else ""
        elif y - _HEAD - rows < len(_FOOT):
            parts = self._foot(_FOOT[y - _HEAD - rows])
        return strip_of(parts, width, self.visual_style, ground)

    def _head(self, y: int) -> Parts:
        stages = self._traced.trace.stages
        left = self.first_stage
        right = len(stages) - left - len(self._stages)
        more = (f"‹ {left} " if left else "") + (f"{right} ›" if right > 0 else "")
        what = "probability, %" if self.figures == "probability" else "logit"
        parts = [(fit(("after: " + more, what)[y], _TOKEN), MUTED)]
        for stage in self._stages:
            name = stage_name(stage.stage)
            text = name if y == 0 else _setting(stage)
            parts.append((fit(text, _COLUMN - 1).rjust(_COLUMN), MUTED))
        return parts

    def _candidate(self, place: int) -> Parts:
        if place >= len(self._traced.candidates):
            return []
        one = self._traced.candidates[place]
        taken = one.id == self._taken
        style = "bold $text-accent" if taken else MUTED if one.removed_by else ""
        mark = "›" if place == self.row else " "
        state = "●" if taken else "×" if one.removed_by else " "
        text = f"{mark}{state} {fit_token(one.bytes, _TOKEN - 4)} "
        cells = "".join(self._cell(stage.tokens[place]).rjust(_COLUMN) for stage in self._stages)
        return [(text + cells, style)]

    def _cell(self, token: TracedToken) -> str:
        if token.removed:
            return "× cut"
        if self.figures == "logit":
            return "·" if token.logit is None else decimal(token.logit)
        return "·" if token.logit is None else percent_figure(token.prob)

    def _foot(self, name: str) -> Parts:
        one = self._traced.candidates[self.row]
        match name:
            case "others":
                listed = len(self._traced.candidates)
                others = max(self._traced.trace.stages[0].alive - listed, 0)
                # Beside logits it says what it is: there is none of so many tokens.
                write = percent_figure if self.figures == "probability" else percent
                return self._summed(
                    f"   {count(others)} others",
                    [write(stage.other_prob) for stage in self._stages],
                )
            case "sum":
                return self._summed("   sum", [_total(stage) for stage in self._stages])
            case "alive":
                return self._summed("   in play", [count(stage.alive) for stage in self._stages])
            case "drew":
                return self._summed("   drew", [_drawn(stage) for stage in self._stages])
            case "detail":
                words = f"id {one.id} · rank {count(one.rank)} · ln p {decimal(one.logprob)}"
                return [(words, "")]
            case "cut":
                return [(_fate(one), "")]
        return [(self._draw_words(), MUTED)]

    def _summed(self, label: str, cells: list[str]) -> Parts:
        text = fit(label, _TOKEN) + "".join(cell.rjust(_COLUMN) for cell in cells)
        return [(text, MUTED)]

    def _draw_words(self) -> str:
        draw = self._traced.draw
        words = "no draw: one candidate left" if self._taken is not None else "nothing is drawn yet"
        if draw is not None:
            words = f"random number {draw:.4f}"
        if self._traced.recomputed:
            words += " · the model read the reply again for this"
        return words + (f" · {self._traced.note}" if self._traced.note else "")


def _setting(stage: StageTrace) -> str:
    if stage.temperature is not None:
        return temperature(stage.temperature)
    return setting_text(stage.stage, stage.setting) if stage.setting is not None else ""


def _drawn(stage: StageTrace) -> str:
    return "" if stage.drawn is None else f"{stage.drawn:.4f}"


def _total(stage: StageTrace) -> str:
    total = math.fsum([*(token.prob for token in stage.tokens), stage.other_prob])
    return percent(1.0 if abs(total - 1) <= _SUM_DUST else total)


def _fate(one: Candidate) -> str:
    if one.removed_by is None:
        return "kept by every stage" if one.prob > 0 else "the model gives it no chance"
    return f"{cut_by(one.removed_by)}: {shortfall(one.removed_by)}"
