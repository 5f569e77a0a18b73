"""One model at a time, and everything that can be asked of it."""

from __future__ import annotations

import functools
import gc
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chatapp.chat.bench import BenchEvent, BenchOptions, BenchResult
from chatapp.chat.errors import EngineError
from chatapp.chat.facts import IsCancelled, LoadOptions, ModelFacts, ModelSource, Progress, Report
from chatapp.chat.generation import GenerateOptions, GenerationEvent, PromptRead, TokenStep
from chatapp.chat.inspection import ScoreEnd, ScoreEvent, ScoreStart
from chatapp.chat.prompt import Prompt, PromptFormat, RenderedPrompt, TokenPiece, Turn
from chatapp.chat.record import perplexity
from chatapp.chat.search import (
    BeamEvent,
    BeamOptions,
    ColumnEvent,
    ContrastiveEvent,
    ContrastiveOptions,
    SeveralEvent,
)
from chatapp.chat.thinking import thinking_of
from chatapp.engine.bench import bench
from chatapp.engine.decoding.beam import BeamSearch
from chatapp.engine.decoding.contrastive import ContrastiveSearch
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.decoding.decode import generate
from chatapp.engine.decoding.reply import Task
from chatapp.engine.decoding.several import generate_several
from chatapp.engine.look.history import LogitHistory
from chatapp.engine.look.inspection import Inspection
from chatapp.engine.look.quality import quality
from chatapp.engine.look.score import score
from chatapp.engine.prompt.belief import NOT_BELIEVED, Belief
from chatapp.engine.prompt.render import PromptIds, render_prompt, turn_end
from chatapp.engine.prompt.template import switch_in
from chatapp.engine.runtimes.base import KVSequence, Runtime, common_prefix
from chatapp.engine.runtimes.loading import load
from chatapp.engine.sampler.vocabulary import Vocabulary
from chatapp.engine.xray.xray import XRay

if TYPE_CHECKING:
    from chatapp.engine.runtimes.kept_states import KeptStates

HISTORY_BYTES = 256 << 20
"""Memory for the logits of recent replies: some 2,500 tokens of a vocabulary of 49,152."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model, and what goes with it."""

    runtime: Runtime
    kept: KeptStates | None
    source: ModelSource
    sequence: KVSequence
    vocabulary: Vocabulary
    inspection: Inspection
    written: Belief
    xray: XRay


