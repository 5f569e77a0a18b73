"""What the sampler asks about a model's tokens besides their logits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from chatapp.chat.errors import EngineError
from chatapp.chat.thinking import Thinking
from chatapp.engine.sampler.alive import Ids

if TYPE_CHECKING:
    from llguidance import LLMatcher

Mask = npt.NDArray[np.bool_]

_DRY_BREAKERS = (b"\n", b":", b'"', b"*")
"""What no repeat that DRY finds reaches over, as in llama.cpp."""


_FREELY = '%llguidance {"no_forcing": true}\n'
"""Where a grammar leaves one text only, every token that begins it may come, not its usual ones."""

_KEPT = 8
"""Replies that are followed at once: those side by side, and what is looked into meanwhile."""

_TAIL = 32
"""Tokens at the end of a prompt in which a mark of thinking is looked for."""


class Vocabulary:
    """The tokens of one model by their bytes. What is found is kept; threads may share it."""

    def __init__(
        self,
        token_bytes: Callable[[int], bytes] = lambda _: b"",
        size: int = 0,
        control_ids: Sequence[int] = (),
        encode: Callable[[str], Sequence[int]] = lambda _: (),
        thinking: Thinking = Thinking(),  # noqa: B008 (a value)
    ) -> None:
        """`size`: how many ids have bytes. `encode`: the ids of a text that goes on."""
        self._token_bytes = token_bytes
        self._size = size
        self._control_ids = tuple(control_ids)
        self._encode = encode
        self._thinking = thinking
        self._lock = threading.Lock()
        self._matchers: list[tuple[str, tuple[int, ...], LLMatcher]] = []
        """Grammars with what of a reply each has read; used last, first."""

    @cached_property
    def dry_breakers(self) -> frozenset[int]:
        """Every id whose bytes hold something over which no repeat reaches."""
        return frozenset(
            token_id
            for token_id in range(self._size)
            if any(breaker in self._token_bytes(token_id) for breaker in _DRY_BREAKERS)
        )

    def allowed(self, grammar: str, ids: Ids, start: int, ends: Ids) -> Mask:
        """Which tokens may come next in a reply that a grammar holds, (V,).

        An end may come only where the reply is complete. Thinking that the prompt has begun is
        free, and cannot end the reply.

        Args:
            grammar: see `chatapp.chat.sampling.SamplingParams`.
            ids: (n,), the prompt and the reply so far.
            start: where in them the reply begins.
            ends: the tokens that end it.

        Raises EngineError: the grammar cannot be used, or the reply has left it.
        """
        if not ends.size:
            raise EngineError("this model names no end token, so a grammar cannot end its reply")
        with self._lock:
            answer = self._answer(ids, start)
            if answer is None:
                mask, complete = np.ones(self._size, np.bool_), False
            else:
                matcher = self._matcher(grammar, answer)
                bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
                mask = np.unpackbits(bits, bitorder="little")[: self._size].astype(np.bool_)
                complete = matcher.is_accepting()
                _check(matcher, grammar)
            mask[ends[ends < self._size]] = complete
            return mask

    def _answer(self, ids: Ids, start: int) -> tuple[int, ...] | None:
        """What of the reply the grammar is about; None while the reply thinks."""
        written: tuple[int, ...] = tuple(ids[start:].tolist())
        begun, close = self._thinking.open.encode(), self._thinking.close.encode()
        before = self._text(ids[max(start - _TAIL, 0) : start].tolist())
        if not before.rstrip().endswith(begun):
            return written
        if (place := self._text(written).find(close)) < 0:
            return None
        length, count = 0, 0
        while length < place + len(close):
            length += len(self._token_bytes(written[count]))
            count += 1
        return written[count:]

    def _text(self, ids: Iterable[int]) -> bytes:
        return b"".join(map(self._token_bytes, ids))

    def _matcher(self, grammar: str, written: tuple[int, ...]) -> LLMatcher:
        """The grammar's state behind these tokens."""
        for place, (text, read, known) in enumerate(self._matchers):
            if text == grammar and written[: len(read)] == read:
                del self._matchers[place]
                matcher = known
                break
        else:
            from llguidance import LLMatcher, LLParserLimits

            limits = LLParserLimits(verbose_errors=False)
            read, source = (), compiled(grammar)
            matcher = LLMatcher(self._tokenizer, source, log_level=0, limits=limits)
            _check(matcher, grammar)
        if not matcher.consume_tokens(list(written[len(read) :])):
            raise EngineError(
                "what is written of the reply does not fit what it is held to; branch from before"
                " that, or free it with /schema off"
            )
        self._matchers = [(grammar, written, matcher), *self._matchers[: _KEPT - 1]]
        return matcher

    @cached_property
    def _tokenizer(self) -> Any:
        import llguidance

        return llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Tokens(self)))


class _Tokens:
    """A vocabulary by the names that llguidance looks for, with an end that no reply has."""

    bos_token_id = None

    def __init__(self, own: Vocabulary) -> None:
        self.eos_token_id = own._size
        self.special_token_ids = [*(one for one in own._control_ids if one < own._size), own._size]
        self.tokens = [*map(own._token_bytes, range(own._size)), b"<end>"]
        self._encode = own._encode

    def __call__(self, text: bytes) -> list[int]:
        return list(self._encode(text.decode("utf-8", "replace")))


NO_VOCABULARY = Vocabulary()
"""Nothing is known of any token."""


def compiled(grammar: str) -> str:
    """A grammar of `SamplingParams` as llguidance takes it. Raises ValueError."""
    import llguidance

    kind, _, text = grammar.partition(":")
    if kind == "json":
        return f"{_FREELY}start: %json {text}"
    if kind == "regex":
        text = f"start: /{llguidance.regex_to_lark(text)}/"
    return text if text.startswith("%llguidance") else _FREELY + text


def _check(matcher: LLMatcher, grammar: str) -> None:
    if matcher.is_error():
        kind = grammar.partition(":")[0]
        words = " ".join(matcher.get_error().split())[:200]
        raise EngineError(f"the {kind} of the reply cannot be used: {words}")
