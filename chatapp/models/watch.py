"""How long work here tells how far it is, and learns that it should stop."""

from __future__ import annotations

import time
from dataclasses import dataclass

from chatapp.chat.facts import IsCancelled, Progress, Report
from chatapp.models.errors import FetchStopped

_PAUSE_SECONDS = 0.1
"""How soon a stop is noticed while there is nothing to do but wait."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What the caller of a fetch gave to follow it with."""

    on_progress: Report | None = None
    cancelled: IsCancelled | None = None

    def is_stopped(self) -> bool:
        """Whether the user wants it to end."""
        return self.cancelled is not None and self.cancelled()

    def check(self) -> None:
        """Raise FetchStopped when the user wants it to end."""
        if self.is_stopped():
            raise FetchStopped("stopped; what came is kept, and the next fetch goes on from there")

    def bytes(self, stage: str, done: int, total: int) -> None:
        """Tell how many bytes are done; total 0 is an unknown end."""
        if self.on_progress is not None:
            self.on_progress(Progress(stage, done, total, "bytes"))

    def pause(self, seconds: float) -> None:
        """Wait, but not on after a stop. Raises FetchStopped."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _PAUSE_SECONDS))
        self.check()
