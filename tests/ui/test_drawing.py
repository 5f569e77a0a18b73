"""Texts that are shown anew get the rows that they need."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult
from textual.content import Content
from textual.widgets import Static

from chatapp.ui.drawing import renew


class Line(App[None]):
    CSS = "Static { width: 10; height: auto; }"

    def compose(self) -> ComposeResult:
        yield Static(Content("one row"), markup=False)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("other", 1),
        ("two\nrows", 2),
        ("long enough to wrap", 3),
        ("wide 宽宽宽宽", 2),  # nine characters in thirteen cells
        ("", 1),
    ],
)
async def test_a_text_gets_as_many_rows_as_it_needs(text: str, rows: int) -> None:
    app = Line()
    async with app.run_test() as pilot:
        line = app.query_one(Static)
        assert line.size.height == 1
        renew(line, Content(text))
        await pilot.pause()
        assert line.size.height == rows
        assert str(line.content) == text
        renew(line, Content("one row"))
        await pilot.pause()
        assert line.size.height == 1
