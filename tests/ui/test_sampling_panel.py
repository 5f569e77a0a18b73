"""The sampling controls: keys, mouse and typing make new parameters, and say so once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import on
from textual.app import App, ComposeResult
from textual.widgets import Input

from chatapp.chat.sampling import PARAMETERS, SamplingParams
from chatapp.ui.widgets import slider
from chatapp.ui.widgets.parameter_row import ParameterRow, shown_value
from chatapp.ui.widgets.sampling_panel import ALL_PARAMETERS, MAIN_PARAMETERS, SamplingPanel

WIDTH = 40


class Host(App[None]):
    """The panel, and something else that can have the focus."""

    def __init__(
        self,
        sampling: SamplingParams | None = None,
        names: Sequence[str] = MAIN_PARAMETERS,
        show_help: bool = False,
    ) -> None:
        super().__init__()
        self._panel = SamplingPanel(sampling, names=names, show_help=show_help)
        self.changes: list[SamplingParams] = []
        self.typed_elsewhere = ""

    def compose(self) -> ComposeResult:
        yield self._panel
        yield Input()

    def on_mount(self) -> None:
        self._panel.focus()

    @property
    def panel(self) -> SamplingPanel:
        return self._panel

    def row(self, name: str) -> ParameterRow:
        return next(row for row in self.query(ParameterRow) if row.parameter.name == name)

    @on(SamplingPanel.Changed)
    def note(self, message: SamplingPanel.Changed) -> None:
        self.changes.append(message.sampling)

    def on_key(self, event: Any) -> None:
        if event.character and event.character.isprintable():
            self.typed_elsewhere += event.character


async def press(sampling: SamplingParams | None, *keys: str) -> Host:
    """An app after some keys."""
    app = Host(sampling)
    async with app.run_test(size=(WIDTH, 20)) as pilot:
        await pilot.press(*keys)
        await pilot.pause()
    return app


async def test_arrows_choose_a_row_and_step_its_value() -> None:
    app = await press(None, "right", "right", "down", "left", "down", "shift+left")
    assert [change.temperature for change in app.changes[:2]] == [0.75, 0.8]
    assert app.changes[-1] == SamplingParams(temperature=0.8, top_k=49, top_p=0.85)
    assert app.panel.sampling == app.changes[-1]
    assert len(app.changes) == 4


async def test_steps_stop_at_the_bounds_and_then_say_nothing() -> None:
    app = await press(SamplingParams(temperature=0.05), "shift+left", "left", "left")
    assert [change.temperature for change in app.changes] == [0.0]


async def test_home_is_the_default_and_delete_is_off() -> None:
    app = await press(SamplingParams(temperature=1.5), "home", "delete", "down", "delete", "down")
    assert [(c.temperature, c.top_k) for c in app.changes] == [(0.7, 50), (0.7, 0)]


async def test_a_number_is_typed_and_applied_with_enter() -> None:
    app = await press(None, "1", "full_stop", "2", "3", "enter", "down", "7", "backspace", "9")
    assert [change.temperature for change in app.changes] == [1.23]
    assert [change.top_k for change in app.changes[1:]] == []
    app = await press(None, "down", "enter", "backspace", "5", "enter")
    assert [change.top_k for change in app.changes] == [55]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (("9", "9"), "temperature must be a number between 0 and 5, not 99"),
        (("0", "h", "o", "t"), "temperature must be a number between 0 and 5, not '0hot'"),
        (("minus", "1"), "temperature must be a number between 0 and 5, not -1"),
        (("down", "1", "full_stop", "5"), "top_k must be a whole number of at least 0, not '1.5'"),
        (("0", "left_square_bracket", "slash"), "between 0 and 5, not '0[/'"),
    ],
)
async def test_a_wrong_value_changes_nothing_and_says_what_is_allowed(
    keys: Sequence[str], words: str
) -> None:
    app = Host()
    async with app.run_test(size=(WIDTH, 20)) as pilot:
        await pilot.press(*keys, "enter")
        await pilot.pause()
        assert app.changes == []
        assert app.panel.sampling == SamplingParams()
        row = app.panel.row
        assert words in row.error
        assert words.split()[-1] in " ".join(row.render().plain.split())
        assert row.size.height > 1
        assert app.typed_elsewhere == "", "what is typed here goes nowhere else"
        await pilot.press("escape")
        await pilot.pause()
        assert (row.error, row.typed) == ("", None)
        assert row.size.height == 1


async def test_letters_pass_by_until_a_number_is_being_typed() -> None:
    app = await press(None, "h", "i", "escape")
    assert app.typed_elsewhere == "hi"
    assert app.panel.row.typed is None


async def test_leaving_gives_up_what_was_typed() -> None:
    app = Host()
    async with app.run_test(size=(WIDTH, 20)) as pilot:
        await pilot.press("2", "left", "tab")
        await pilot.pause()
        assert app.row("temperature").typed is None
        assert app.changes == []
        app.panel.focus()
        await pilot.press("2", "down")
        assert app.row("temperature").typed is None
        assert app.panel.row.parameter.name == "top_k"


async def test_setting_from_outside_redraws_and_echoes_nothing() -> None:
    app = Host()
    async with app.run_test(size=(WIDTH, 20)) as pilot:
        app.panel.sampling = SamplingParams(temperature=1.9, top_p=1)
        await pilot.pause()
        assert app.changes == []
        assert app.row("temperature").render().plain.endswith("1.90")
        assert app.row("top_p").render().plain.endswith("off")
        await pilot.press("right")
        assert [(c.temperature, c.top_p) for c in app.changes] == [(1.95, 1)]


async def test_the_mouse_turns_drags_and_wheels() -> None:
    app = Host()
    async with app.run_test(size=(WIDTH, 20)) as pilot:
        row = app.row("top_p")
        right = WIDTH - 8  # the last cell of the slider: the value takes seven
        await pilot.mouse_down(row, offset=(right, 0))
        assert app.changes[-1].top_p == 1
        assert app.panel.row is row
        await pilot.hover(row, offset=(21, 0))
        assert 0.3 < app.changes[-1].top_p < 0.4
        await pilot.hover(app.row("temperature"), offset=(2, 0))
        assert app.changes[-1].top_p == 0
        assert app.changes[-1].temperature == 0.7, "the row that was taken hold of is dragged"
        await pilot.mouse_up(row, offset=(20, 0))
        let_go = app.changes[-1].top_p
        await pilot.hover(row, offset=(30, 0))
        assert app.changes[-1].top_p == let_go


async def test_the_wheel_steps_over_the_slider_and_scrolls_over_the_name() -> None:
    app = Host()
    async with app.run_test(size=(WIDTH, 20)) as pilot:
        row = app.row("top_p")
        await pilot.pause()
        row.post_message(wheel(row, up=False, x=20))
        row.post_message(wheel(row, up=False, x=WIDTH - 1))
        row.post_message(wheel(row, up=False, x=2))
        row.post_message(wheel(row, up=True, x=20))
        await pilot.pause()
        assert [change.top_p for change in app.changes] == [0.94, 0.93, 0.94]


def wheel(row: ParameterRow, *, up: bool, x: int) -> Any:
    """A turn of the wheel over a cell of a row."""
    from textual.events import MouseScrollDown, MouseScrollUp

    kind = MouseScrollUp if up else MouseScrollDown
    place = row.region.x + x, row.region.y
    return kind(row, x, 0, 0, 0, 0, False, False, False, screen_x=place[0], screen_y=place[1])


async def test_a_click_on_the_value_begins_to_type() -> None:
    app = Host()
    async with app.run_test(size=(WIDTH, 20)) as pilot:
        await pilot.click(app.row("top_k"), offset=(WIDTH - 2, 0))
        assert app.row("top_k").typed == "50"
        assert app.changes == []


async def test_all_settings_show_their_value_or_off() -> None:
    app = Host(SamplingParams(dry_multiplier=0.8), ALL_PARAMETERS, show_help=True)
    async with app.run_test(size=(60, 12)) as pilot:
        await pilot.pause()
        rows = list(app.query(ParameterRow))
        assert [row.parameter.name for row in rows] == list(PARAMETERS)
        for row in rows:
            value = getattr(app.panel.sampling, row.parameter.name)
            expected = "off" if value == row.parameter.off else row.parameter.format(value)
            assert row.render().plain.split()[-1] == expected
        assert app.row("dry_multiplier").render().plain.endswith("0.80")
        await pilot.press(*["down"] * 30)
        await pilot.pause()
        assert app.panel.row is rows[-1]
        assert rows[-1].parameter.text in str(app.query_one(".help").render())
        assert app.panel.scroll_y > 0


@pytest.mark.parametrize("size", [(1, 1), (8, 3), (20, 4), (200, 60)])
async def test_any_size(size: tuple[int, int]) -> None:
    app = Host(names=ALL_PARAMETERS, show_help=True)
    async with app.run_test(size=size) as pilot:
        await pilot.press("9", "9", "enter", "escape", "right", "end", "down")
        await pilot.resize_terminal(1, 1)
        await pilot.resize_terminal(*size)
        for row in app.query(ParameterRow):
            assert row.render().cell_length <= max(row.size.width, 8)


@given(st.sampled_from(ALL_PARAMETERS), st.integers(2, 80), st.data())
def test_every_place_on_a_slider_is_a_value_that_may_be_set(
    name: str, width: int, data: st.DataObject
) -> None:
    parameter = PARAMETERS[name]
    place = data.draw(st.integers(0, width - 1))
    value = slider.value_at(parameter, place, width)
    assert parameter.check(value) == value
    before, knob, after = slider.draw(parameter, value, width)
    assert len(before + knob + after) == width
    # A cell narrower than a step shows the nearest step, half of one away at most.
    step = parameter.step / (slider.Track.of(parameter).high - slider.Track.of(parameter).low)
    if slider.Track.of(parameter).spacing == "even":
        assert abs(len(before) - place) <= step * width / 2 + 1


@given(st.sampled_from(ALL_PARAMETERS), st.floats(0, 1))
def test_a_track_leads_there_and_back(name: str, fraction: float) -> None:
    track = slider.Track.of(PARAMETERS[name])
    assert track.fraction(track.value(fraction)) == pytest.approx(fraction, abs=1e-9)


def test_values_beyond_the_track_are_marked() -> None:
    temperature = PARAMETERS["temperature"]
    assert slider.draw(temperature, 2.0, 5) == ("━━━━", "●", "")
    assert slider.draw(temperature, 4.5, 5) == ("━━━━", "▸", "")
    repetition = PARAMETERS["repetition_penalty"]
    assert slider.draw(repetition, 0.5, 5) == ("", "◂", "────")
    assert slider.draw(repetition, 1.0, 5) == ("", "○", "────")
    assert shown_value(repetition, 1.0) == "off"
    assert slider.draw(temperature, 1, 0) == ("", "", "")


def test_looks(snap_compare: Any) -> None:
    """A value too high was typed; its row says what is allowed, and nothing changed."""
    app = Host(SamplingParams(temperature=1.2, top_p=1))
    assert snap_compare(app, terminal_size=(36, 12), press=["down", "up", "9", "9", "enter"])
