"""What may change while a reply runs."""

from __future__ import annotations

from chatapp.chat.sampling import SamplingParams


class Controls:
    """Written by the thread that reads requests, read by the one that decodes.

    Both attributes are immutable values that are replaced whole, so no lock is needed.
    """

    __slots__ = ("cancelled", "sampling")

    def __init__(self, sampling: SamplingParams) -> None:
        self.sampling = sampling
        """What the next token is drawn with."""
        self.cancelled = False
        """Whether the reply is to end before the next token."""
