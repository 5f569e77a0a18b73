"""A scripted engine that can be held and asked about its tokens, still without a model."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from textual.widget import Widget

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import Progress
from chatapp.chat.generation import (
    GenerateOptions,
    GenerationEnd,
    GenerationEvent,
    Paused,
    PromptRead,
    TokenStep,
)
from chatapp.chat.inspection import (
    PLAIN,
    CandidatePage,
    FoundToken,
    ReplyStep,
    ScoreEnd,
    ScoreEvent,
    ScoreStart,
    SpeltText,
    StageTrace,
    StepTrace,
    TracedStep,
    TracedToken,
    WhatIf,
    WhatIfToken,
    WrittenReply,
)
from chatapp.chat.prompt import Prompt, TokenPiece
from chatapp.chat.record import Candidate, FinishReason, Removal
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.search import (
    Beam,
    BeamEnd,
    BeamEvent,
    BeamExtension,
    BeamOptions,
    BeamStep,
    BeamStop,
    ColumnEvent,
    ContrastiveCandidate,
    ContrastiveEnd,
    ContrastiveEvent,
    ContrastiveOptions,
    ContrastiveStep,
    ExtensionFate,
    Hypothesis,
    SeveralEvent,
)
from tests.ui.scripted import (
    FACTS,
    ScriptedEngine,
    ScriptedGeneration,
    make_record,
    printable,
    split,
    token_id,
)

_Event = TypeVar("_Event")
OTHER = b" other"
"""What `make_record` gives as the second candidate everywhere."""


def vocabulary_candidate(place: int) -> Candidate:
    """A token of the vocabulary far down, by its place."""
    data = f" word{place}".encode()
    return Candidate(
        id=place,
        token=data.decode(),
        bytes=data,
        logprob=-14.0,
        tempered_prob=0.0,
        prob=0.0,
        rank=place + 1,
        removed_by=Removal("top_k", 50, 50, place + 1),
    )


class InspectedEngine(ScriptedEngine):
    """Also holds its replies, and answers questions about them."""

    def __init__(self, *scripts: str, held: bool = False) -> None:
        super().__init__(*scripts, held=held)
        self.asked: list[ReplyStep] = []
        self.tried: list[SamplingParams] = []
        self.refuses = ""
        self.spelt: dict[int, bytes] = {}
        """The tokens of texts that were written, by their ids."""
        self.compared: list[GenerateOptions] = []
        self.scored: list[tuple[list[int], bool]] = []
        """The places that were asked for, and whether in the background."""
        self.withdrawn = 0
        """How many scorings were stopped while they were held."""
        self.may_score = asyncio.Event()
        self.may_score.set()
        self.forgets = False
        """Whether it would have to read every prompt anew."""

    def generate(self, prompt: Prompt, options: GenerateOptions) -> SteeredGeneration:
        self.requests.append((prompt, options))
        script = self.scripts.pop(0) if self.scripts else ""
        tokens = split(script) if isinstance(script, str) else list(script)
        return SteeredGeneration(self, tokens, prompt, options)

    async def pieces(self, ids: Sequence[int]) -> tuple[TokenPiece, ...]:
        self._live()
        known = {token_id(OTHER): OTHER}
        return tuple(TokenPiece(id_, known[id_].decode(), known[id_]) for id_ in ids)

    async def candidates(self, step: ReplyStep, start: int, count: int) -> CandidatePage:
        self._live()
        self.asked.append(step)
        last = min(start + count, FACTS.vocab_size)
        page = tuple(vocabulary_candidate(place) for place in range(start, last))
        return CandidatePage(start, page, FACTS.vocab_size, 2)

    async def find_tokens(
        self, step: ReplyStep, wanted: str | int, limit: int = 50
    ) -> tuple[FoundToken, ...]:
        self._live()
        if isinstance(wanted, int):
            if wanted >= FACTS.vocab_size:
                raise EngineError(f"there is no token {wanted}")
            return (FoundToken(vocabulary_candidate(wanted), None, None, 3.25),)
        if wanted not in "word700":
            return ()
        likely = replace(vocabulary_candidate(1), prob=0.25, removed_by=None)
        return (
            FoundToken(likely, 0.5, 0.75, 0.0),
            FoundToken(vocabulary_candidate(700), None, None, 3.25),
        )

    async def spell(self, step: ReplyStep, text: str) -> SpeltText:
        self.asked.append(step)
        pieces = await self.tokenize(text)
        self.spelt.update((piece.id, piece.bytes) for piece in pieces)
        first = replace(
            vocabulary_candidate(41), id=pieces[0].id, token=pieces[0].token, bytes=pieces[0].bytes
        )
        return SpeltText(pieces, FoundToken(first, None, None, 1.5))

    async def trace(self, step: ReplyStep, ids: Sequence[int]) -> TracedStep:
        self._live()
        self.asked.append(step)
        data = split("One two three four five")[step.index]
        record = make_record(step.index, data, "", step.reply.sampling_at(step.index))
        known = {one.id: one for one in record.candidates}
        candidates = tuple(known[id_] for id_ in ids)
        return TracedStep(
            trace=StepTrace(
                (
                    _stage("model", None, candidates, [one.model_prob for one in candidates], 0),
                    _stage("top_p", 0.95, candidates, [one.prob for one in candidates], 2),
                    _stage("xtc", 0.5, candidates, [one.prob for one in candidates], 0, 0.625),
                )
            ),
            candidates=candidates,
            sampling=step.reply.sampling_at(step.index),
            draw=0.25 if step.index < len(step.reply.ids) else None,
            recomputed=False,
        )

    async def _score(
        self, prompt: Prompt, places: Sequence[int] | None, background: bool
    ) -> AsyncIterator[ScoreEvent]:
        self._live()
        rendered = await self.render(prompt)
        wanted = range(len(rendered.tokens)) if places is None else places
        yield ScoreStart(rendered.tokens, 0, 1)
        self.scored.append((list(wanted), background))
        try:
            await self.may_score.wait()
        except asyncio.CancelledError:
            self.withdrawn += 1
            raise
        records = [
            make_record(place, piece.bytes, piece.token, PLAIN)
            for place, piece in enumerate(rendered.tokens)
            if place in wanted and place and not (background and self.forgets)
        ]
        for record in records:
            yield record
        yield ScoreEnd(len(records), -1.0, 2.0, 0.1)

    def score_prompt(
        self,
        prompt: Prompt,
        top_logprobs: int = 0,
        *,
        places: Sequence[int] | None = None,
        background: bool = False,
    ) -> ScriptedRun[ScoreEvent]:
        return ScriptedRun(self._score(prompt, places, background))

    def compare(self, prompt: Prompt, columns: Sequence[GenerateOptions]) -> ScriptedComparison:
        self.compared = list(columns)
        return ScriptedComparison(self, columns)

    def beam(self, prompt: Prompt, options: BeamOptions) -> ScriptedRun[BeamEvent]:
        return ScriptedRun(_beams())

    def contrastive(
        self, prompt: Prompt, options: ContrastiveOptions, stop: Sequence[str] = ()
    ) -> ScriptedRun[ContrastiveEvent]:
        return ScriptedRun(_contrastive(options))

    async def _score_ids(self, ids: Sequence[int]) -> AsyncIterator[ScoreEvent]:
        names = {piece.id: piece for piece in map(_piece, (b"Red", b"Blue", b" sky", b" sea"))}
        for place, id_ in enumerate(ids):
            record = make_record(place, names[id_].bytes, names[id_].token, PLAIN)
            yield replace(record, id=id_)

    def score_ids(
        self, prompt_ids: Sequence[int], ids: Sequence[int], top_logprobs: int = 0
    ) -> ScriptedRun[ScoreEvent]:
        return ScriptedRun(self._score_ids(ids))

    async def what_if(self, reply: WrittenReply, sampling: SamplingParams) -> WhatIf:
        self._live()
        self.tried.append(sampling)
        if self.refuses:
            raise EngineError(self.refuses)
        tokens = []
        for index, id_ in enumerate(reply.ids):
            prob = 0.0 if index == 1 and sampling.top_k == 1 else 0.5
            logprob = math.log(prob) if prob else -math.inf
            tokens.append(
                WhatIfToken(
                    id=id_,
                    model_logprob=-1.0,
                    tempered_logprob=-0.5,
                    logprob=logprob,
                    removed_by=None if prob else "top_k",
                    choices=1,
                    best_id=id_ if prob and index != 2 else 7,
                )
            )
        return WhatIf(tuple(tokens))


def _stage(
    name: str,
    setting: float | None,
    candidates: Sequence[Candidate],
    probs: Sequence[float],
    removed: int,
    drawn: float | None = None,
) -> StageTrace:
    """A stage that cuts the last `removed` candidates, where it cuts any."""
    cut_from = len(candidates) - removed
    tokens = tuple(
        TracedToken(
            one.id,
            math.log(prob) if prob > 0 else None,
            prob,
            removed=bool(removed) and place >= cut_from,
        )
        for place, (one, prob) in enumerate(zip(candidates, probs, strict=True))
    )
    rest = 1 - math.fsum(probs)
    alive = FACTS.vocab_size if name == "model" else 2
    return StageTrace(name, setting, None, None, drawn, tokens, rest, alive)


def _piece(data: bytes) -> TokenPiece:
    return TokenPiece(token_id(data), data.decode(), data)


async def _beams() -> AsyncIterator[BeamEvent]:
    """Two beams, two levels: Red sea wins, Blue is dropped at the second level."""
    red, blue, sky, sea = map(_piece, (b"Red", b"Blue", b" sky", b" sea"))
    kept, dropped, finished = ExtensionFate.KEPT, ExtensionFate.DROPPED, ExtensionFate.FINISHED
    yield PromptRead((1, 2, 3), 0, 0.01)
    yield BeamStep(
        0,
        (
            BeamExtension(0, red, -0.5, -0.5, -0.5, False, kept, 0),
            BeamExtension(0, blue, -1.0, -1.0, -1.0, False, kept, 1),
        ),
        (Beam((red.id,), 0, -0.5, -0.5), Beam((blue.id,), 0, -1.0, -1.0)),
        (),
    )
    best = Hypothesis((red.id, sea.id), "Red sea", -0.8, -0.4, FinishReason.LENGTH)
    second = Hypothesis((red.id, sky.id), "Red sky", -1.0, -0.5, FinishReason.LENGTH)
    yield BeamStep(
        1,
        (
            BeamExtension(0, sea, -0.3, -0.8, -0.4, True, finished),
            BeamExtension(0, sky, -0.5, -1.0, -0.5, True, finished),
            BeamExtension(1, sea, -2.0, -3.0, -1.5, True, dropped),
        ),
        (),
        (best, second),
    )
    yield BeamEnd((best, second), BeamStop.LENGTH, 0.2)


async def _contrastive(options: ContrastiveOptions) -> AsyncIterator[ContrastiveEvent]:
    yield PromptRead((1, 2, 3), 0, 0.01)
    weighed = (
        ContrastiveCandidate(_piece(b"Red"), 0.6, 0.9, 2, -0.3),
        ContrastiveCandidate(_piece(b"Blue"), 0.3, 0.1, 1, 0.06),
    )
    yield ContrastiveStep(0, weighed, 1, "Blue")
    yield ContrastiveEnd(FinishReason.STOP, 0.1)


class ScriptedRun(Generic[_Event]):
    """Work under way that is written down beforehand."""

    def __init__(self, events: AsyncIterator[_Event]) -> None:
        self._events = events
        self.cancelled = False

    def __aiter__(self) -> AsyncIterator[_Event]:
        return self._events

    def cancel(self) -> None:
        self.cancelled = True


class ScriptedComparison(ScriptedRun[SeveralEvent]):
    """Columns that all write the same script, one token each in turn."""

    def __init__(self, engine: InspectedEngine, columns: Sequence[GenerateOptions]) -> None:
        super().__init__(self._write(engine, columns))
        self.stopped: set[int | None] = set()
        self._sampling = [one.sampling for one in columns]

    async def _write(
        self, engine: InspectedEngine, columns: Sequence[GenerateOptions]
    ) -> AsyncIterator[SeveralEvent]:
        engine._live()
        tokens = split(engine.scripts.pop(0))
        yield PromptRead((1, 2, 3), 0, 0.01)
        for place, token in enumerate(tokens):
            await engine.turn()
            for column, sampling in enumerate(self._sampling):
                if not self.stopped & {None, column}:
                    record = make_record(place, token, token.decode(), sampling)
                    yield ColumnEvent(column, TokenStep(record, sampling))
        for column in range(len(columns)):
            stopped = bool(self.stopped & {None, column})
            reason = FinishReason.CANCELLED if stopped else FinishReason.STOP
            yield ColumnEvent(column, GenerationEnd(reason, 0.1, 0.1))

    def cancel(self, column: int | None = None) -> None:
        self.stopped.add(column)

    def set_sampling(self, column: int, sampling: SamplingParams) -> None:
        self._sampling[column] = sampling


class SteeredGeneration(ScriptedGeneration):
    """One reply that can be held."""

    def __init__(
        self, engine: InspectedEngine, tokens: list[bytes], prompt: Prompt, options: GenerateOptions
    ) -> None:
        super().__init__(engine, tokens, prompt, options)
        self._spelt = engine.spelt
        self._paused = False
        self._steps: list[int | None] = []
        self._told = asyncio.Event()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._told.set()

    def step(self, token_ids: Sequence[int] = ()) -> None:
        self._steps += token_ids or (None,)
        self._told.set()

    def set_sampling(self, sampling: SamplingParams) -> None:
        super().set_sampling(sampling)
        self._told.set()

    def cancel(self) -> None:
        super().cancel()
        self._told.set()

    async def __aiter__(self) -> AsyncIterator[GenerationEvent]:
        self._engine._live()
        last = self._prompt.turns[-1]
        start = len(last.ids or ()) if self._prompt.continue_reply else 0
        length = sum(len(split(turn.text)) for turn in self._prompt.turns)
        yield Progress("reading the prompt", length, length, "tokens")
        yield PromptRead(tuple(range(length)), 0, 0.01)
        tokens = [b" forced" for _ in self._forced] + self._tokens
        texts = printable(tokens)
        for place, token in enumerate(tokens):
            if await self._stopped():
                break
            record = make_record(start + place, token, texts[place], self._sampling)
            while self._paused and not self._steps and not self._cancelled.is_set():
                self._told.clear()
                held = make_record(start + place, token, texts[place], self._sampling)
                yield Paused(replace(held, text="", draw=None), self._sampling)
                await self._told.wait()
            if self._cancelled.is_set():
                break
            taken = self._steps.pop(0) if self._steps else None
            if taken is not None and taken != record.id:
                data = self._spelt.get(taken) or next(
                    one.bytes for one in record.candidates if one.id == taken
                )
                text = data.decode()
                record = replace(record, id=taken, token=text, bytes=data, text=text, draw=None)
            changed = self._sampling if self._sampling != self._before else None
            self._before = self._sampling
            self._engine.drawn_with.append(self._sampling)
            yield TokenStep(record, changed)
        else:
            if not await self._stopped():
                yield GenerationEnd(self._engine.reason, 0.1 * len(tokens), 0.1)
                return
        yield GenerationEnd(FinishReason.CANCELLED, 0.1, 0.1)


def lines(widget: Widget) -> str:
    """What a widget draws, row by row."""
    height = widget.size.height
    return "\n".join(widget.render_line(y).text for y in range(height))
