"""Numbers as the screen prints them: one place decides how many digits each kind can bear.

The rule for all of them: a rounded number never says more than the exact one. "100 %" and "0 %"
are printed for exactly 1 and exactly 0; what lies closer to them than the digits can tell is
">99.99 %" or "<0.01 %". Numbers stay apart from their unit by a plain space, and groups of three
digits by a no-break space, so that no line ever ends inside a number.
"""

from __future__ import annotations

import math

NO_BREAK_SPACE = "\u00a0"
"""Between groups of digits. Terminals draw it as wide as a space, and every font has it."""

UNKNOWN = "n/a"
"""What is printed for a number that is none (NaN)."""

_DUST = 1e-6
"""How far outside 0 to 1 a probability may lie by rounding alone (sums of float32)."""


def percent(probability: float) -> str:
    """A probability as a percentage: 85.0 %, 0.31 %, <0.01 %, 100 %.

    Two digits after the point below 1 % and from 99.95 %, one between. A probability outside 0 to
    1 by more than rounding can explain is a fault and is printed as it is, to be seen.
    """
    figure = percent_figure(probability)
    return figure if figure == UNKNOWN else f"{figure} %"


def percent_figure(probability: float) -> str:
    """The same without its unit, for a column whose head says "%"; at most 6 characters."""
    if math.isnan(probability):
        return UNKNOWN
    if -_DUST <= probability <= 0:
        return "0"
    if probability == 1 or 1 < probability <= 1 + _DUST:
        return "100"
    if 0 < probability < 0.0001:
        return "<0.01"
    if 0.9999 < probability < 1:
        return ">99.99"
    value = probability * 100
    if value < 0 or value > 100:
        return f"{value:.1f}"
    two_digits = f"{value:.2f}"
    if (value < 1 and two_digits != "1.00") or value >= 99.95:
        return two_digits
    return f"{value:.1f}"


def tokens(number: int) -> str:
    """So many tokens: "1 token", "1 200 tokens"."""
    return f"{count(number)} token{'' if number == 1 else 's'}"


def percent_pair(first: float, second: float) -> tuple[str, str]:
    """Two probabilities with as many digits as it takes to tell them apart.

    "needed 2.1 %, had 2.1 %" would explain nothing: near neighbours get more digits, up to six
    after the point.
    """
    texts = percent(first), percent(second)
    if texts[0] != texts[1] or first == second:
        return texts
    for digits in range(2, 7):
        texts = f"{first * 100:.{digits}f} %", f"{second * 100:.{digits}f} %"
        if texts[0] != texts[1]:
            break
    return texts


def bits(value: float) -> str:
    """Entropy or surprisal: 1.42 bit, <0.01 bit, 0 bit, ∞ bit."""
    if math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞ bit" if value > 0 else "−∞ bit"
    if value == 0:
        return "0 bit"
    if 0 < value < 0.01:
        return "<0.01 bit"
    return f"{value:.2f} bit" if value < 99.995 else f"{value:.1f} bit"


def decimal(value: float, digits: int = 2) -> str:
    """A plain number such as a logit or a log-probability, with a real minus sign: −1.52."""
    if math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}f}"
    if text.startswith("-"):
        text = text[1:] if float(text) == 0 else f"−{text[1:]}"
    return text


def temperature(value: float) -> str:
    """A temperature as it labels a column: 0.7, 1, 0.73; two digits at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def count(number: int) -> str:
    """A count, in groups of three digits from five digits on: 9073, 49 129."""
    if abs(number) < 10_000:
        return str(number)
    return f"{number:,}".replace(",", NO_BREAK_SPACE)


def rate(tokens_per_second: float) -> str:
    """Speed: 52 tok/s, 7.3 tok/s, 0.05 tok/s."""
    if math.isnan(tokens_per_second):
        return UNKNOWN
    if tokens_per_second >= 9.95:
        return f"{count(round(tokens_per_second))} tok/s"
    digits = 1 if tokens_per_second >= 0.95 else 2
    return f"{tokens_per_second:.{digits}f} tok/s"


_UNITS = ("kB", "MB", "GB", "TB", "PB")


def size(number: int) -> str:
    """Bytes in powers of ten, as disks and downloads are counted: 512 B, 98.4 MB, 1.2 GB."""
    value = float(number)
    unit = "B"
    for larger in _UNITS:
        # 999.95 would be printed as 1000.0.
        if abs(value) < (1000 if unit == "B" else 999.95):
            break
        value, unit = value / 1000, larger
    return f"{number} B" if unit == "B" else f"{value:.1f} {unit}"


def duration(seconds: float) -> str:
    """A span of time: 85 ms, 4.2 s, 42 s, 3 min 05 s, 2 h 04 min."""
    if math.isnan(seconds) or math.isinf(seconds):
        return UNKNOWN
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{count(minutes // 60)} h {minutes % 60:02d} min"
