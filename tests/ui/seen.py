"""A scripted engine that answers about the inside of a model, too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from chatapp.chat import xray
from chatapp.chat.errors import EngineError
from chatapp.chat.facts import Progress
from chatapp.chat.prompt import TokenPiece
from tests.explain import values
from tests.ui.inspected import InspectedEngine
from tests.ui.scripted import split


class SeenEngine(InspectedEngine):
    """Answers about the inside; it writes down what it was asked."""

    def __init__(self, *scripts: str, held: bool = False) -> None:
        super().__init__(*scripts, held=held)
        self.asked: list[tuple[object, ...]] = []
        self.withdrawn = 0
        self.slow = False
        self.fault = ""
        self.loading: asyncio.Event | None = None

    async def pieces(self, ids: Sequence[int]) -> tuple[TokenPiece, ...]:
        turns = self.requests[-1][0].turns if self.requests else ()
        names = dict(enumerate(part for turn in turns for part in split(turn.text)))
        return tuple(TokenPiece(one, f"t{one}", names.get(one, b" t%d" % one)) for one in ids)

    async def _answer(self, *asked: object) -> None:
        self.asked.append(asked)
        if self.fault:
            raise EngineError(self.fault)
        if self.slow:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.withdrawn += 1
                raise

    async def attention(
        self,
        passage: xray.Passage,
        token: int = -1,
        layer: int = -1,
        head: int | None = None,
        every_row: bool = False,
        *,
        on_progress: Any,
    ) -> xray.Attention:
        await self._answer("attention", token, layer, head, every_row)
        if self.loading is not None:
            on_progress(Progress("loading weights", 1, 2, "tensors"))
            try:
                await self.loading.wait()
            except asyncio.CancelledError:
                self.withdrawn += 1
                raise
        return values.attention(1 + token % len(passage.ids or (0,)), every=every_row)

    async def head_profiles(self, *_: Any, on_progress: Any) -> tuple[xray.HeadProfile, ...]:
        return values.head_profiles(2, 2)

    async def lens(self, passage: xray.Passage, token: int = -1, **_: Any) -> xray.Lens:
        await self._answer("lens", token)
        return values.lens(5)

    async def attribution(self, passage: Any, token: int = -1, **_: Any) -> xray.Attribution:
        await self._answer("attribution", token)
        return values.attribution(3)

    async def neighbors(
        self, word: str, matrix: str = "input", by: str = "cosine", **_: Any
    ) -> xray.Neighbors:
        await self._answer("neighbors", word, matrix, by)
        return values.neighbors()

    async def analogy(self, expression: str, *_: Any, **__: Any) -> xray.Analogy:
        await self._answer("analogy", expression)
        return values.analogy()

    async def embedding_map(self, words: Sequence[str], **_: Any) -> xray.EmbeddingMap:
        await self._answer("map", *words)
        return values.word_map(len(words))

    async def positions(self, position: int, *, on_progress: Any) -> xray.Positions:
        return values.positions()

    async def anatomy(self) -> xray.Anatomy:
        return values.anatomy()

    async def cache_run(self, passage: xray.Passage, *, on_progress: Any) -> xray.CacheRun:
        return values.cache_run()
