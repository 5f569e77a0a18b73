"""Plots of characters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatapp.explain.plots import bar, scatter, shade, signed_bar

COORDINATES = st.floats(-1e6, 1e6)


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_is_never_shown_as_less(one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert len(bar(less, 20)) <= len(bar(more, 20)) <= 20
    order = " ·░▒▓█"
    assert order.index(shade(less)) <= order.index(shade(more))


@given(st.floats(-10, 10), st.floats(0, 10))
def test_a_signed_bar_is_as_wide_as_asked(value: float, most: float) -> None:
    drawn = signed_bar(value, most, 21)
    assert len(drawn) == 21 and drawn[10] == "│"
    assert not (value > 0 and "▒" in drawn) and not (value < 0 and "█" in drawn)


@given(st.lists(st.tuples(COORDINATES, COORDINATES, st.text("abc", max_size=9)), min_size=1))
def test_every_point_is_drawn_and_no_label_overwrites_one(
    points: list[tuple[float, float, str]],
) -> None:
    rows, places = scatter(points, 60, 12)
    assert len(rows) == 12 and all(len(row) <= 60 for row in rows)
    for column, row in places.values():
        assert rows[row][column] == "•"
    for (one, (x, y, _)), (two, (x2, y2, _)) in zip(
        enumerate(points), enumerate(points[1:], 1), strict=False
    ):
        if x < x2:
            assert places[one][0] <= places[two][0]
        if y < y2:
            assert places[one][1] >= places[two][1]
