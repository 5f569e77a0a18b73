"""Plots made of characters: bars, a heat map, points with labels. Colours are the screen's."""

from __future__ import annotations

import math
from collections.abc import Sequence

_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_SHADES = " ·░▒▓█"
_SHADES_AT = (0.005, 0.05, 0.2, 0.4, 0.7)
"""The least share of each shade but the first."""
SHADES_TOLD = "· from 0.5 %, ░ 5 %, ▒ 20 %, ▓ 40 %, █ 70 %"


def bar(fraction: float, width: int) -> str:
    """A bar of `width` cells at 1, exact to an eighth of a cell, without its empty part."""
    eighths = round(min(max(fraction, 0.0), 1.0) * width * 8) if fraction == fraction else 0
    full, rest = divmod(eighths, 8)
    return "█" * full + _EIGHTHS[rest]


def signed_bar(value: float, most: float, width: int) -> str:
    """A bar of `width` cells in all, to the left of │ for what is negative, to the right else."""
    half = (width - 1) // 2
    length = round(half * min(1.0, abs(value) / most)) if most > 0 else 0
    if value < 0:
        return ("▒" * length).rjust(half) + "│" + " " * half
    return " " * half + "│" + ("█" * length).ljust(half)


def shade(share: float) -> str:
    """One cell for a share of 0 to 1; small shares can be told apart, too."""
    return _SHADES[sum(share >= least for least in _SHADES_AT)]


def scatter(
    points: Sequence[tuple[float, float, str]], width: int, height: int
) -> tuple[list[str], dict[int, tuple[int, int]]]:
    """Labelled points, in as many rows; a label that finds no room is left out, its point not.

    Args:
        points: x to the right, y upwards, and the label.
        width: columns.
        height: rows.

    Returns:
        The rows, and the column and row of each point.
    """
    grid = [[" "] * width for _ in range(height)]
    xs, ys = [x for x, _, _ in points], [y for _, y, _ in points]

    def place(value: float, low: float, high: float, cells: int) -> int:
        return round((value - low) / (high - low) * (cells - 1)) if high > low else cells // 2

    places = {
        number: (place(x, min(xs), max(xs), width), height - 1 - place(y, min(ys), max(ys), height))
        for number, (x, y, _) in enumerate(points)
    }
    for column, row in places.values():
        grid[row][column] = "•"
    for number, (_, _, text) in enumerate(points):
        column, row = places[number]
        text = text[: max(0, width - 2)]
        for start in (column + 2, column - 1 - len(text)):
            cells = range(start, start + len(text))
            around = range(max(0, start - 1), min(width, start + len(text) + 1))
            if start < 0 or cells.stop > width or any(grid[row][one] != " " for one in cells):
                continue
            if any(grid[row][one] not in " •" for one in around):
                continue
            grid[row][start : start + len(text)] = text
            break
    return ["".join(row).rstrip() for row in grid], places


def rounded(value: float) -> str:
    """About three digits."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
