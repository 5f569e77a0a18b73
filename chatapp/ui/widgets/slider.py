"""The track of a slider: where a value stands on it, and which value a place on it means.

A parameter's bounds are what may be set; its track is what is worth a hand's movement. A value
beyond the track is shown by an arrow at its end, and is reached with the keys or by typing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from chatapp.chat.sampling import Parameter

KNOB, KNOB_OFF, BEYOND, BELOW = "●", "○", "▸", "◂"

_OPEN_ENDED = 1000.0
"""Where the track of a number without an upper bound ends."""


@dataclass(frozen=True, slots=True)
class Track:
    """A part of a parameter's range, laid out on a line."""

    low: float
    high: float
    spacing: Literal["even", "root", "log"] = "even"
    """root gives small values more room, log still more (of 1 + value)."""

    @classmethod
    def of(cls, parameter: Parameter) -> Track:
        """The track of a parameter: one chosen by hand, or its whole range."""
        if parameter.name in _CHOSEN:
            return _CHOSEN[parameter.name]
        if math.isinf(parameter.high):
            return cls(parameter.low, _OPEN_ENDED, "log")
        return cls(parameter.low, parameter.high)

    def fraction(self, value: float) -> float:
        """Where a value stands, 0 at the left end to 1; outside that when it is off the track."""
        bend, _ = _BENDS[self.spacing]
        distance = value - self.low
        return math.copysign(bend(abs(distance)), distance) / bend(self.high - self.low)

    def value(self, fraction: float) -> float:
        """The value at a place between 0 and 1."""
        bend, straighten = _BENDS[self.spacing]
        return self.low + straighten(min(max(fraction, 0.0), 1.0) * bend(self.high - self.low))


_BENDS: Mapping[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "even": (float, float),
    "root": (math.sqrt, lambda bent: bent * bent),
    "log": (math.log1p, math.expm1),
}
"""What makes places on the line of distances from its low end, and distances of places."""
_CHOSEN: Mapping[str, Track] = {
    "temperature": Track(0, 2),
    "dynatemp_range": Track(0, 2),
    "top_k": Track(0, 1000, "log"),
    "min_p": Track(0, 1, "root"),
    "repetition_penalty": Track(1, 2),
    "mirostat_tau": Track(0, 10),
}


def draw(parameter: Parameter, value: float, width: int) -> tuple[str, str, str]:
    """The slider in three parts, `width` cells together: before the knob, the knob, after it."""
    if width < 1:
        return "", "", ""
    fraction = Track.of(parameter).fraction(value)
    if fraction > 1:
        return "━" * (width - 1), BEYOND, ""
    if fraction < 0:
        return "", BELOW, "─" * (width - 1)
    place = round(fraction * (width - 1))
    knob = KNOB_OFF if value == parameter.off else KNOB
    return "━" * place, knob, "─" * (width - 1 - place)


def value_at(parameter: Parameter, place: int, width: int) -> float | int:
    """The value a cell of the slider means, on the parameter's grid of steps."""
    value = Track.of(parameter).value(place / (width - 1) if width > 1 else 0.0)
    return parameter.clamp(round(value / parameter.step) * parameter.step)
