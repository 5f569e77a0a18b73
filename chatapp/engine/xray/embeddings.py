"""What stands near a token: neighbours, arithmetic, texts side by side, a map of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from chatapp.chat.errors import EngineError
from chatapp.chat.xray import (
    Analogy,
    AnalogyResult,
    EmbeddingMap,
    MapPoint,
    Matrix,
    Measure,
    Neighbors,
    ScoredToken,
    Similarity,
    Term,
)
from chatapp.engine.runtimes.tokenizer import ModelTokenizer
from chatapp.engine.xray.weights import Weights
from chatapp.engine.xray.words import find_token, read_sum

Floats = npt.NDArray[np.float64]

_ROWS = 8192
"""How many embeddings are made float64 at a time."""


def neighbors(
    weights: Weights,
    tokenizer: ModelTokenizer,
    word: str,
    *,
    matrix: Matrix = "input",
    by: Measure = "cosine",
    count: int = 10,
) -> Neighbors:
    """The tokens nearest to a word's. Raises EngineError for a word that is no one token."""
    token_id, spaced = find_token(tokenizer, word)
    table = weights.input if matrix == "input" else weights.output
    row = _rows(table, [token_id])[0]
    scores = _scores(table, row, by)
    scores[token_id] = -np.inf
    best = np.argsort(-scores, kind="stable")[: min(count, len(scores) - 1)]
    pieces = tokenizer.pieces([token_id, *(int(id_) for id_ in best if id_ < tokenizer.vocab_size)])
    found = [ScoredToken(one, float(scores[one.id])) for one in pieces[1:]]
    return Neighbors(pieces[0], spaced, matrix, by, tuple(found), tuple(map(float, row)))


def analogy(
    weights: Weights, tokenizer: ModelTokenizer, expression: str, *, count: int = 10
) -> Analogy:
    """What is nearest to a sum like "woman - man + uncle" of raw input embeddings, by cosine.

    The terms themselves are ranked, too, and marked (Mikolov et al. 2013 leave them out).

    Raises:
        EngineError: a term is no one token, or it is no sum.
    """
    found: list[tuple[int, int, bool]] = []
    for sign, word in read_sum(expression):
        found.append((sign, *find_token(tokenizer, word)))
    ids = [token_id for _, token_id, _ in found]
    rows = _rows(weights.input, ids)
    target = sum(sign * row for (sign, _, _), row in zip(found, rows, strict=True))
    scores = _scores(weights.input, np.asarray(target), "cosine")
    best = [int(one) for one in np.argsort(-scores, kind="stable")[:count]]
    listed = [*best, *(one for one in dict.fromkeys(ids) if one not in best)]
    pieces = {one.id: one for one in tokenizer.pieces([*listed, *ids])}
    results = [
        AnalogyResult(
            rank=1 + int((scores > scores[one]).sum()),
            piece=pieces[one],
            score=float(scores[one]),
            is_input=one in ids,
        )
        for one in listed
    ]
    terms = [Term(sign, pieces[token_id], spaced) for sign, token_id, spaced in found]
    return Analogy(tuple(terms), tuple(results))


@torch.inference_mode()
def similarity(weights: Weights, one: Sequence[int], other: Sequence[int]) -> Similarity:
    """How alike two texts are, given as ids. Raises EngineError where one is empty."""
    if not one or not other:
        raise EngineError("there is nothing to compare; one of the texts is empty")
    means, states = [], []
    for ids in (one, other):
        means.append(_rows(weights.input, ids).mean(axis=0))
        tokens = torch.tensor([list(ids)], device=weights.input.device)
        output = weights.model(tokens, use_cache=False, output_hidden_states=True, logits_to_keep=1)
        states.append(output.hidden_states[-1][0].double().mean(dim=0).cpu().numpy())
    return Similarity(_cosine(means[0], means[1]), _cosine(states[0], states[1]))


def embedding_map(
    weights: Weights, tokenizer: ModelTokenizer, words: Sequence[str], method: str = "pca"
) -> EmbeddingMap:
    """Some words in two dimensions.

    Args:
        weights: whose input embeddings are shown.
        tokenizer: its tokenizer.
        words: three or more, each one token.
        method: pca, or tsne (van der Maaten and Hinton 2008; scikit-learn has to be there).

    Raises:
        EngineError: too few words, a word that is no one token, or a method that isn't there.
    """
    if len(words) < 3:
        raise EngineError("a map needs at least three words")
    ids = [find_token(tokenizer, word)[0] for word in words]
    rows = _rows(weights.input, ids)
    centred = rows - rows.mean(axis=0)
    explained: tuple[float, ...] = ()
    if method == "pca":
        left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
        places = left[:, :2] * sizes[:2]
        total = float((sizes**2).sum()) or 1.0
        explained = tuple(float(size**2 / total) for size in sizes[:2])
    elif method == "tsne":
        places = _tsne(centred)
    else:
        raise EngineError(f"a map is drawn by pca or tsne, not {method!r}")
    pieces = tokenizer.pieces(ids)
    points = [
        MapPoint(word, piece, float(x), float(y))
        for word, piece, (x, y) in zip(words, pieces, places, strict=True)
    ]
    return EmbeddingMap("pca" if method == "pca" else "tsne", explained, tuple(points))


def _tsne(rows: Floats) -> Floats:
    try:
        from sklearn.manifold import TSNE  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise EngineError(
            "t-SNE needs scikit-learn, which isn't installed; pip install 'chatapp[plots]' brings"
            " it, or take pca"
        ) from None
    perplexity = min(30.0, max(1.0, (len(rows) - 1) / 3))
    places: Floats = TSNE(perplexity=perplexity, random_state=0).fit_transform(rows)
    return places


def _rows(table: Tensor, ids: Sequence[int]) -> Floats:
    rows: Floats = table[list(ids)].double().cpu().numpy()
    return rows


def _scores(table: Tensor, target: Floats, by: Measure) -> Floats:
    """Cosine or dot of every row with a vector, in float64."""
    parts: list[Floats] = []
    for start in range(0, len(table), _ROWS):
        rows: Floats = table[start : start + _ROWS].double().cpu().numpy()
        dots = rows @ target
        if by == "cosine":
            sizes = np.linalg.norm(rows, axis=1) * np.linalg.norm(target)
            dots = np.divide(dots, sizes, out=np.full_like(dots, -1.0), where=sizes > 0)
        parts.append(dots)
    return np.concatenate(parts)


def _cosine(one: Floats, other: Floats) -> float:
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / size if size else 0.0
