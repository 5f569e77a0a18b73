"""Reading a prompt into the KV cache, in pieces, so that it can be watched and stopped."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch

from chatapp.chat.facts import Progress
from chatapp.engine.runtimes.cache import PrefixCache

PREFILL_CHUNK = 256
"""Tokens read at once: progress and cancelling come between chunks."""


@dataclass(frozen=True, slots=True)
class Prefilled:
    """The prompt is in the cache."""

    logits: torch.Tensor
    """After its last token, (V,) float32."""
    cached_tokens: int
    """How many of its tokens the cache held already."""


def prefill(
    cache: PrefixCache, prompt_ids: Sequence[int], cancelled: Callable[[], bool]
) -> Generator[Progress, None, Prefilled | None]:
    """Make the cache hold the prompt; yields how far it is.

    Returns:
        None when it was cancelled; what has been read stays in the cache.
    """
    cached = cache.reuse(prompt_ids)
    unread = prompt_ids[cached:]
    size = PREFILL_CHUNK if cache.chunkable else len(unread)
    for start in range(0, len(unread), size):
        logits = cache.read(unread[start : start + size])
        yield Progress("reading the prompt", len(cache.ids), len(prompt_ids), "tokens")
        if cancelled():
            return None
    return Prefilled(logits, cached)
