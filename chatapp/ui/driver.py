"""The terminal, as one that may be gone at any moment.

When a window is closed, writing to its terminal fails. Textual's writing thread dies of that, its
queue fills up, and the program waits for ever to put in one more row, so that it could neither
save nor end. Here such a failure is the end of the drawing and of nothing else; the SIGHUP that
comes with it does the rest.
"""

from __future__ import annotations

import os
import sys
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textual.driver import Driver


class LossyFile:
    """A file that takes everything, and drops it once the terminal behind it is gone."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._gone = False

    def write(self, text: str) -> int:
        """Write, or drop."""
        if not self._gone:
            try:
                return self._file.write(text)
            except (OSError, ValueError):  # ValueError: it was closed
                self._gone = True
        return len(text)

    def flush(self) -> None:
        """Send on what was written, or drop it."""
        if not self._gone:
            try:
                self._file.flush()
            except (OSError, ValueError):
                self._gone = True

    def fileno(self) -> int:
        """The number of the file behind."""
        return self._file.fileno()

    def isatty(self) -> bool:
        """Whether the file behind is a terminal."""
        return self._file.isatty()


def driver_class() -> type[Driver] | None:
    """The driver for this system; None leaves the choice to Textual."""
    if sys.platform == "win32" or os.environ.get("TEXTUAL_DRIVER"):
        return None
    from textual.drivers.linux_driver import LinuxDriver

    class LossyDriver(LinuxDriver):
        """Draws as long as there is a terminal."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            if self._file is not None:
                self._file = LossyFile(self._file)  # type: ignore[assignment] # all it needs

    return LossyDriver
