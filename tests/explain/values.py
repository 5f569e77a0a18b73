"""Answers as an engine gives them, of any size and with any token, for what shows them."""

from __future__ import annotations

import numpy as np

from chatapp.chat import xray
from chatapp.chat.prompt import TokenPiece

NASTY = (
    b"The",
    b" cat",
    b"\x1b[31m",
    b"\xff",
    "\u202e".encode(),
    "漢字".encode(),
    b"\n",
    b" " * 40,
)


def piece(number: int) -> TokenPiece:
    data = NASTY[number % len(NASTY)]
    return TokenPiece(number, data.decode("utf-8", "backslashreplace"), data, number == 2)


def pieces(count: int) -> tuple[TokenPiece, ...]:
    return tuple(map(piece, range(count)))


def rows(count: int) -> tuple[tuple[float, ...], ...]:
    """Shares of 1 for each token up to itself."""
    draws = np.random.default_rng(0)
    return tuple(
        tuple(float(share) for share in draws.dirichlet(np.ones(length)))
        for length in range(1, count + 1)
    )


def attention(count: int, *, every: bool = False) -> xray.Attention:
    found = rows(count)
    return xray.Attention(pieces(count), count - 1, 3, None, found if every else found[-1:])


def lens(count: int) -> xray.Lens:
    layers = tuple(
        xray.LensLayer(
            layer,
            tuple(xray.ScoredToken(piece(number), 1 / (2 + number)) for number in range(5)),
            float(count - 1 - layer),
            1 if layer >= count - 2 else 40_000,
        )
        for layer in range(count)
    )
    return xray.Lens(pieces(3), 1, layers)


def attribution(layers: int) -> xray.Attribution:
    parts = [xray.AttributionPart(-1, "embedding", None, 0.25)]
    for layer in range(layers):
        parts.append(xray.AttributionPart(layer, "attention", None, -1.5 * layer))
        parts.append(xray.AttributionPart(layer, "mlp", None, 2.0))
    total = sum(part.value for part in parts)
    return xray.Attribution(pieces(3), 1, piece(4), tuple(parts), total, total)


def word_map(count: int) -> xray.EmbeddingMap:
    places = np.random.default_rng(1).normal(size=(count, 2))
    points = tuple(
        xray.MapPoint(f"word{number}\x1b", piece(number), float(x), float(y))
        for number, (x, y) in enumerate(places)
    )
    return xray.EmbeddingMap("pca", (0.5, 0.25), points)


def cache_run() -> xray.CacheRun:
    lengths = (8, 16, 32)
    return xray.CacheRun(
        1000,
        tuple(xray.CachePoint(n, n * 0.01, n * n * 0.01, n, n * (n + 1) // 2) for n in lengths),
    )


def anatomy() -> xray.Anatomy:
    return xray.Anatomy(
        architecture="llama\x1b",
        parameters=1_234_567,
        tied=True,
        layers=2,
        heads=4,
        kv_heads=2,
        width=32,
        head_width=8,
        mlp_width=64,
        vocabulary=259,
        context=512,
        position="rotary",
        activation="SiLU",
        norm="RMSNorm",
        weight_format="F32",
        parts=(xray.ModelPart("mlp", 1_234_567, 4_938_268),),
        kv_bytes_per_token=64,
        operations_per_token=2_469_134,
        bytes_per_token=4_938_268,
        memory_bytes_per_second=2e10,
    )


def positions() -> xray.Positions:
    falloff = ((0, 1.0), (1, -0.5), (8192, 0.1))
    return xray.Positions("rotary", 7, tuple(map(float, range(32))), (6.28,) * 32, falloff)


def neighbors() -> xray.Neighbors:
    near = tuple(xray.ScoredToken(piece(number), 0.9 - number / 10) for number in range(1, 8))
    return xray.Neighbors(piece(0), True, "input", "cosine", near)


def analogy() -> xray.Analogy:
    terms = (xray.Term(1, piece(0), True), xray.Term(-1, piece(1), False))
    results = tuple(
        xray.AnalogyResult(number + 1, piece(number), 0.5, number == 0) for number in range(8)
    )
    return xray.Analogy(terms, results)


def head_profiles(layers: int, heads: int) -> tuple[xray.HeadProfile, ...]:
    return tuple(
        xray.HeadProfile(layer, head, 1.5, layer / layers, head / heads, 0.0, 1.0)
        for layer in range(layers)
        for head in range(heads)
    )
