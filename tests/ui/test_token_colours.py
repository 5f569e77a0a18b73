"""The colours of tokens: right steps, legible on every ground, and not by colour alone."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.color import Color
from textual.style import Style

from chatapp.ui.token_colours import (
    SCALES,
    STEPS,
    Scale,
    legend,
    step_of,
    step_style,
    token_style,
    value_of,
)
from tests.ui.records import COLOURS, record


@pytest.mark.parametrize(
    ("scale", "value", "step"),
    [
        ("probability", 1.0, 0),
        ("probability", 0.9, 0),
        ("probability", 0.8999, 1),
        ("probability", 0.01, 4),
        ("probability", 0.0, 5),
        ("surprisal", 0.0, 0),
        ("surprisal", 8.0, 5),
        ("entropy", 0.5, 1),
        ("entropy", 15.0, 5),
        ("rank", 1, 0),
        ("rank", 5, 2),
        ("rank", 50, 4),
        ("rank", 51, 5),
        ("p_end", 0.0001, 1),
        ("p_end", 0.9, 5),
        ("entropy", math.nan, 0),
    ],
)
def test_steps_begin_where_the_legend_says(scale: Scale, value: float, step: int) -> None:
    assert step_of(value, scale) == step


@given(st.sampled_from(SCALES), st.floats(0, 1e6), st.floats(0, 1e6))
def test_steps_never_turn_back(scale: Scale, first: float, second: float) -> None:
    low, high = sorted((first, second))
    steps = step_of(low, scale), step_of(high, scale)
    assert steps == tuple(sorted(steps, reverse=scale == "probability"))


def test_each_scale_reads_its_own_number() -> None:
    token = replace(record(COLOURS, chosen=1), p_end=0.25)
    assert value_of(token, "probability") == pytest.approx(0.201)
    assert value_of(token, "surprisal") == pytest.approx(-math.log2(0.201))
    assert value_of(token, "entropy") == token.entropy_bits
    assert value_of(token, "rank") == 2
    assert value_of(token, "p_end") == 0.25
    assert token_style(token, "rank", colour=True) == step_style(1, colour=True)


@pytest.mark.parametrize("dark", [True, False])
def test_colours_are_legible_and_stay_apart_in_grey(dark: bool) -> None:
    styles = [step_style(step, dark=dark, colour=True) for step in range(1, STEPS)]
    grounds = [style.background for style in styles]
    for style in styles:
        assert style.background is not None
        assert style.foreground is not None
        assert contrast(style.background, style.foreground) >= 4.5
    for lighter, darker in pairwise(reversed(grounds) if dark else grounds):
        assert lighter is not None
        assert darker is not None
        assert lighter.brightness > darker.brightness + 0.05


def contrast(first: Color, second: Color) -> float:
    """The contrast ratio of two colours, 1 to 21 (WCAG 2.1, "contrast ratio")."""
    bright, dim = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def _luminance(colour: Color) -> float:
    """Relative luminance, 0 to 1 (WCAG 2.1)."""
    parts = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in colour.normalized
    ]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_without_colours_every_step_has_a_look_of_its_own() -> None:
    styles = [step_style(step, colour=False) for step in range(STEPS)]
    assert len(set(styles)) == STEPS
    for style in styles:
        assert style.background is None
        assert style.foreground is None
        assert not style.reverse, "the token cursor is drawn in reverse"


def test_what_is_nothing_to_notice_is_plain() -> None:
    assert step_style(0, colour=True) == Style()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("colour", [True, False])
def test_the_legend_names_the_scale_and_shows_every_step(scale: Scale, colour: bool) -> None:
    content = legend(scale, colour=colour)
    used = {span.style for span in content.spans}
    assert used == {step_style(step, colour=colour) for step in range(1, STEPS)}
    title = {"probability": "model probability", "p_end": "P(end)"}.get(scale, scale)
    assert content.plain.startswith(title)
    assert content.cell_length <= 76, "it stands on one line of the smallest screen"
