"""One line on standard error that tells how far long work is.

In a terminal it is a bar that is drawn over itself; anywhere else it is a plain line now and then,
so that a log holds a handful of lines and not thousands.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Self, TextIO

from chatapp.chat import numbers
from chatapp.chat.facts import Progress
from chatapp.chat.text import sanitise

DRAW_SECONDS = 0.1
PLAIN_SECONDS = 10.0
PLAIN_SHARE = 0.25
"""Where it isn't a terminal, a line comes after this share of the whole, or this long."""
QUIET_SECONDS = 3.0
"""Where it isn't a terminal, work other than fetching is told of only when it takes this long."""
RATE_SECONDS = 1.0
"""Before a rate is told, so that the first bytes don't make it jump."""
BAR_CELLS = 20

_ERASE_LINE = "\r\x1b[K"


class ProgressLine:
    """Shows `Progress` values as they come. Writing never fails the work it tells about."""

    def __init__(self, stream: TextIO | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to a stream; None (a closed standard error) writes nothing."""
        self._stream = stream
        self._clock = clock
        self._terminal = stream is not None and stream.isatty()
        self._stage = ""
        self._began = 0.0
        self._first = 0
        self._drawn = 0.0
        self._told = 0
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, progress: Progress) -> None:
        """Show how far the work is, unless that was done a moment ago."""
        now = self._clock()
        fresh = progress.stage != self._stage
        if fresh:
            self._stage = progress.stage
            self._began, self._first, self._told = now, progress.done, progress.done
        complete = 0 < progress.total <= progress.done
        if self._terminal:
            if fresh or complete or now - self._drawn >= DRAW_SECONDS:
                self._drawn = now
                self._draw(sanitise(progress.stage), self._numbers(progress, now))
            return
        if progress.unit != "bytes" and now - self._began < QUIET_SECONDS:
            return
        more, share = progress.done - self._told, PLAIN_SHARE * progress.total
        due = more > 0 if complete else now - self._drawn >= PLAIN_SECONDS or 0 < share <= more
        if fresh or due:
            self._drawn, self._told = now, progress.done
            self._write(f"{sanitise(progress.stage)}{self._numbers(progress, now)}\n")

    def close(self) -> None:
        """Leave the terminal's line clean."""
        if self._open:
            self._write(_ERASE_LINE)
            self._open = False
        self._stage = ""

    def _numbers(self, progress: Progress, now: float) -> str:
        done, total = progress.done, progress.total
        words = ""
        if total > 0:
            share = min(done / total, 1)
            if self._terminal:
                filled = int(share * BAR_CELLS)
                words += f" {'█' * filled}{'░' * (BAR_CELLS - filled)}"
            words += f" {share * 100:3.0f} % {_amount(done, progress.unit)}"
            words += f" of {_amount(total, progress.unit)}"
        elif done:
            words += f" {_amount(done, progress.unit)}"
        elapsed = now - self._began
        if elapsed >= RATE_SECONDS and done > self._first:
            rate = (done - self._first) / elapsed
            words += f" · {_amount(rate, progress.unit)}/s"
            if total > done:
                words += f" · {duration((total - done) / rate)} left"
        return words

    def _draw(self, stage: str, numbers: str) -> None:
        """Draw over the line; where it is narrow the stage gives way, not the numbers."""
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns if self._stream else 80
        except (OSError, ValueError):
            columns = 80
        self._open = True
        room = max(columns - 1 - len(numbers), 0)
        if len(stage) > room:
            stage = stage[: max(room - 1, 0)] + "…"
        self._write(_ERASE_LINE + (stage + numbers)[: max(columns - 1, 1)])

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except UnicodeEncodeError:
            self._stream.write(text.encode("ascii", "replace").decode("ascii"))
        except (OSError, ValueError):  # closed, or a pipe nobody reads: the work goes on
            self._stream = None


def duration(seconds: float) -> str:
    """Seconds in words, none in parts: 8 s, 2 min 05 s, 1 h 02 min."""
    whole = max(round(seconds), 0)
    return f"{whole} s" if whole < 60 else numbers.duration(whole)


def _amount(count: float, unit: str) -> str:
    return numbers.size(round(count)) if unit == "bytes" else f"{count:,.0f} {unit}"
