"""Reading a text that is given: the logits for every one of its tokens, in one pass.

"Teacher forcing": the model is shown each token as it is in the text, whatever it would have said
itself. The pass has a KV cache of its own, so the chat's stays as it is, and goes piece by piece,
since the logits of a long text for a whole vocabulary would not fit into memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import Progress
from chatapp.engine.runtimes.loader import LoadedModel

PIECE_BYTES = 32 << 20
"""Memory for the logits of one piece."""

PIECE_TOKENS = 256
"""Tokens read at once, at most: progress and cancelling come between pieces."""


@dataclass(frozen=True, slots=True)
class ForcedLogits:
    """The logits for some neighbouring tokens of the text."""

    start: int
    """The index in the text of the token that the first row is about."""
    logits: torch.Tensor
    """(n, V) float32, on the CPU: row i is what the model expected at `start` + i."""


def force(
    loaded: LoadedModel,
    ids: Sequence[int],
    start: int,
    on_progress: Callable[[Progress], None],
    cancelled: Callable[[], bool],
) -> Iterator[ForcedLogits]:
    """Yield the logits for the tokens of a text from index `start` (at least 1) on.

    The text is read in order, in pieces of `PIECE_TOKENS` or what `PIECE_BYTES` hold. A model with
    a recurrent state takes a text in one go only; it reads the text anew for each piece, which is
    slower and just as right. When `cancelled` becomes true it ends early.

    Raises:
        EngineError: the text is longer than the model's context, or the model failed.
    """
    limit = loaded.facts.context_length
    if len(ids) > limit:
        raise EngineError(
            f"the text has {len(ids)} tokens and the model reads {limit}; give it in parts"
        )
    if start < 1:
        raise ValueError(f"the first token has no context; start at 1, not {start}")
    rows = piece_rows(loaded.facts.vocab_size)
    how = _read_anew if loaded.recurrent else _read_on
    read = how(loaded, ids, start, rows)
    total = len(ids) - 1  # nothing comes after the last token, so it need not be read
    while not cancelled():
        try:
            with torch.inference_mode():
                piece = next(read, None)
        except (RuntimeError, MemoryError) as error:
            words = str(error).strip().split("\n", 1)[0][:200] or type(error).__name__
            raise EngineError(f"the model failed while it read the text: {words}") from error
        if piece is None:
            return
        rows_read = piece.logits.shape[0]
        on_progress(Progress("reading the text", piece.start - 1 + rows_read, total, "tokens"))
        if rows_read:
            yield piece


def piece_rows(vocab_size: int) -> int:
    """How many tokens' logits are made at once."""
    return max(1, min(PIECE_TOKENS, PIECE_BYTES // (4 * vocab_size)))


def _read_on(
    loaded: LoadedModel, ids: Sequence[int], start: int, rows: int
) -> Iterator[ForcedLogits]:
    """Pieces of the text, each read behind the ones before."""
    cache: Any = None
    place = 0
    while place < len(ids) - 1:
        wanted = place >= start - 1
        end = min(place + rows, len(ids) - 1) if wanted else min(place + PIECE_TOKENS, start - 1)
        arguments = {} if cache is None else {loaded.cache_argument: cache}
        tokens = torch.tensor([list(ids[place:end])], device=loaded.input_device)
        keep = end - place if wanted else 1
        output = loaded.model(tokens, use_cache=True, logits_to_keep=keep, **arguments)
        cache = getattr(output, loaded.cache_argument)
        logits = output.logits[0, -keep:] if wanted else output.logits[0, :0]
        yield ForcedLogits(place + 1 if wanted else end + 1, logits.float().cpu())
        place = end


def _read_anew(
    loaded: LoadedModel, ids: Sequence[int], start: int, rows: int
) -> Iterator[ForcedLogits]:
    """The text from its beginning for every piece, with the logits of that piece alone."""
    for place in range(start - 1, len(ids) - 1, rows):
        end = min(place + rows, len(ids) - 1)
        tokens = torch.tensor([list(ids[:end])], device=loaded.input_device)
        keep = end - place
        output = loaded.model(tokens, use_cache=False, logits_to_keep=keep)
        yield ForcedLogits(place + 1, output.logits[0, -keep:].float().cpu())
