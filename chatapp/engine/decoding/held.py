"""The step a reply is held at: its logits and the state of the chain, for whoever asks about it.

Its token is not taken yet, so that neither the history of logits nor any record tells of it. The
decoder has both at hand and leaves them here; questions find them by the ids before the step, as
they find every other step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chatapp.engine.runtimes.base import Floats
from chatapp.engine.sampler.chain import Snapshot


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """One step of which nothing is taken yet."""

    ids: tuple[int, ...]
    """Prompt and reply before it."""
    logits: Floats
    """(V,)."""
    state: Snapshot
    """The chain's state before it."""


class HeldStep:
    """The step that was held last. Written by the thread that decodes, read by any other.

    It is not let go of when its token is taken: what it tells stays true, and only the next hold
    takes its place.
    """

    def __init__(self) -> None:
        self._held: Held | None = None

    def hold(self, ids: Sequence[int], logits: Floats, state: Snapshot) -> None:
        """A reply is held behind these ids."""
        self._held = Held(tuple(ids), logits, state)

    def after(self, ids: Sequence[int]) -> Held | None:
        """The step behind these ids, if it is the one."""
        held = self._held
        return held if held is not None and held.ids == tuple(ids) else None
