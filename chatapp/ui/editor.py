"""Writing a message in the user's own editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from chatapp.chat.errors import ChatappError


def editor_command(environment: Mapping[str, str]) -> list[str]:
    """The program of $VISUAL or $EDITOR with its arguments.

    Raises ChatappError: neither is set, or it cannot be read.
    """
    line = environment.get("VISUAL") or environment.get("EDITOR") or ""
    try:
        command = shlex.split(line)
    except ValueError:
        raise ChatappError(f"cannot read the editor's command {line!r}; set EDITOR") from None
    if not command:
        raise ChatappError("no editor is set; set EDITOR or VISUAL, to nano for example")
    return command


def edit_text(text: str, command: list[str]) -> str:
    """Let an editor change a text; blocks until the editor ends.

    Raises ChatappError: the editor cannot be run, failed, or left something that is no text.
    """
    descriptor, name = tempfile.mkstemp(prefix="chatapp-", suffix=".md")
    path = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        try:
            status = subprocess.run([*command, name], check=False).returncode
        except OSError as error:
            raise ChatappError(f"cannot run {command[0]}: {error.strerror}; set EDITOR") from None
        if status:
            raise ChatappError(f"{command[0]} ended with status {status}; the text is unchanged")
        try:
            return path.read_text("utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError):
            raise ChatappError("what the editor left is no UTF-8 text; it is unchanged") from None
    finally:
        path.unlink(missing_ok=True)
