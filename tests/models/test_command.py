"""`chatapp models`: what it writes where, and its exit status."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chatapp.chat.errors import ChatappError, FetchError
from chatapp.commands import models
from chatapp.models.catalog import catalog
from tests.models.samples import gguf_bytes
from tests.models.server import Server

REF = "tiny/File:x.gguf"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHATAPP_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def stored(server: Server) -> Path:
    server.repos["tiny/File"] = {"x.gguf": gguf_bytes(rows=4096)}
    return Path("data", "models", "tiny--File--x.gguf")


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    models.add_parser(parser.add_subparsers())
    args = parser.parse_args(["models", *words])
    status: int = args.run(args)
    return status


def test_list_shows_the_catalog(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert lines[0].split() == ["MODEL", "FORMAT", "SIZE", "MEMORY", "SPEED", "STATE"]
    assert [line.split()[0] for line in lines[1:]] == [entry.id for entry in catalog()]
    column = lines[0].index("STATE")
    assert all(line[column - 1] == " " != line[column] for line in lines)
    assert run() == 0
    again = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in again] == [line.split()[0] for line in lines]


def test_list_as_json(
    server: Server, stored: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("pull", REF)
    capsys.readouterr()
    assert run("list", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["ref"] for row in rows] == [REF, *(entry.id for entry in catalog())]
    assert [row["installed"] for row in rows] == [True] + [False] * len(catalog())
    assert rows[0]["path"] == str(home / stored)


def test_pull(server: Server, stored: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pull", REF) == 0
    out, err = capsys.readouterr()
    assert out == f"{home / stored}\n"
    assert "\r" not in err and "\x1b" not in err
    lines = err.splitlines()
    assert lines[0] == "chatapp: fetching x"
    assert lines[-2].startswith("fetching from the Hub 100 %")
    assert lines[-1] == "chatapp: x is ready"
    assert len(lines) < 12
    assert run("pull", REF, "--json", "--offline") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["fetched"] is False
    assert err == "chatapp: x was here already\n"


def test_pull_fails(server: Server) -> None:
    with pytest.raises(FetchError, match="no repository"):
        run("pull", "no/such")


def test_pull_offline() -> None:
    with pytest.raises(FetchError, match="network may not be used"):
        run("pull", "--offline")


def test_info(server: Server, stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("pull", REF)
    capsys.readouterr()
    assert run("info", REF) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["architecture"] == "llama"
    assert rows["parameters"] == f"{2 * 4096 * 32 + 32:,}"
    assert run("info", "--json") == 0
    assert json.loads(capsys.readouterr().out)["size"] == 98_362_432


def test_text_of_a_file_is_made_harmless(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "x.gguf"
    path.write_bytes(gguf_bytes().replace(b"apache-2.0", b"\x1b]52;c;xx\x07"))
    assert run("info", str(path)) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x07" not in out
    assert "52;c;xx" in out


def test_remove(
    server: Server, stored: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("pull", REF)
    capsys.readouterr()
    assert run("remove", REF) == 0
    assert capsys.readouterr().out.startswith(f"removed {REF} from {home / stored}")
    assert not (home / stored).exists()
    with pytest.raises(ChatappError, match="not on this machine"):
        run("remove", REF)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_interrupt_keeps_what_came(server: Server, stored: Path, home: Path) -> None:
    """Ctrl+C in the middle of a pull, in a process of its own: 130, and the part stays."""
    server.manner("x.gguf").silent_after = 40_000
    code = (
        # A suite that runs in the background of a script has Ctrl+C ignored, and hands that on.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "import argparse, sys; from chatapp.commands import models;"
        "parser = argparse.ArgumentParser(); models.add_parser(parser.add_subparsers());"
        f"args = parser.parse_args(['models', 'pull', {REF!r}]); sys.exit(args.run(args))"
    )
    part = (home / stored).with_name(f"{stored.name}.part")
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("fetching from the Hub"):
                break  # the first bytes are here
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == models.INTERRUPTED
    assert out == ""
    assert err.splitlines()[-1].startswith("chatapp: stopped; what came is kept")
    assert "Traceback" not in err
    assert part.exists()
    assert not (home / stored).exists()
