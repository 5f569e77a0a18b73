"""Small drawings made of characters."""

from __future__ import annotations

from textual.content import Content

MUTED = "$foreground 60%"
"""How what matters less is drawn; `$text-muted` means nothing inside of Content."""

_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")


def bar(fraction: float, width: int) -> Content:
    """A bar filled to a fraction between 0 and 1, exact to an eighth of a cell."""
    eighths = round(min(max(fraction, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    filled = "█" * full + _EIGHTHS[rest]
    empty = "·" * (width - len(filled))
    return Content.styled(filled, "$accent") + Content.styled(empty, MUTED)
