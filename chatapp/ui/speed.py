"""How fast something goes, from what was counted when."""

from __future__ import annotations

from collections import deque

WINDOW_SECONDS = 3.0


class Speed:
    """A rate over the last few seconds, in units a second."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque()

    def count(self, now: float, total: float) -> None:
        """Note how many units there are in all at a time."""
        self._points.append((now, total))
        while len(self._points) > 2 and now - self._points[1][0] > WINDOW_SECONDS:
            self._points.popleft()

    @property
    def rate(self) -> float:
        """Units a second; 0 before there are two points in time."""
        if len(self._points) < 2:
            return 0.0
        (start, first), (end, last) = self._points[0], self._points[-1]
        return (last - first) / (end - start) if end > start else 0.0

    def seconds_left(self, total: float) -> float | None:
        """How long the rest takes at this rate; None where it cannot be told."""
        if not self._points or self.rate <= 0 or total <= 0:
            return None
        return max(0.0, (total - self._points[-1][1]) / self.rate)
