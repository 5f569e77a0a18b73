"""Reads a text file that goes with a message, for the interface and the command line alike."""

from __future__ import annotations

import stat
from pathlib import Path

from chatapp.chat.attachment import MOST_BYTES, Attachment, AttachmentError, read_attachment


def read_file(path: Path) -> Attachment:
    """Read a text file. Raises AttachmentError."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "no ordinary file"
            raise AttachmentError(f"{path} is {what}; only a text file can be attached")
        if status.st_size > MOST_BYTES:
            return read_attachment(path.name, b"", status.st_size)
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise AttachmentError(f"cannot read {path}: {reason}") from None
    return read_attachment(path.name, data, max(status.st_size, len(data)))
