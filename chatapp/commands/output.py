"""What commands write: the answer to standard output, all else to standard error, chats to files.

Whatever a terminal shows passes through here, so that nothing in a model's or a user's text can
move its cursor; a pipe gets the exact text.
"""

from __future__ import annotations

import dataclasses
import errno
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chatapp.chat.errors import ChatappError, StoreError
from chatapp.chat.text import sanitise


def check_standard_output() -> None:
    """Raise ChatappError where there is none, before work is done for nothing."""
    if sys.stdout is None:
        raise ChatappError("standard output is closed; there is nowhere to write to")


def write(text: str, end: str = "\n") -> None:
    """To standard output, at once: exact in a pipe, harmless on a terminal. Raises ChatappError."""
    check_standard_output()
    sys.stdout.write((sanitise(text) if sys.stdout.isatty() else text) + end)
    sys.stdout.flush()


def write_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as what stands in them; the last one runs free."""
    lines = [tuple(map(sanitise, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        write("  ".join(cells).rstrip())


def tell(text: str) -> None:
    """A notice on standard error, which may be closed."""
    if sys.stderr is not None:
        print(f"chatapp: {sanitise(text)}", file=sys.stderr, flush=True)


def plain(value: Any) -> Any:
    """A value as JSON has it: dataclasses are objects, bytes lists; what is not finite is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes | tuple | list):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    return str(value) if isinstance(value, Path) else value


def write_json(value: Any) -> None:
    """One value on one line, as chatapp.chat.jsonlines writes them."""
    from chatapp.chat.jsonlines import json_line

    write(json_line(plain(value) if dataclasses.is_dataclass(value) else value))


def write_private_file(
    path: Path, text: str, *, force: bool = False, way_out: str = "give another name"
) -> None:
    """Write a file that only its owner can read, whole or not at all: a private conversation.

    What is no file of its own is not replaced: a link stays and its target is written, a device or
    a pipe is written to.

    `way_out`: what the user can do about a file that is there. Raises StoreError: it is there and
    may not be written over, or it cannot be written.
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
            from chatapp.settings.paths import put_in_place

            put_in_place(path, text)
    except (OSError, RuntimeError) as error:  # RuntimeError: older Pythons say it so
        words = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"{path} cannot be written: {words}") from None
