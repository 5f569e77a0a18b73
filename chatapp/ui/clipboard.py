"""Copying, and telling honestly what was done.

A terminal may or may not obey OSC 52 and never says which (macOS Terminal ignores it), so a local
tool is used as well where there is one; only a tool's success is called "copied".
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence

_TOOLS: Sequence[tuple[str, Sequence[str], str]] = (
    ("pbcopy", (), ""),
    ("wl-copy", (), "WAYLAND_DISPLAY"),
    ("xclip", ("-selection", "clipboard"), "DISPLAY"),
    ("xsel", ("--clipboard", "--input"), "DISPLAY"),
    ("clip.exe", (), "WSL_DISTRO_NAME"),
)
"""Program, arguments, and the variable without which it cannot work."""

_TOOL_SECONDS = 2.0


def find_tool(
    environment: Mapping[str, str] = os.environ,
    which: Callable[[str], str | None] = shutil.which,
) -> tuple[str, ...] | None:
    """The command that puts its standard input on this machine's clipboard, if there is one."""
    if "SSH_CONNECTION" in environment:
        return None  # that clipboard would be the other machine's
    for program, arguments, variable in _TOOLS:
        if (not variable or variable in environment) and (path := which(program)):
            return (path, *arguments)
    return None


async def copy_with_tool(command: Sequence[str], text: str) -> bool:
    """Give a text to a clipboard tool. Returns whether it said that it worked."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return False
    try:
        await asyncio.wait_for(process.communicate(text.encode("utf-8", "replace")), _TOOL_SECONDS)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return False
    return process.returncode == 0


def outcome(what: str, tool: Sequence[str] | None, worked: bool) -> str:
    if tool is not None and worked:
        return f"copied {what}"
    asked = f"asked the terminal to copy {what} (OSC 52; not every terminal does)"
    if tool is not None:
        return f"{asked}; {os.path.basename(tool[0])} failed"
    return asked