class LocalEngine:
    """A loaded model with its KV cache; its methods are those of `session.protocols.Engine`.

    `load` and what runs the model belong to one thread. `tokenize`, `render`, `pieces` and the
    questions of `inspection` may be asked from another while a reply runs: they only read.
    """

    def __init__(self, prepared: Path) -> None:
        """`prepared` is the folder that converted models are kept in."""
        self._prepared = prepared
        self._loaded: _Loaded | None = None
        self._history = LogitHistory(HISTORY_BYTES)

    def load(self, source: ModelSource, options: LoadOptions, on_progress: Report) -> ModelFacts:
        self.unload()  # two at once may be more than fits
        runtime = load(source, options, self._prepared, on_progress)
        switch = switch_in(runtime.tokenizer.chat_template or "")
        runtime.facts = replace(runtime.facts, thinking_switch=switch)
        if (end := turn_end(runtime.tokenizer)) is not None:
            ends = tuple(sorted({*runtime.facts.end_ids, end}))
            runtime.facts = replace(runtime.facts, end_ids=ends)
        vocabulary = Vocabulary(
            runtime.tokenizer.token_bytes,
            runtime.tokenizer.vocab_size,
            runtime.facts.control_ids,
            runtime.tokenizer.encode_inside,
            thinking_of(runtime.tokenizer.chat_template or ""),
        )
        end_ids = functools.lru_cache(maxsize=64)(functools.partial(_end_ids, runtime))
        sequence = runtime.sequence()
        self._loaded = _Loaded(
            runtime,
            self._kept(sequence, source.sha256, options.kept_megabytes),
            source,
            sequence,
            vocabulary,
            Inspection(runtime, self._history, end_ids, vocabulary),
            Belief(runtime.tokenizer),
            XRay(runtime, source, self._prepared),
        )
        return runtime.facts

    def unload(self) -> None:
        if self._loaded is not None:
            self._loaded.runtime.close()
        self._loaded = None
        self._history.clear()
        gc.collect()

    def generate(
        self, prompt: Prompt, options: GenerateOptions, controls: Controls
    ) -> Iterator[GenerationEvent]:
        runtime = self.runtime
        printed = prompt.turns[-1].text if prompt.continue_reply else None
        made = self._read(prompt)
        task = self._task(made, options, printed)
        if options.is_aside:
            with closing(runtime.sequence()) as sequence:
                yield from generate(runtime, sequence, task, controls)
            return
        if kept := self._model.kept:
            kept.restore(made.ids)
        drawn = list(made.reply_ids)
        try:
            for event in generate(runtime, self.sequence, task, controls, self._history):
                if isinstance(event, TokenStep):
                    drawn.append(event.record.id)
                if isinstance(event, PromptRead):
                    note = NOT_BELIEVED if NOT_BELIEVED in made.rendered.note else ""
                    event = replace(event, note=note, thinking=made.rendered.thinking)
                yield event
        finally:
            self._model.written.add(drawn)
            if kept:
                kept.save()

    def compare(
        self, prompt: Prompt, columns: Sequence[GenerateOptions], controls: Sequence[Controls]
    ) -> Iterator[SeveralEvent]:
        made = self._read(prompt)
        tasks = [self._task(made, options) for options in columns]
        drawn = [list(made.reply_ids) for _ in columns]
        events = generate_several(self.runtime, self.sequence, tasks, controls, self._history)
        try:
            for event in events:
                if isinstance(event, ColumnEvent) and isinstance(event.event, TokenStep):
                    drawn[event.column].append(event.event.record.id)
                yield event
        finally:
            for one in drawn:
                self._model.written.add(one)

    def beam(
        self, prompt: Prompt, options: BeamOptions, cancelled: IsCancelled
    ) -> Iterator[BeamEvent]:
        runtime = self.runtime
        made = self._read(prompt)
        end_ids, _ = _ending(runtime, made.rendered.stop)
        search = BeamSearch(runtime, made.ids, options, end_ids, cancelled)
        yield from search.events(self.sequence)

    def contrastive(
        self,
        prompt: Prompt,
        options: ContrastiveOptions,
        stop: Sequence[str],
        cancelled: IsCancelled,
    ) -> Iterator[ContrastiveEvent]:
        runtime = self.runtime
        made = self._read(prompt)
        end_ids, stop = _ending(runtime, (*stop, *made.rendered.stop))
        search = ContrastiveSearch(
            runtime,
            made.ids,
            options,
            end_ids=end_ids,
            cancelled=cancelled,
            stop=stop,
            reply_ids=made.reply_ids,
        )
        with closing(runtime.sequence()) as sequence:
            yield from search.events(sequence)

    def score_text(
        self, text: str, top_logprobs: int, on_progress: Report, cancelled: IsCancelled
    ) -> Iterator[ScoreEvent]:
        tokenizer = self.runtime.tokenizer
        self._check_size(text)
        ids = tokenizer.encode_text(text)
        return self.score_ids(tokenizer.prefix_ids, ids, top_logprobs, on_progress, cancelled)

    def score_prompt(
        self,
        prompt: Prompt,
        top_logprobs: int,
        on_progress: Report,
        cancelled: IsCancelled,
        *,
        places: Sequence[int] | None = None,
        background: bool = False,
    ) -> Iterator[ScoreEvent]:
        """Tell how probable each token of a prompt is.

        What stands before the first wanted token is not read again where the chat's sequence has
        read it.

        `places`: which of the prompt's tokens are wanted; None is all of them. `background`: tell
        nothing of a prompt that the chat's sequence hasn't read. Raises EngineError: the prompt
        cannot be made or read.
        """
        ids = self._read(prompt).ids
        known = self.sequence
        if background and common_prefix(known.ids, ids) < len(ids) - 1:
            places = ()
        return self.score_ids(
            (), ids, top_logprobs, on_progress, cancelled, places=places, known=known
        )

    def bench(self, options: BenchOptions, cancelled: IsCancelled) -> Iterator[BenchEvent]:
        if options.quality_text:
            return self._quality(options.quality_text, cancelled)
        return bench(self.runtime, self._model.source, self._history, options, cancelled)

    def _quality(self, text: str, cancelled: IsCancelled) -> Iterator[BenchEvent]:
        runtime = self.runtime
        yield Progress("loading the float32 weights", 0, 0)
        exact = LoadOptions(runtime="transformers", dtype="float32", device="cpu")
        with closing(load(self._model.source, exact, self._prepared, lambda _: None)) as reference:
            ids = (*runtime.tokenizer.prefix_ids, *runtime.tokenizer.encode_text(text))
            yield Progress("reading the text with both", 0, 0)
            found = quality(runtime, reference, ids, cancelled)
        yield found or BenchResult(BenchOptions(), (), 0, cancelled=True)

    def tokenize(self, text: str, *, inside: bool = False) -> tuple[TokenPiece, ...]:
        """A text in tokens, as ordinary text. Raises EngineError when no model is loaded.

        `inside`: it goes on in a reply; else it stands by itself.
        """
        tokenizer = self.runtime.tokenizer
        encode = tokenizer.encode_inside if inside else tokenizer.encode_text
        return tokenizer.pieces(encode(text))

    def render(self, prompt: Prompt) -> RenderedPrompt:
        return self._read(prompt).rendered

    def pieces(self, ids: Sequence[int]) -> tuple[TokenPiece, ...]:
        return self.runtime.tokenizer.pieces(ids)

    @property
    def runtime(self) -> Runtime:
        """What runs the model. Raises EngineError when none is loaded, as all of these do."""
        return self._model.runtime

    @property
    def sequence(self) -> KVSequence:
        return self._model.sequence

    @property
    def inspection(self) -> Inspection:
        return self._model.inspection

    @property
    def xray(self) -> XRay:
        return self._model.xray

    @property
    def _model(self) -> _Loaded:
        if self._loaded is None:
            raise EngineError("no model is loaded")
        return self._loaded

    def _kept(self, sequence: KVSequence, sha256: str, megabytes: int) -> KeptStates | None:
        """What the disk keeps of the chat's sequence, where the settings give it room."""
        if not (megabytes and sha256):
            return None
        from chatapp.engine.runtimes.kept_states import KeptStates
        from chatapp.engine.runtimes.library import library
        from chatapp.engine.runtimes.llama_cpp import LlamaCppSequence

        if not isinstance(sequence, LlamaCppSequence):
            return None
        folder = self._prepared.with_name("kept")
        return KeptStates(sequence, folder, sha256, library().version, megabytes * 1_000_000)

    def _read(self, prompt: Prompt) -> PromptIds:
        """The ids of a prompt: its own, or those that its format makes."""
        tokenizer = self.runtime.tokenizer
        if prompt.ids is None:
            self._check_size(prompt.system, *(turn.text for turn in prompt.turns))
            prompt, unbelieved = self._model.written.checked(prompt)
            made = render_prompt(tokenizer, prompt)
            self._check_rows(made.ids)
            note = "; ".join(filter(None, (made.rendered.note, unbelieved)))
            return replace(made, rendered=replace(made.rendered, note=note))
        self._check_rows(prompt.ids)
        tokens = tokenizer.pieces(prompt.ids)
        text = b"".join(token.bytes for token in tokens).decode("utf-8", "replace")
        return PromptIds(prompt.ids, (), RenderedPrompt("ids", text, tokens))

    def _check_rows(self, ids: Sequence[int]) -> None:
        """Refuse ids that the model has no row for. Raises EngineError."""
        runtime = self.runtime
        rows = runtime.facts.vocab_size
        for token_id in ids:
            if not 0 <= token_id < rows:
                token = runtime.tokenizer.piece(token_id).token if token_id >= 0 else ""
                raise EngineError(
                    f"the prompt holds {token[:40]!r} (id {token_id}), and the model knows ids from"
                    f" 0 to {rows - 1}: the tokenizer or the format is another model's"
                )

    def _check_size(self, *texts: str) -> None:
        """Refuse at once what is far too long, since tokenizing it would take a long time.

        Raises EngineError: it has more tokens than the model can read, however it is tokenized.
        """
        most = self.runtime.facts.context_length
        length = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        if length > most and (least := self.runtime.tokenizer.least_tokens(length)) > most:
            raise EngineError(
                f"the text is too long: {length:,} bytes are at least {least:,} tokens, and the"
                f" model reads {most:,}; start a new chat, branch from an earlier message, or"
                " shorten what is there"
            )

    def _task(
        self, made: PromptIds, options: GenerateOptions, reply_text: str | None = None
    ) -> Task:
        end_ids, stop = _ending(self.runtime, (*options.stop, *made.rendered.stop))
        return Task(
            prompt_ids=tuple(made.ids),
            options=options,
            end_ids=end_ids,
            stop=stop,
            reply_ids=tuple(made.reply_ids),
            reply_text=reply_text,
            vocabulary=self._model.vocabulary,
        )

    def score_ids(
        self,
        before: Sequence[int],
        ids: Sequence[int],
        top_logprobs: int,
        on_progress: Report,
        cancelled: IsCancelled,
        *,
        places: Sequence[int] | None = None,
        known: KVSequence | None = None,
    ) -> Iterator[ScoreEvent]:
        """Score `ids`, whose places are the records' indexes; some places, where not all."""
        runtime = self.runtime
        if not ids:
            raise EngineError("there is nothing to score; the text has no tokens")
        began = time.monotonic()
        start = len(before)
        yield ScoreStart(runtime.tokenizer.pieces(ids), start, first=0 if start else 1)
        logprobs: list[float] = []
        whole = (*before, *ids)
        wanted = None if places is None else [start + place for place in places]
        told = (top_logprobs, on_progress, cancelled)
        for record in score(runtime, whole, start, *told, places=wanted, known=known):
            logprobs.append(record.logprob)
            yield replace(record, index=record.index - start)
        yield ScoreEnd(
            scored=len(logprobs),
            total_logprob=math.fsum(logprobs),
            perplexity=perplexity(logprobs),
            seconds=time.monotonic() - began,
            cancelled=cancelled(),
        )


def _ending(runtime: Runtime, stops: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """What ends a reply: the model's own end tokens, with the stop sequences that are control
    tokens; and the other stop sequences."""
    found = {stop: runtime.tokenizer.control_id(stop) for stop in stops}
    ids = {token_id for token_id in found.values() if token_id is not None}
    texts = tuple(stop for stop in stops if found[stop] is None)
    return tuple(sorted({*runtime.facts.end_ids, *ids})), texts


def _end_ids(
    runtime: Runtime, stops: tuple[str, ...], prompt_format: PromptFormat
) -> tuple[int, ...]:
    """The tokens that end a reply written in a format; a format's stops don't hang on the turns."""
    prompt = Prompt("", (Turn("user", "x"),), prompt_format)
    return _ending(runtime, (*stops, *render_prompt(runtime.tokenizer, prompt).rendered.stop))[0]
