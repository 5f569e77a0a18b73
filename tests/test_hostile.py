"""What a real terminal is sent when names, texts, titles, tokens and errors are made to harm it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import shutil
import sys
import threading
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from chatapp.chat.conversation import Conversation, Message
from chatapp.cli import main
from chatapp.settings.paths import default_paths
from chatapp.store.formats.own_json import export_json
from tests.store.samples import make_reply
from tests.terminal import Terminal

HOSTILE = "\x1b]0;PWNED\x07\x1b[31mPWNED\x9b7mPWNED\u202ePWNED\x7fPWNED\x1bPPWNED\x1b\\\u2066PWNED"
"""Sets a window's title, colours, turns the direction of text, begins what a terminal swallows."""
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

OWN = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1bP[^\x1b]*\x1b\\|\x1b[ -OQ-Z\\^-~]"
)
"""What the program itself sends: sequences of all kinds."""

Typed = Callable[..., str]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Typed:
    """The program's command line with a pseudo-terminal for both outputs; what that was sent."""

    def typed(*arguments: str) -> str:
        outer, inner = pty.openpty()
        sent = bytearray()

        def read() -> None:
            while True:
                try:
                    sent.extend(os.read(outer, 65536))
                except OSError:  # the other end is closed
                    return

        reader = threading.Thread(target=read)
        reader.start()
        with monkeypatch.context() as patch, os.fdopen(inner, "wb", buffering=0) as terminal:
            for name in ("stdout", "stderr"):
                stream = io.TextIOWrapper(terminal, "utf-8", write_through=True)
                patch.setattr(sys, name, stream)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
            with contextlib.suppress(SystemExit):
                main(arguments)
        reader.join()
        os.close(outer)
        return sent.replace(b"\r\n", b"\n").replace(b"\r\x1b[K", b"").decode()

    return typed


def obeyed(text: str) -> list[str]:
    """The characters of a text that a terminal would do something about."""
    return [c for c in text if (unicodedata.category(c) == "Cc" and c not in "\n\t") or c in BIDI]


@pytest.fixture
def hostile_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_gguf: str) -> Path:
    """A home of a hostile name with a model, templates, a chat and files, all of hostile names."""
    home = tmp_path / HOSTILE.replace("/", "")
    monkeypatch.setenv("CHATAPP_HOME", str(home))
    paths = default_paths()
    for folder in (paths.templates, paths.formats, paths.models):
        folder.mkdir(parents=True)
    (paths.templates / f"{HOSTILE}.toml").write_text("system = 3\n")
    (paths.templates / "other.toml").write_text(f"name = {json.dumps(HOSTILE)}\nx = 1\n")
    (paths.formats / f"{HOSTILE}.jinja").write_bytes(b"\xff")
    shutil.copy(tiny_gguf, paths.models / f"{HOSTILE}.gguf")
    shutil.copy(tiny_gguf, tmp_path / f"{HOSTILE}.gguf")
    (tmp_path / f"{HOSTILE}.json").write_text(HOSTILE)
    (tmp_path / "damaged.gguf").write_bytes(b"GGUF" + HOSTILE.encode())
    return home


