"""Files that conversations are written to: for their owner alone, whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from chatapp.chat.errors import StoreError


def write_private_file(
    path: Path, text: str, *, force: bool = False, way_out: str = "give another name"
) -> None:
    """Write a file that only its owner can read: it is a private conversation.

    It is written beside and then put in place, so that no half file is left. What is no file of its
    own is not replaced: a link stays and its target is written, a device or a pipe is written to.

    Args:
        path: where to.
        text: what to write.
        force: write over what is there.
        way_out: what a person can do about a file that is there.

    Raises:
        StoreError: it is there and may not be written over, or it cannot be written.
    """
    try:
        path = path.resolve()
        if path.is_symlink():  # newer Pythons resolve links in a circle to themselves
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if path.exists() and not force:
            raise StoreError(f"{path} is there already; {way_out}")
        if path.exists() and not path.is_file():
            path.write_text(text, "utf-8")
        else:
            _put_in_place(path, text)
    except (OSError, RuntimeError) as error:  # RuntimeError: older Pythons say it so
        words = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"{path} cannot be written: {words}") from None


def _put_in_place(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # O_EXCL: nobody else's file or link of that name is written into.
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
