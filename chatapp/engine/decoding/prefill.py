"""Reading a prompt into a sequence so that it can be watched and stopped."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from chatapp.chat.facts import IsCancelled, Progress
from chatapp.engine.runtimes.base import Floats, KVSequence, Reading, Stopped, reuse

PROGRESS_SECONDS = 0.2
"""How often it is told how far the reading is."""


@dataclass(frozen=True, slots=True)
class Prefilled:
    """The prompt is in the sequence."""

    reading: Reading
    """What the model made of what had to be read; the logits after the last token alone."""
    cached_tokens: int
    """How many of the prompt's tokens the sequence held already."""

    @property
    def logits(self) -> Floats:
        """After the prompt's last token, (V,) float32."""
        last: Floats = self.reading.logits[-1]
        return last


def prefill(
    sequence: KVSequence, prompt_ids: Sequence[int], cancelled: IsCancelled, *, states: bool = False
) -> Generator[Progress, None, Prefilled | None]:
    """Make a sequence hold the prompt; yields how far it is.

    The library computes on a thread of its own, so that word of it goes out meanwhile.

    `sequence`: may hold some of the prompt, and other text behind it. `cancelled`: asked many times
    a second, and from another thread. Returns None when it was cancelled; what has been read stays
    in the sequence.
    """
    cached = reuse(sequence, prompt_ids)
    unread = prompt_ids[cached:]
    done = 0
    wanted = True

    def watch(count: int) -> bool:
        nonlocal done
        done = count
        return wanted and not cancelled()

    def progress() -> Progress:
        return Progress("reading the prompt", cached + done, len(prompt_ids), "tokens")

    with ThreadPoolExecutor(1, "prefill") as pool:
        reading = pool.submit(sequence.read, unread, watch=watch, states=states)
        try:
            while wait([reading], timeout=PROGRESS_SECONDS).not_done:
                yield progress()
        finally:
            wanted = False  # whoever watches has left, where it isn't done
    try:
        found = reading.result()
    except Stopped:
        return None
    yield progress()
    return Prefilled(found, cached)
