"""One model at a time, and everything that can be asked of it."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator
from pathlib import Path

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource, Progress
from chatapp.chat.generation import GenerateOptions, GenerationEvent
from chatapp.chat.prompt import Prompt, RenderedPrompt, TokenPiece
from chatapp.engine.cache import PrefixCache
from chatapp.engine.controls import Controls
from chatapp.engine.decode import generate
from chatapp.engine.loader import LoadedModel, load
from chatapp.engine.prompt import render_prompt
from chatapp.engine.reply import Task
from chatapp.engine.tokenizer import ModelTokenizer

_DRY_BREAKERS = (b"\n", b":", b'"', b"*")
"""llama.cpp's default sequence breakers: repeats are not followed across them."""


class LocalEngine:
    """A loaded model with its KV cache.

    `generate` and `load` belong to one thread; `tokenize` and `render` may be called from another
    while a reply runs, since they only read.
    """

    def __init__(self, prepared: Path) -> None:
        """`prepared` is the folder that converted models are kept in."""
        self._prepared = prepared
        self._loaded: LoadedModel | None = None
        self._cache: PrefixCache | None = None
        self._dry_breakers: Callable[[], frozenset[int]] = frozenset

    def load(
        self,
        source: ModelSource,
        options: LoadOptions,
        on_progress: Callable[[Progress], None],
    ) -> ModelFacts:
        """Load a model in place of the one that is loaded. Raises EngineError."""
        self._loaded = self._cache = None  # two at once may be more than fits
        gc.collect()
        loaded = load(source, options, self._prepared, on_progress)
        self._cache = PrefixCache(loaded)
        self._dry_breakers = functools.cache(lambda: _find_dry_breakers(loaded.tokenizer))
        self._loaded = loaded
        return loaded.facts

    def generate(
        self, prompt: Prompt, options: GenerateOptions, controls: Controls
    ) -> Iterator[GenerationEvent]:
        """Write one reply. Raises EngineError when the prompt cannot be made."""
        loaded = self._model()
        assert self._cache is not None  # it comes and goes with the model
        made = render_prompt(loaded.tokenizer, prompt)
        end_ids = {*loaded.facts.end_ids}
        stops: list[str] = []
        for stop in (*options.stop, *made.rendered.stop):
            token_id = loaded.tokenizer.control_id(stop)
            if token_id is None:
                stops.append(stop)
            else:
                end_ids.add(token_id)
        task = Task(
            prompt_ids=tuple(made.ids),
            options=options,
            end_ids=tuple(sorted(end_ids)),
            stop=tuple(stops),
            reply_ids=tuple(made.reply_ids),
            dry_breakers=self._dry_breakers,
        )
        yield from generate(loaded, self._cache, task, controls)

    def tokenize(self, text: str) -> tuple[TokenPiece, ...]:
        """A text in tokens, as ordinary text. Raises EngineError when no model is loaded."""
        tokenizer = self._model().tokenizer
        return tokenizer.pieces(tokenizer.encode_text(text))

    def render(self, prompt: Prompt) -> RenderedPrompt:
        """What the model would read. Raises EngineError when it cannot be made."""
        return render_prompt(self._model().tokenizer, prompt).rendered

    def _model(self) -> LoadedModel:
        if self._loaded is None:
            raise EngineError("no model is loaded")
        return self._loaded


def _find_dry_breakers(tokenizer: ModelTokenizer) -> frozenset[int]:
    """Every id whose bytes hold a sequence breaker."""
    return frozenset(
        token_id
        for token_id in range(tokenizer.vocab_size)
        if any(breaker in tokenizer.token_bytes(token_id) for breaker in _DRY_BREAKERS)
    )
