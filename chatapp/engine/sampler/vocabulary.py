"""What the sampler asks about a model's tokens besides their logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from chatapp.chat.errors import EngineError
from chatapp.engine.sampler.alive import Ids

Mask = npt.NDArray[np.bool_]

_DRY_BREAKERS = (b"\n", b":", b'"', b"*")
"""What no repeat that DRY finds reaches over, as in llama.cpp."""


class Vocabulary:
    """The tokens of one model by their bytes. What is found is kept."""

    def __init__(
        self,
        token_bytes: Callable[[int], bytes] = lambda _: b"",
        size: int = 0,
        end_ids: Sequence[int] = (),
        control_ids: Sequence[int] = (),
        encode: Callable[[str], Sequence[int]] = lambda _: (),
    ) -> None:
        """`size`: how many ids have bytes. `end_ids`: what ends a reply, once a grammar lets it.

        `encode`: the ids of a text that goes on; where a grammar leaves one text only, they come.
        """
        self._token_bytes = token_bytes
        self._size = size
        self._end_ids = tuple(end_ids)
        self._control_ids = tuple(control_ids)
        self._encode = encode
        self._matchers: dict[str, _Matcher] = {}

    @cached_property
    def dry_breakers(self) -> frozenset[int]:
        """Every id whose bytes hold something over which no repeat reaches."""
        return frozenset(
            token_id
            for token_id in range(self._size)
            if any(breaker in self._token_bytes(token_id) for breaker in _DRY_BREAKERS)
        )

    def allowed(self, grammar: str, reply_ids: Ids) -> Mask | None:
        """Which tokens may come next in a reply that a grammar holds.

        `grammar`: see `chatapp.chat.sampling.SamplingParams`. `reply_ids`: (n,), the reply so far.
        None where it has left the grammar already: a token was taken by hand. Raises EngineError:
        the grammar cannot be used.
        """
        if grammar not in self._matchers:
            self._matchers.clear()  # one reply has one, or few
            self._matchers[grammar] = _Matcher(grammar, self._tokenizer)
        return self._matchers[grammar].after(reply_ids.tolist())

    @cached_property
    def _tokenizer(self) -> Any:
        import llguidance

        if not self._end_ids:
            raise EngineError("this model names no end token, so a grammar cannot end its reply")
        wrapped = llguidance.TokenizerWrapper(_Tokens(self))
        return llguidance.LLTokenizer(wrapped, eos_token=list(self._end_ids))


class _Tokens:
    """A vocabulary by the names that llguidance looks for."""

    bos_token_id = None

    def __init__(self, own: Vocabulary) -> None:
        self.eos_token_id = own._end_ids[0]
        self.special_token_ids = [one for one in own._control_ids if one < own._size]
        self.tokens = [own._token_bytes(one) for one in range(own._size)]
        self._encode = own._encode

    def __call__(self, text: bytes) -> list[int]:
        return list(self._encode(text.decode("utf-8", "replace")))


NO_VOCABULARY = Vocabulary()
"""Nothing is known of any token."""


class _Matcher:
    """Where one reply stands in a grammar."""

    def __init__(self, grammar: str, tokenizer: Any) -> None:
        import llguidance

        kind, _, text = grammar.partition(":")
        try:
            compiled = llguidance.grammar_from(kind, text)  # type: ignore[arg-type]
        except (ValueError, TypeError) as error:
            raise EngineError(f"the {kind} of the reply cannot be used: {_line(error)}") from None
        self._matcher = llguidance.LLMatcher(tokenizer, compiled, log_level=0)
        if self._matcher.is_error():
            raise EngineError(
                f"the {kind} of the reply cannot be used: {_line(self._matcher.get_error())}"
            )
        self._ids: list[int] = []

    def after(self, ids: list[int]) -> Mask | None:
        same = 0
        while same < min(len(ids), len(self._ids)) and ids[same] == self._ids[same]:
            same += 1
        if same < len(self._ids):
            self._matcher.rollback(len(self._ids) - same)
            del self._ids[same:]
        for token_id in ids[same:]:
            if self._matcher.validate_tokens([token_id]) != 1:
                return None
            self._matcher.consume_token(token_id)
            self._ids.append(token_id)
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise EngineError(f"the reply's grammar failed: {_line(self._matcher.get_error())}")
        return np.unpackbits(bits, bitorder="little").astype(np.bool_)


def _line(error: object) -> str:
    return " ".join(str(error).split())[:200]
