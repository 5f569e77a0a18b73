"""Pictures as SVG: the heat map of attention, the map of words, the KV cache measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from chatapp.chat.numbers import decimal, percent
from chatapp.chat.text import sanitise
from chatapp.chat.xray import Attention, CacheRun, EmbeddingMap
from chatapp.explain.cells import fit_token

_INK, _PAPER, _BLUE, _RED = "#1b1f24", "#ffffff", "#0b5fbf", "#c2410c"
_CELL = 18
_MARGIN = 120


def heat_map(found: Attention) -> str:
    """All tokens against all, the darker the more; every cell says its share to a pointer."""
    names = [fit_token(piece.bytes, 14).strip() for piece in found.tokens]
    side = _CELL * len(names)
    marks: list[str] = []
    for place, row in enumerate(found.rows):
        y = _MARGIN + place * _CELL
        marks.append(_text(_MARGIN - 6, y + 13, names[place], "end"))
        x = _MARGIN + place * _CELL + 13
        marks.append(_text(x, _MARGIN - 6, names[place], "start", f"rotate(-60 {x} {_MARGIN - 6})"))
        for other, share in enumerate(row):
            told = f"{names[place]} → {names[other]}: {percent(share)}"
            marks.append(
                f'<rect x="{_MARGIN + other * _CELL}" y="{y}" width="{_CELL}" height="{_CELL}"'
                f' fill="{_BLUE}" fill-opacity="{share:.4f}"><title>{escape(told)}</title></rect>'
            )
    heads = "mean of the heads" if found.head is None else f"head {found.head}"
    title = f"Attention, layer {found.layer}, {heads}"
    return _picture(_MARGIN + side + 90, _MARGIN + side + 20, title, marks)


def word_map(found: EmbeddingMap) -> str:
    """Words as points with their names."""
    width, height, edge = 900, 640, 70
    xs, ys = [one.x for one in found.points], [one.y for one in found.points]
    marks: list[str] = []
    for point in found.points:
        x = _scaled(point.x, xs, edge, width - edge - 60)
        y = _scaled(-point.y, [-one for one in ys], edge, height - edge)
        marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{_BLUE}"/>')
        marks.append(_text(x + 8, y + 4, sanitise(point.text)))
    title = "Words by their input embeddings, t-SNE"
    if found.method == "pca":
        shares = ", ".join(percent(share) for share in found.explained)
        title = f"Words by their input embeddings, principal components ({shares})"
    return _picture(width, height, title, marks)


def cache_run(found: CacheRun) -> str:
    """Seconds against tokens, with and without the cache."""
    width, height, edge = 720, 440, 70
    lengths = [float(point.tokens) for point in found.points]
    times = [time for point in found.points for time in (point.seconds_with, point.seconds_without)]
    marks: list[str] = []
    for name, colour, series in (
        ("with the KV cache", _BLUE, [point.seconds_with for point in found.points]),
        ("without", _RED, [point.seconds_without for point in found.points]),
    ):
        places = [
            (
                _scaled(length, [0.0, *lengths], edge, width - edge),
                _scaled(-seconds, [0.0, *(-one for one in times)], edge, height - edge),
            )
            for length, seconds in zip(lengths, series, strict=True)
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        marks.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (x, y), seconds in zip(places, series, strict=True):
            told = f"{name}: {decimal(seconds)} s"
            marks.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}">'
                f"<title>{escape(told)}</title></circle>"
            )
        if places:
            marks.append(_text(places[-1][0] - 6, places[-1][1] - 8, told, "end"))
    bottom = height - edge
    marks.append(
        f'<path d="M{edge} {edge} V{bottom} H{width - edge}" fill="none" stroke="{_INK}"/>'
    )
    for length in lengths:
        x = _scaled(length, [0.0, *lengths], edge, width - edge)
        marks.append(_text(x, bottom + 18, f"{length:.0f}", "middle"))
    marks.append(_text(width - edge, bottom + 38, "tokens", "end"))
    return _picture(width, height, "Reading a growing text token by token", marks)


def _scaled(value: float, values: Sequence[float], low: float, high: float) -> float:
    least, most = min(values), max(values)
    return (
        low + (value - least) / (most - least) * (high - low) if most > least else (low + high) / 2
    )


def _text(x: float, y: float, text: str, anchor: str = "start", turned: str = "") -> str:
    turn = f' transform="{turned}"' if turned else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_INK}"{turn}>'
        f"{escape(text)}</text>"
    )


def _picture(width: int, height: int, title: str, marks: Iterable[str]) -> str:
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
            f' viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
            f'<rect width="100%" height="100%" fill="{_PAPER}"/>',
            _text(12, 20, title),
            *marks,
            "</svg>",
            "",
        )
    )
