"""What goes wrong when conversations are brought in."""

from __future__ import annotations

from chatapp.chat.errors import StoreError

LAST_TIME = 253402300799.0
"""The last second of the year 9999: later times cannot be shown."""


class ImportFailed(StoreError):
    """A file that holds no conversation we can read; the message says why."""
