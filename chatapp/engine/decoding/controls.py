"""What may change while a reply runs: the parameters, the pace, and whether it goes on at all."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from chatapp.chat.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class Leave:
    """A held reply may take one token."""

    token_id: int | None = None
    """The one the user chose; None draws it."""


class Controls:
    """Written by the thread that reads requests, read by the one that decodes.

    The decoder looks once at the top of every step. While the reply is paused it waits in `hold`,
    which comes back whenever something it should act on has changed.
    """

    def __init__(self, sampling: SamplingParams) -> None:
        self._changed = threading.Condition()
        self._sampling = sampling
        self._cancelled = False
        self._paused = False
        self._leaves: list[Leave] = []

    @property
    def sampling(self) -> SamplingParams:
        """What the next token is drawn with."""
        return self._sampling

    @sampling.setter
    def sampling(self, sampling: SamplingParams) -> None:
        with self._changed:
            self._sampling = sampling
            self._changed.notify()

    @property
    def cancelled(self) -> bool:
        """Whether the reply is to end before the next token."""
        return self._cancelled

    def cancel(self) -> None:
        with self._changed:
            self._cancelled = True
            self._changed.notify()

    def pause(self) -> None:
        with self._changed:
            self._paused = True

    def resume(self) -> None:
        """Go on by itself, once what the user chose is taken."""
        with self._changed:
            self._paused = False
            self._leaves = [leave for leave in self._leaves if leave.token_id is not None]
            self._changed.notify()

    def step(self, token_ids: Sequence[int] = ()) -> None:
        """Take one drawn token, or all of these in order, and hold again."""
        with self._changed:
            self._leaves += [Leave(token_id) for token_id in token_ids or (None,)]
            self._changed.notify()

    @property
    def chosen(self) -> int:
        """How many tokens that the user chose are still to be taken."""
        with self._changed:
            return sum(leave.token_id is not None for leave in self._leaves)

    def leave(self) -> Leave | None:
        """Whether a token may be taken now; None while the reply is held."""
        with self._changed:
            if self._leaves:
                return self._leaves.pop(0)
            return None if self._paused else Leave()

    def hold(self, seen: SamplingParams) -> None:
        """Wait until the reply may go on, ends, or has parameters other than those seen."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._cancelled
                    or bool(self._leaves)
                    or not self._paused
                    or self._sampling is not seen
                )
            )