def test_no_command_sends_a_terminal_what_it_obeys(
    hostile_home: Path, typed: Typed, tmp_path: Path
) -> None:
    chat = tmp_path / "chat.json"
    chat.write_text(json.dumps(hostile_chat()))
    model = ("-m", str(tmp_path / f"{HOSTILE}.gguf"), "--threads", "1")
    few = (*model, "--max-tokens", "6", "-t", "2", "--seed", "1")
    recorded = tmp_path / f"{HOSTILE}.jsonl"
    recorded.write_text(json.dumps({"type": "start", "model": HOSTILE, "prompt_ids": [1]}))
    forms = ("json", "md", "html", "jsonl", "csv")
    calls = [
        ("paths",),
        ("paths", "--json"),
        (HOSTILE,),
        ("ask", f"--{HOSTILE}"),
        ("chats", "import", str(chat)),
        ("chats", "import", str(tmp_path / f"{HOSTILE}.json")),
        ("chats", "import", str(tmp_path / f"{HOSTILE} is not there")),
        ("chats", "list"),
        ("chats", "list", "--json"),
        ("chats", "search", "PWNED"),
        ("chats", "search", "PWNED", "--json"),
        ("chats", "show", "0123"),
        ("chats", "show", "0123", "--json"),
        *(("chats", "export", "0123", "--format", form) for form in forms),
        ("chats", "export", "0123", "-o", str(tmp_path / f"{HOSTILE}.md")),
        ("chats", "export", "0123", "-o", str(tmp_path / HOSTILE / "no" / "folder.md")),
        ("chats", "delete", HOSTILE),
        *(("inspect", "tokens", HOSTILE, *model, *form) for form in ((), ("--json",))),
        ("inspect", "neighbors", HOSTILE, *model),
        ("models", "list"),
        ("models", "list", "--json"),
        *(("models", what, HOSTILE) for what in ("info", "pull", "remove")),
        *(("models", what, f"{HOSTILE}/{HOSTILE}") for what in ("info", "pull", "remove")),
        ("models", "info", model[1]),
        ("models", "info", model[1], "--json"),
        ("models", "pull", model[1]),
        ("models", "pull", model[1], "--json"),
        ("models", "remove", f"{HOSTILE}.gguf"),
        ("ask", HOSTILE, *few, "--json", "--trace"),
        ("ask", HOSTILE, *few, "--n", "2"),
        ("ask", HOSTILE, *few, "-c"),
        ("ask", HOSTILE, "-m", str(tmp_path / HOSTILE)),
        ("ask", "hello", "-f", str(tmp_path / HOSTILE / "none"), *few),
        ("ask", "hello", "--template", HOSTILE, *few),
        ("ask", "hello", "--format", HOSTILE, *few),
        ("ask", "--replay", str(recorded), *few),
        ("score", HOSTILE, *model),
        ("score", HOSTILE, *model, "--json"),
        ("score", "-f", str(tmp_path / HOSTILE / "none"), *model),
    ]
    for arguments in calls:
        sent = typed(*arguments)
        assert not obeyed(sent), (arguments, sent)
        assert "PWNED" in sent, arguments
    default_paths().config.mkdir(parents=True, exist_ok=True)
    for words in (f"{json.dumps(HOSTILE)} = 1\n", f"model = {json.dumps(HOSTILE)}\n", HOSTILE):
        (default_paths().config / "settings.toml").write_text(words)
        sent = typed("ask", "hello", "-m", str(tmp_path / "damaged.gguf"))
        assert not obeyed(sent), (words, sent)
        assert "PWNED" in sent, words


@pytest.mark.terminal
def test_the_screen_sends_a_terminal_nothing_of_it(
    hostile_home: Path, typed: Typed, tmp_path: Path
) -> None:
    chat = tmp_path / "chat.json"
    chat.write_text(json.dumps(hostile_chat()))
    assert not obeyed(typed("chats", "import", str(chat)))
    model = str(tmp_path / f"{HOSTILE}.gguf")
    options = ("--threads", "1", "--max-tokens", "20", "-t", "2", "--resume", "0123")
    with Terminal("-m", model, *options) as terminal:
        terminal.wait_for("ctx ")
        terminal.wait_for("PWNED")
        terminal.send("PWNED?\r")
        terminal.wait_for("PWNED?")
        terminal.wait_for("/continue goes on")
        terminal.send("\x0f")  # the list of chats
        terminal.wait_for("enter open")
        terminal.send("\x1b")
        terminal.wait(lambda text: "enter open" not in text, "the chat")
        terminal.send("\x11")
        terminal.wait_for("left with status 0")
        sent = terminal.raw.decode()
    # What is left when the program's own sequences are taken out is text; theirs hold none of it.
    rest = OWN.sub(_own, sent)
    assert not [c for c in obeyed(rest) if c not in "\r\x0f"], rest
    assert "PWNED" in rest


def _own(match: re.Match[str]) -> str:
    assert "PWNED" not in match.group()
    assert match.string[match.end() :][:5] != "PWNED" or match.group() != "\x1b[31m"
    return ""


def hostile_chat() -> object:
    """Our own JSON, hostile wherever a text can stand."""
    reply = make_reply(3, candidates=2)
    first = reply.records[0]
    candidates = tuple(replace(c, token=HOSTILE, bytes=HOSTILE.encode()) for c in first.candidates)
    record = replace(
        first, token=HOSTILE, bytes=HOSTILE.encode(), text=HOSTILE, candidates=candidates
    )
    reply = replace(
        reply, model=HOSTILE, runtime=HOSTILE, error=HOSTILE, records=(record,), model_sha256="x"
    )
    question = Message(id="a", parent=None, role="user", text=HOSTILE, created=1.0)
    answer = Message(id="b", parent="a", role="assistant", text=HOSTILE, created=1.0, reply=reply)
    conversation = Conversation(
        id="0123456789abcdef", created=1.0, title=HOSTILE, system=HOSTILE, model=HOSTILE
    )
    for message in (question, answer):
        conversation = conversation.with_message(message)
    return json.loads(export_json([conversation]))
