"""The inside of the model at one token of the conversation, as pages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial

from chatapp.chat.facts import ModelFacts, Report
from chatapp.chat.numbers import size
from chatapp.chat.prompt import TokenPiece
from chatapp.chat.xray import MOST_FOR_ALL, Attention, Matrix, Measure, Passage
from chatapp.explain import views
from chatapp.explain.views import Made, Page, View
from chatapp.session.protocols import Engine

PAGES = (
    "tokens",
    "attention",
    "heads",
    "heat map",
    "layers",
    "parts",
    "words",
    "position",
    "anatomy",
    "cache",
)
"""What the pages are called, in their order."""
_WITHOUT_TEXT = ("tokens", "words", "position", "anatomy")
"""The pages that need none."""
_CACHE_TOKENS = 32
"""How much of the text is read to measure the cache: some seconds' worth."""
_SUM = re.compile(r"\s[+\-−]\s")


class Inside:
    """What is looked at: a text as ids, one of its tokens, a layer, a head, some words."""

    def __init__(
        self, engine: Engine, facts: ModelFacts, pieces: tuple[TokenPiece, ...], place: int
    ) -> None:
        """Begin at a token.

        Args:
            engine: whose model is looked into.
            facts: what is known of that model.
            pieces: the text up to its last token; empty where there is none yet.
            place: the token, from 0; -1 is the last one.
        """
        self._engine = engine
        self._facts = facts
        self.measured = 0.0
        """How fast the last reply was written, in tokens a second; 0 for unknown."""
        self.turn = ""
        """How much of the last prompt the KV cache held, in words."""
        self.places: Mapping[str, Sequence[int]] = {}
        """Where the messages stand in it, by their ids: the places of their tokens."""
        self.pieces = pieces
        self.ids = tuple(piece.id for piece in pieces)
        self.place = place % len(pieces) if pieces else 0
        self.layer = max(0, facts.layers - 1)
        """In which attention is looked at."""
        self.head: int | None = None
        """None is the mean of all."""
        self.written = ""
        """What was written: a text to be cut into tokens, a word, a sum, or words for the map."""
        self.matrix: Matrix = "input"
        self.by: Measure = "cosine"
        """What is near a word: in which embedding, by what."""
        self.rows = 24
        """How many lines are seen at once."""
        self.mark = 0
        """Which word of the map is pointed at, from the left."""
        self._heat: tuple[object, Attention] | None = None
        self.pages = tuple(Page(name, partial(self.make, name)) for name in PAGES)

    @property
    def state(self) -> tuple[object, ...]:
        """What the pages hang on."""
        return self.place, self.layer, self.head, self.written, self.matrix, self.by

    @property
    def is_map(self) -> bool:
        """Whether the words that were written make a map."""
        return len(self.written.split()) > 2 and not _SUM.search(self.written)

    def move(self, steps: int) -> None:
        self.place = min(max(0, self.place + steps), max(0, len(self.ids) - 1))

    def turn_layer(self, steps: int) -> None:
        self.layer = min(max(0, self.layer + steps), max(0, self._facts.layers - 1))

    def turn_head(self, steps: int) -> None:
        """To another head; before the first one is the mean."""
        heads = self._facts.heads
        number = (-1 if self.head is None else self.head) + steps
        self.head = None if number < 0 else min(number, heads - 1)

    async def make(self, name: str, report: Report) -> Made:
        """A page by its name. Raises EngineError."""
        engine, place, text = self._engine, self.place, Passage(ids=self.ids)
        if not self.ids and name not in _WITHOUT_TEXT:
            return _words_alone("There is no text yet: send a message, and look again.")
        match name:
            case "tokens":
                pieces = await engine.tokenize(self.written) if self.written else self.pieces
                if not self.written and not pieces:
                    return _words_alone("Write a text below: its tokens appear as you write.")
                return partial(views.tokens, pieces[-200:])
            case "attention":
                return partial(views.attention, await self.looked_at(report))
            case "heads":
                heads = await engine.head_profiles(text, place, on_progress=report)
                return partial(views.head_profiles, heads, self.pieces[place])
            case "heat map":
                return partial(views.heat_map, await self._all_rows(report), mark=place)
            case "layers":
                lens = await engine.lens(text, max(0, place - 1), on_progress=report)
                return partial(views.lens, lens)
            case "parts":
                parts = await engine.attribution(
                    text, max(0, place - 1), by_head=self.head is not None, on_progress=report
                )
                return partial(views.attribution, parts)
            case "words":
                return await self._words(report)
            case "position":
                return partial(views.positions, await engine.positions(place, on_progress=report))
            case "anatomy":
                return partial(views.anatomy, await engine.anatomy(), measured=self.measured)
        begin = Passage(ids=self.ids[:_CACHE_TOKENS])
        kept = await engine.cache_run(begin, on_progress=report)
        turn = f"This text fills {size(kept.kv_bytes_per_token * len(self.ids))}. {self.turn}"
        return partial(views.cache_run, kept, turn=turn)

    def word(self) -> Made:
        """The token, and the word that it belongs to."""
        place = views.word_at(self.pieces, self.place)
        pieces = self.pieces[place.start : place.stop]
        return partial(views.tokens, pieces, first=place.start)

    async def looked_at(self, report: Report) -> Attention:
        """What the token looked at. Raises EngineError."""
        return await self._engine.attention(
            Passage(ids=self.ids), self.place, self.layer, self.head, on_progress=report
        )

    async def _all_rows(self, report: Report) -> Attention:
        """What all tokens looked at, as far as that can be told; kept for the next token."""
        ids = self.ids if len(self.ids) <= MOST_FOR_ALL else self.ids[: self.place + 1]
        key = (len(ids), self.layer, self.head)
        if self._heat is None or self._heat[0] != key:
            found = await self._engine.attention(
                Passage(ids=ids),
                layer=self.layer,
                head=self.head,
                every_row=True,
                on_progress=report,
            )
            self._heat = key, found
        return self._heat[1]

    async def _words(self, report: Report) -> Made:
        words = self.written.strip()
        if not words and self.ids:
            words = f"id:{self.ids[self.place]}"
        if not words:
            return _words_alone(
                "Write a word below, a sum such as woman - man + uncle, or some words."
            )
        if _SUM.search(words):
            return partial(views.analogy, await self._engine.analogy(words, on_progress=report))
        if self.is_map:
            mapped = await self._engine.embedding_map(words.split(), on_progress=report)
            return lambda width: views.word_map(mapped, width, max(6, self.rows - 4), self.mark)
        near = await self._engine.neighbors(
            words, self.matrix, self.by, count=14, on_progress=report
        )
        return partial(views.neighbors, near)


def _words_alone(words: str) -> Made:
    view = View("", words, ())
    return lambda _: view
