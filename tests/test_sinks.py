"""Every way out of the command line, looked at as the bytes that reach a terminal."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pexpect
import pytest

from chatapp.settings.paths import Paths
from tests.terminal import LIMIT_SECONDS

HOSTILE = "a\x1b]52;c;aGk=\x07\x1b[2J\x9b31m\u202egnp.\x7f"
OBEYED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
)
OURS = "\r\x1b[K"
"""How a progress line is drawn over itself."""


def told(home: Path, *arguments: str) -> str:
    """What a terminal is sent by a call, standard error included."""
    child = pexpect.spawn(
        sys.executable,
        ["-m", "chatapp", *arguments],
        env={**os.environ, "CHATAPP_HOME": str(home), "TERM": "xterm-256color"},
        timeout=LIMIT_SECONDS,
        encoding="utf-8",
        codec_errors="backslashreplace",
    )
    child.expect(pexpect.EOF)
    child.close()
    return str(child.before).replace(OURS, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("ask", "x", "-m", HOSTILE),
        ("ask", "x", "--template", HOSTILE),
        ("ask", "x", "-f", HOSTILE),
        ("ask", "x", f"--{HOSTILE}"),
        ("models", "info", HOSTILE),
        ("models", "pull", HOSTILE),
        ("models", "remove", HOSTILE),
        ("chats", "show", HOSTILE),
        ("chats", "search", HOSTILE),
        ("chats", "import", HOSTILE),
        ("score", "x", "-f", HOSTILE),
        (HOSTILE,),
    ],
    ids=lambda arguments: "-".join(arguments[:2]).encode("unicode_escape").decode()[:20],
)
def test_a_name_is_never_obeyed(home: Path, arguments: tuple[str, ...]) -> None:
    text = (
        told(home, "--offline", *arguments) if arguments == (HOSTILE,) else told(home, *arguments)
    )
    assert text.strip()
    assert not OBEYED.search(text.replace("\r\n", "")), ascii(text)


def test_nor_are_folders_templates_and_settings(home: Path, paths: Paths, tiny_gguf: str) -> None:
    own = home.with_name(f"home{HOSTILE}")
    for folder, ending in (("templates", ".toml"), ("formats", ".jinja")):
        file = own / "config" / folder / f"{HOSTILE}{ending}"
        file.parent.mkdir(parents=True)
        file.write_text(f"name = '{HOSTILE}' {{% {HOSTILE}")
    seen = [
        told(own, "paths"),
        told(own, "paths", "--json"),
        told(own, "ask", "hi", "-m", tiny_gguf, "--max-tokens", "40", "-t", "2", "--seed", "1"),
        told(own, "ask", "hi", "-m", tiny_gguf, "--max-tokens", "40", "-t", "2", "--json"),
        told(own, "score", HOSTILE, "-m", tiny_gguf),
        told(own, "score", HOSTILE, "-m", tiny_gguf, "--json"),
        told(own, "inspect", "tokens", HOSTILE, "-m", tiny_gguf),
        told(own, "inspect", "tokens", HOSTILE, "-m", tiny_gguf, "--json"),
        told(own, "inspect", "neighbors", HOSTILE, "-m", tiny_gguf),
        told(own, "chats", "list"),
        told(own, "chats", "search", "hi"),
    ]
    (own / "config" / "config.toml").write_text(f"theme = {HOSTILE!r}\nnonsense = 1\n")
    seen.append(told(own, "chats", "list"))
    for text in seen:
        assert not OBEYED.search(text.replace("\r\n", "")), ascii(text)
    assert "202E" in seen[0] and "u202e" in seen[1]  # shown, and not left out
