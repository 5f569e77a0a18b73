"""Several continuations of one text, a row each, read by the model together.

One pass over the weights serves all rows, and passing over the weights is what decoding waits for.
All rows are of one length (they begin with the same prompt and grow by one token a step), so there
is no padding and no attention mask: a row's numbers are those it would have alone, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from chatapp.chat.errors import EngineError
from chatapp.engine.runtimes.cache import PrefixCache
from chatapp.engine.runtimes.loader import LoadedModel


class NoRows(EngineError):
    """A model whose cache cannot hold several continuations."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the model made of the ids it read."""

    logits: torch.Tensor
    """For the next token, (rows, V) float32, on the model's device."""
    hidden: torch.Tensor
    """The last hidden states of all that was read, (rows, n, d) float32; n is 0 where they were not
    asked for."""


class BatchCache:
    """A KV cache with rows that can be dropped, repeated and put in another order."""

    def __init__(self, loaded: LoadedModel, cache: Any = None) -> None:
        """Start from transformers' cache object (one row), which is changed, or from nothing."""
        self._loaded = loaded
        self._cache = cache

    @classmethod
    def after(cls, loaded: LoadedModel, prompt: PrefixCache) -> BatchCache:
        """One row that has read what the prefix cache holds; that cache is left as it is.

        Raises:
            NoRows: this model's cache has no rows to choose from.
        """
        batch = cls(loaded, prompt.copy())
        batch.check_rows()
        return batch

    def check_rows(self) -> None:
        """See whether `select` can be used, once something has been read.

        Raises:
            NoRows: it can't; so with xLSTM, say.
        """
        if self._cache is not None and not hasattr(self._cache, "reorder_cache"):
            facts = self._loaded.facts
            raise NoRows(
                f"{facts.name} ({facts.architecture}) keeps its state in a form that cannot be"
                " split into several continuations; use sampling with this model"
            )

    def select(self, rows: Sequence[int]) -> None:
        """Make row i what row rows[i] is now; a row may be named never, or several times."""
        # The name is transformers': it was made for beam search.
        self._cache.reorder_cache(torch.tensor(list(rows), device=self._loaded.input_device))

    def read(self, tokens: Sequence[Sequence[int]], *, hidden: bool = False) -> Reading:
        """Read further ids, as many for each row.

        Args:
            tokens: (rows, n) ids.
            hidden: whether to return the hidden states of what was read.
        """
        ids = torch.tensor([list(row) for row in tokens], device=self._loaded.input_device)
        arguments: dict[str, Any] = {"use_cache": True, "logits_to_keep": 1}
        if self._cache is not None:
            arguments[self._loaded.cache_argument] = self._cache
        if hidden:
            arguments["output_hidden_states"] = True
        output = self._loaded.model(ids, **arguments)
        self._cache = getattr(output, self._loaded.cache_argument)
        logits = output.logits[:, -1].float()
        states = output.hidden_states[-1].float() if hidden else logits.new_empty((len(ids), 0, 0))
        return Reading(logits, states)
