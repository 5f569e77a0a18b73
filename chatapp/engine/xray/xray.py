"""Every question about the inside of the loaded model, in one place."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import IsCancelled, LoadOptions, ModelSource, Progress, Report
from chatapp.chat.prompt import TokenPiece
from chatapp.chat.xray import (
    Analogy,
    AnalogyResult,
    Anatomy,
    Attention,
    Attribution,
    CachePoint,
    CacheRun,
    EmbeddingMap,
    HeadProfile,
    Lens,
    MapPoint,
    Matrix,
    Measure,
    Neighbors,
    Passage,
    Positions,
    ScoredToken,
    Similarity,
    Term,
)
from chatapp.engine.runtimes.base import CannotFork, Runtime, common_prefix
from chatapp.engine.xray import anatomy
from chatapp.engine.xray.words import find_token, read_sum

Floats = npt.NDArray[np.float64]

_ROWS = 8192
"""How many embeddings are made float64 at a time."""
_CACHE_LENGTHS = (8, 16, 32, 64, 128)
_PIECE = 512
"""Tokens read at once: the more, the quicker, and the later one hears that nobody waits."""


class XRay:
    """Looks into the model that a runtime runs; the float32 weights come when first needed.

    What needs torch is imported behind that: the import takes seconds, and what is wrong with a
    question is said before.
    """

    def __init__(self, runtime: Runtime, source: ModelSource, prepared: Path) -> None:
        """Nothing is loaded yet; converted models are kept in the folder `prepared`."""
        self._runtime = runtime
        self._tokenizer = runtime.tokenizer
        self._source = source
        self._prepared = prepared
        self._weights: Any = None
        self._exact: Any = None  # the runtime whose weights they are
        self._read: Any = None  # its sequence: the text that was looked at last

    def anatomy(self) -> Anatomy:
        """What the model is made of. Raises EngineError."""
        return anatomy.anatomy(self._source, self._runtime.facts)

    def neighbors(
        self, word: str, matrix: Matrix, by: Measure, count: int, on_progress: Report
    ) -> Neighbors:
        """The tokens nearest to a word's. Raises EngineError for a word that is no one token."""
        tokenizer = self._tokenizer
        token_id, spaced = find_token(tokenizer, word)  # said before anything is loaded
        weights = self._loaded(on_progress)
        table = weights.input if matrix == "input" else weights.output
        row = _rows(table, [token_id])[0]
        scores = _scores(table, row, by)
        scores[token_id] = -np.inf
        best = np.argsort(-scores, kind="stable")[: min(count, len(scores) - 1)]
        pieces = tokenizer.pieces(
            [token_id, *(int(one) for one in best if one < tokenizer.vocab_size)]
        )
        found = [ScoredToken(one, float(scores[one.id])) for one in pieces[1:]]
        return Neighbors(pieces[0], spaced, matrix, by, tuple(found), tuple(map(float, row)))

    def analogy(self, expression: str, count: int, on_progress: Report) -> Analogy:
        """What is nearest to a sum like "woman - man + uncle" of raw input embeddings, by cosine.

        The terms themselves are ranked, too, and marked (Mikolov et al. 2013 leave them out).
        Raises EngineError: a term is no one token, or it is no sum.
        """
        tokenizer = self._tokenizer
        found = [(sign, *find_token(tokenizer, word)) for sign, word in read_sum(expression)]
        table = self._loaded(on_progress).input
        ids = [token_id for _, token_id, _ in found]
        target = sum(sign * row for (sign, _, _), row in zip(found, _rows(table, ids), strict=True))
        scores = _scores(table, np.asarray(target), "cosine")
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

    def similarity(self, one: Passage, other: Passage, on_progress: Report) -> Similarity:
        """How alike two texts are. Raises EngineError."""
        texts = self._ids(one), self._ids(other)
        table = self._loaded(on_progress).input
        means = [_rows(table, ids).mean(axis=0) for ids in texts]
        states = [
            self._exact.run([ids], None, 0, states=True)[2][0].double().mean(dim=0).cpu().numpy()
            for ids in texts
        ]
        return Similarity(_cosine(*means), _cosine(*states))

    def embedding_map(self, words: Sequence[str], method: str, on_progress: Report) -> EmbeddingMap:
        """Three words or more in two dimensions, by their input embeddings.

        `method` is pca, or tsne (van der Maaten and Hinton 2008; scikit-learn has to be there).
        Raises EngineError: too few words, a word that is no one token, or no such method.
        """
        ids = [find_token(self._tokenizer, word)[0] for word in words]
        table = self._loaded(on_progress).input
        if len(words) < 3:
            raise EngineError("a map needs at least three words")
        rows = _rows(table, ids)
        centred = rows - rows.mean(axis=0)
        explained: tuple[float, ...] = ()
        kind: Literal["pca", "tsne"] = "pca"
        if method == "pca":
            left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
            places = left[:, :2] * sizes[:2]
            total = float((sizes**2).sum()) or 1.0
            explained = tuple(float(size**2 / total) for size in sizes[:2])
        elif method == "tsne":
            kind, places = "tsne", _tsne(centred)
        else:
            raise EngineError(f"a map is drawn by pca or tsne, not {method!r}")
        points = [
            MapPoint(word, piece, float(x), float(y))
            for word, piece, (x, y) in zip(words, self._tokenizer.pieces(ids), places, strict=True)
        ]
        return EmbeddingMap(kind, explained, tuple(points))

    def attention(
        self,
        passage: Passage,
        token: int,
        layer: int,
        head: int | None,
        every_row: bool,
        on_progress: Report,
    ) -> Attention:
        """How much one token, or every token, attends to each. Raises EngineError."""
        ids = self._ids(passage)
        place = len(ids) - 1 if every_row else _in_range("token", token, len(ids), "the text's")
        facts, which = self._runtime.facts, head  # said before anything is loaded
        number = _in_range("layer", layer, facts.layers)
        if head is not None and facts.heads:
            which = _in_range("head", head, facts.heads)
        weights = self._loaded(on_progress)
        from chatapp.engine.xray.attention import every_row as all_rows
        from chatapp.engine.xray.attention import last_row

        if not weights.head_count:
            raise weights.unknown("its layers have no attention")
        if every_row:
            chosen = all_rows(weights, ids)[number]
        else:
            before = self._before(ids[:place], on_progress)
            chosen = last_row(weights, ids[: place + 1], before)[number]
        rows = chosen.mean(dim=0) if which is None else chosen[which]
        return Attention(
            self._tokenizer.pieces(ids),
            place,
            number,
            which,
            tuple(tuple(float(one) for one in row) for row in rows),
        )

    def head_profiles(
        self, passage: Passage, token: int, on_progress: Report
    ) -> tuple[HeadProfile, ...]:
        """What every head does at one token. Raises EngineError."""
        ids = self._ids(passage)
        upto = ids[: _in_range("token", token, len(ids), "the text's") + 1]
        weights = self._loaded(on_progress)
        from chatapp.engine.xray.attention import last_row, profiles

        rows = last_row(weights, upto, self._before(upto[:-1], on_progress))
        return tuple(profiles(rows, upto))

    def lens(self, passage: Passage, token: int, count: int, on_progress: Report) -> Lens:
        """The prediction behind a token after every layer. Raises EngineError."""
        ids = self._ids(passage)
        place = _in_range("token", token, len(ids), "the text's")
        weights, before = self._loaded(on_progress), self._before(ids[:place], on_progress)
        from chatapp.engine.xray.layers import lens

        layers = lens(weights, self._tokenizer, ids[place], before, count)
        return Lens(self._tokenizer.pieces(ids), place, tuple(layers))

    def attribution(
        self,
        passage: Passage,
        token: int,
        target: str | None,
        by_head: bool,
        on_progress: Report,
    ) -> Attribution:
        """What each part adds to the logit of a target behind a token.

        None takes the token that follows, or what the model would choose at the end of the text.
        Raises EngineError.
        """
        ids = self._ids(passage)
        place = _in_range("token", token, len(ids), "the text's")
        chosen = None if target is None else find_token(self._tokenizer, target)[0]
        weights = self._loaded(on_progress)
        from chatapp.engine.xray.layers import attribution

        if chosen is None and place + 1 < len(ids):
            chosen = ids[place + 1]
        before = self._before(ids[:place], on_progress)
        chosen, parts, logit = attribution(weights, ids[place], before, chosen, by_head=by_head)
        return Attribution(
            self._tokenizer.pieces(ids),
            place,
            self._tokenizer.pieces([chosen])[0],
            tuple(parts),
            sum(part.value for part in parts),
            logit,
        )

    def positions(self, position: int, on_progress: Report) -> Positions:
        """How the model knows that a token stands at a position. Raises EngineError."""
        weights = self._loaded(on_progress)
        from chatapp.engine.xray.positions import positions

        return positions(weights, position)

    def cache_run(self, passage: Passage, on_progress: Report, cancelled: IsCancelled) -> CacheRun:
        """Read a growing text with and without what is kept of it, on the runtime that writes.

        Raises:
            EngineError: the text is too short, or the model failed.
        """
        ids = self._ids(passage)
        lengths = [length for length in _CACHE_LENGTHS if length <= len(ids)]
        if not lengths:
            raise EngineError(f"the text has {len(ids)} tokens; give one of at least 8")
        points: list[CachePoint] = []
        longest = lengths[-1]
        passes = longest * (longest + 1) // 2
        kept, anew = [0.0], 0.0
        with closing(self._runtime.sequence()) as sequence:
            sequence.read(ids[:8])  # the first reading brings the weights to memory
            sequence.crop(0)
            for token_id in ids[:longest]:
                began = time.perf_counter()
                sequence.read([token_id])
                kept.append(kept[-1] + time.perf_counter() - began)
            for end in range(1, longest + 1):
                if cancelled():
                    break
                on_progress(Progress("measuring", end * (end - 1) // 2, passes, "steps"))
                began = time.perf_counter()
                sequence.crop(0)
                sequence.read(ids[:end])
                anew += time.perf_counter() - began
                if end in lengths:
                    points.append(CachePoint(end, kept[end], anew, end, end * (end + 1) // 2))
        return CacheRun(self.anatomy().kv_bytes_per_token, tuple(points))

    def passage(self, passage: Passage) -> tuple[TokenPiece, ...]:
        """The tokens of a passage, with what the model expects before any text."""
        return self._tokenizer.pieces(self._ids(passage))

    def _ids(self, passage: Passage) -> tuple[int, ...]:
        """Raises EngineError where there are none, more than fit, or unknown ones."""
        ids = passage.ids
        if ids is None:
            tokenizer = self._tokenizer
            text = tokenizer.encode_text(passage.text)
            if not text:
                raise EngineError("there is no text to look at; it has no tokens")
            ids = (*tokenizer.prefix_ids, *text)
        if not ids:
            raise EngineError("there is no text to look at; it has no tokens")
        if any(not 0 <= one < self._tokenizer.vocab_size for one in ids):
            raise EngineError("the text has token ids that this model doesn't know")
        most = self._runtime.facts.context_length
        if len(ids) > most:
            raise EngineError(f"the text has {len(ids)} tokens; the model reads at most {most}")
        return ids

    def _loaded(self, on_progress: Report) -> Any:
        """The weights, loaded now where they aren't yet. Raises EngineError."""
        if self._weights is None:
            runtime = self._runtime
            exact = (
                runtime.facts.runtime == "transformers"
                and runtime.facts.dtype == "float32"
                and runtime.facts.device == "cpu"
            )
            if not exact:
                on_progress(Progress("loading the float32 weights to look inside", 0, 0))
            # Behind what says so: torch and transformers take some seconds to be imported.
            from chatapp.engine.runtimes.transformers import TransformersRuntime, load_transformers
            from chatapp.engine.xray.weights import Weights

            if not exact:
                options = LoadOptions(runtime="transformers", dtype="float32", device="cpu")
                runtime = load_transformers(self._source, options, self._prepared, on_progress)
            assert isinstance(runtime, TransformersRuntime)
            self._weights = Weights(runtime.model, runtime.facts.name, runtime.cache_argument)
            self._exact, self._read = runtime, runtime.sequence()
        return self._weights

    def _before(self, ids: Sequence[int], on_progress: Report) -> Any:
        """A cache that has read some ids, to go on from; the weights are loaded.

        What was read for the last question is kept, whole: so the cursor goes back and forth in a
        long text, and each token is read once. Raises EngineError.
        """
        runtime, kept = self._exact, self._read
        shared = common_prefix(kept.ids, ids)
        if shared < min(len(kept.ids), len(ids)):
            kept.crop(shared)
        if len(kept.ids) > len(ids):
            try:
                return kept.fork(len(ids)).cache
            except CannotFork:
                kept.clear()
        size = _PIECE
        if runtime.recurrent:
            size = 1 if kept.ids else max(1, len(ids))
        while (start := len(kept.ids)) < len(ids):
            piece = ids[start : start + size]
            try:
                kept.cache, _, _ = runtime.run([piece], kept.cache, 0, states=False)
            except BaseException:
                kept.clear()  # half of the layers may have taken the ids, the others not
                raise
            kept.ids.extend(piece)
            on_progress(Progress("reading", len(kept.ids), len(ids), "tokens"))
        return kept.fork(len(ids)).cache


def _in_range(what: str, number: int, count: int, they: str = "they") -> int:
    """A number from 0; negative ones count from the end, -1 being the last. Raises EngineError."""
    place = number + count if number < 0 else number
    if not 0 <= place < count:
        raise EngineError(f"there is no {what} {number}; {they} go from 0 to {count - 1}")
    return place


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


def _rows(table: Any, ids: Sequence[int]) -> Floats:
    rows: Floats = table[list(ids)].double().cpu().numpy()
    return rows


def _scores(table: Any, target: Floats, by: Measure) -> Floats:
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
