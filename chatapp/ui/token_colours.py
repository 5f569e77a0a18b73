"""Colours for tokens: how sure the model was, as steps with printed bounds.

Each scale has six steps. Steps and not a gradient: an eye can match a step with the legend, and a
legend can print its bounds exactly. The first step, where there is nothing to notice, is left
plain, so that the others stand out. Brightness changes steadily from step to step (cividis on dark
themes, YlGnBu on light ones; both are made for colour-blind eyes), so the steps survive in grey,
and without colours each step has a text style of its own.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from operator import neg
from typing import Literal, get_args

from textual.color import Color
from textual.content import Content
from textual.style import Style

from chatapp.chat.inspection import WhatIf
from chatapp.chat.record import TokenRecord

Scale = Literal["probability", "surprisal", "entropy", "rank", "p_end"]
"""What a colour stands for."""

Shown = Scale | Literal["attention"]
"""Attention is no number of a token: it is what another one gave to it."""

SCALES: tuple[Scale, ...] = get_args(Scale)

STEPS = 6
"""How many steps each scale has; step 0 is plain."""


@dataclass(frozen=True, slots=True)
class _Definition:
    """One scale: its name in the legend, and the label of every step."""

    title: str
    bounds: tuple[float, ...]
    """Where steps 1 to 5 begin; they fall where smaller values are the more notable ones."""
    labels: tuple[str, ...]


_DEFINITIONS: dict[Shown, _Definition] = {
    "probability": _Definition(
        "model probability",
        (0.9, 0.5, 0.2, 0.05, 0.01),
        ("≥90 %", "≥50 %", "≥20 %", "≥5 %", "≥1 %", "<1 %"),
    ),
    "surprisal": _Definition(
        "surprisal, bit", (0.5, 1, 2, 4, 8), ("<0.5", "≥0.5", "≥1", "≥2", "≥4", "≥8")
    ),
    "entropy": _Definition(
        "entropy, bit", (0.5, 1, 2, 3, 5), ("<0.5", "≥0.5", "≥1", "≥2", "≥3", "≥5")
    ),
    "rank": _Definition("rank", (2, 3, 6, 11, 51), ("1", "2", "3–5", "6–10", "11–50", ">50")),
    "p_end": _Definition(
        "P(end)",
        (0.0001, 0.001, 0.01, 0.1, 0.5),
        ("<0.01 %", "≥0.01 %", "≥0.1 %", "≥1 %", "≥10 %", "≥50 %"),
    ),
    "attention": _Definition(
        "attention, %",
        (0.005, 0.01, 0.03, 0.1, 0.3),
        ("<0.5", "≥0.5", "≥1", "≥3", "≥10", "≥30"),
    ),
}

# Steps 1 to 5. Cividis: Nuñez, Anderton and Renslow 2018, doi:10.1371/journal.pone.0199239.
_ON_DARK = ("#123570", "#575d6d", "#8a8678", "#c3b369", "#fee838")
# ColorBrewer's YlGnBu, five classes (Cynthia Brewer, colorbrewer2.org).
_ON_LIGHT = ("#ffffcc", "#a1dab4", "#41b6c4", "#2c7fb8", "#253494")
_UNDER_WHITE = ("#123570", "#575d6d", "#253494")
"""On these white letters have the greater contrast, on the others black ones."""

_MARKS: tuple[Style, ...] = (
    Style(),
    Style(italic=True),
    Style(underline=True),
    Style(bold=True),
    Style(bold=True, underline=True),
    Style(bold=True, italic=True, underline=True),
)
"""Without colours. Reverse is left to the token cursor."""


def value_of(record: TokenRecord, scale: Scale) -> float:
    """The number of a token that a scale shows: a probability, bits, or a rank."""
    match scale:
        case "probability":
            return record.model_prob
        case "surprisal":
            return record.surprisal_bits
        case "entropy":
            return record.entropy_bits
        case "rank":
            return record.rank
        case "p_end":
            return record.p_end


def step_of(value: float, scale: Shown) -> int:
    """On which step of a scale a value stands, 0 (nothing to notice) to 5; NaN is 0."""
    if math.isnan(value):
        return 0
    definition = _DEFINITIONS[scale]
    if definition.bounds[0] > definition.bounds[-1]:
        return bisect_left(definition.bounds, -value, key=neg)
    return bisect_right(definition.bounds, value)


@cache
def step_style(step: int, *, dark: bool = True, colour: bool | None = None) -> Style:
    """How a token on a step is drawn.

    Args:
        step: 0 to 5.
        dark: whether the theme is dark. The colours set both ground and letters, so that a wrong
            guess costs beauty and not legibility.
        colour: False draws with bold, italic and underline alone; None asks NO_COLOR.
    """
    if colour is None:
        colour = _colours_wanted
    if not colour:
        return _MARKS[step]
    if step == 0:
        return Style()
    ground = (_ON_DARK if dark else _ON_LIGHT)[step - 1]
    letters = Color.parse("#ffffff" if ground in _UNDER_WHITE else "#000000")
    underline = True if step == 5 else None
    return Style(background=Color.parse(ground), foreground=letters, underline=underline)


def token_style(
    record: TokenRecord, scale: Scale, *, dark: bool = True, colour: bool | None = None
) -> Style:
    """How a token is drawn on a scale; see `step_style` for `dark` and `colour`."""
    return step_style(step_of(value_of(record, scale), scale), dark=dark, colour=colour)


@cache
def legend(scale: Shown, *, dark: bool = True, colour: bool | None = None) -> Content:
    """The scale's name and its six steps, each bound drawn in the style it stands for."""
    definition = _DEFINITIONS[scale]
    parts: list[Content] = [Content(definition.title)]
    for step, label in enumerate(definition.labels):
        style = step_style(step, dark=dark, colour=colour)
        padded = f" {label} "
        parts.append(Content.styled(padded, style) if style != Style() else Content(padded))
    return Content(" ").join(parts)


IMPOSSIBLE, DIFFERS = "×", "≠"
"""Behind a token: it could not be drawn; another one would be the most probable."""


@dataclass(frozen=True, slots=True)
class Look:
    """How the tokens of one message are drawn, in place of the scale."""

    styles: Sequence[Style]
    """By token."""
    signs: tuple[str, ...] = ()
    """By token; empty for none."""
    tokens: tuple[bytes, ...] = ()
    """What it is made of, for a message whose tokens are not known otherwise."""

    def style(self, index: int) -> Style:
        """The style of a token; tokens beyond the known ones are plain."""
        return self.styles[index] if 0 <= index < len(self.styles) else Style()


def what_if_look(result: WhatIf, *, dark: bool) -> Look:
    """A reply under other settings, by the final probability of its tokens."""
    return Look(
        tuple(step_style(step_of(one.prob, "probability"), dark=dark) for one in result.tokens),
        tuple(
            IMPOSSIBLE if one.impossible else DIFFERS if one.differs else ""
            for one in result.tokens
        ),
    )


def with_sign(token: bytes, sign: str) -> bytes:
    """A token's bytes with a sign behind what is drawn of its first row."""
    head, newline, tail = token.partition(b"\n")
    return head + sign.encode() + newline + tail


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


_colours_wanted = not os.environ.get("NO_COLOR")
"""Read at import: Textual takes NO_COLOR out of the environment when the program starts."""
