"""Reading a text that is given: the logits for every one of its tokens, in one pass.

"Teacher forcing": the model is shown each token as it is in the text, whatever it would have said
itself. The pass has a sequence of its own, so the chat's stays as it is, and goes piece by piece,
since the logits of a long text for a whole vocabulary would not fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import IsCancelled, Progress, Report
from chatapp.engine.runtimes.base import (
    CannotFork,
    Floats,
    KVSequence,
    Runtime,
    Stopped,
    common_prefix,
)

PIECE_BYTES = 32 << 20
"""Memory for the logits of one piece."""

PIECE_TOKENS = 256
"""Tokens whose logits are made at once, at most."""


@dataclass(frozen=True, slots=True)
class ForcedLogits:
    """The logits for some neighbouring tokens of the text."""

    start: int
    """The index in the text of the token that the first row is about."""
    logits: Floats
    """(n, V): row i is what the model expected at `start` + i."""


def force(
    runtime: Runtime,
    ids: Sequence[int],
    start: int,
    on_progress: Report,
    cancelled: IsCancelled,
    known: KVSequence | None = None,
) -> Iterator[ForcedLogits]:
    """Yield the logits for the tokens of a text from index `start` (at least 1) on.

    The text is read in order, in pieces of `PIECE_TOKENS` or what `PIECE_BYTES` hold. A model that
    takes a text in one go only reads the text anew for each piece, which is slower and just as
    right. When `cancelled` becomes true it ends early.

    `cancelled`: asked many times a second. `known`: a sequence that has read the start of the text,
    maybe; it is left as it is. Raises EngineError: the text is longer than the model's context, or
    the model failed.
    """
    limit = runtime.facts.context_length
    if len(ids) > limit:
        raise EngineError(
            f"the text has {len(ids)} tokens and the model reads {limit}; give it in parts"
        )
    if start < 1:
        raise ValueError(f"the first token has no context; start at 1, not {start}")
    size = max(1, min(PIECE_TOKENS, PIECE_BYTES // (4 * runtime.facts.vocab_size)))
    total = len(ids) - 1  # nothing comes after the last token, so it need not be read

    with closing(_begin(runtime, ids, start, known)) as sequence:

        def watch(done: int) -> bool:
            on_progress(Progress("reading the text", before + done, total, "tokens"))
            return not cancelled()

        try:
            if cancelled():
                return
            before = len(sequence.ids)
            if before < start - 1 and runtime.reads_in_pieces:
                sequence.read(ids[before : start - 1], last=0, watch=watch)
            for place in range(start - 1, total, size):
                end = min(place + size, total)
                if not runtime.reads_in_pieces:
                    sequence.crop(0)
                before = len(sequence.ids)
                reading = sequence.read(ids[before:end], last=end - place, watch=watch)
                yield ForcedLogits(place + 1, reading.logits)
        except Stopped:
            return


def _begin(
    runtime: Runtime, ids: Sequence[int], start: int, known: KVSequence | None
) -> KVSequence:
    """A sequence that has read as much of the text before `start` as is known already."""
    shared = 0 if known is None else min(common_prefix(known.ids, ids), start - 1)
    if known is not None and shared:
        try:
            return known.fork(shared)
        except CannotFork:
            pass
    return runtime.sequence()
