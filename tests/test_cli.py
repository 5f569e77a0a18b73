"""The command line as the user calls it: what it answers, and how it fails."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Call, one_line

PROGRAM = [sys.executable, "-m", "chatapp"]


def test_help_and_version(call: Call) -> None:
    assert "ask" in call("--help").stdout
    assert call("--version").stdout.startswith("chatapp ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask", "hi", "--temperature", "hot"], "temperature must be a number between 0 and 5"),
        (["ask", "hi", "--temperature", "nan"], "temperature must be"),
        (["ask", "hi", "--top-k", "-5"], "top_k must be a whole number of at least 0, not -5"),
        (["ask", "hi", "--top-p", "1.5"], "top_p must be a number between 0 and 1"),
        (["ask", "hi", "--max-tokens", "many"], "max-tokens must be a whole number"),
        (["ask", "hi", "--top-logprobs", "-1"], "top-logprobs must be"),
        (["ask", "hi", "--no-such-option"], "unrecognized arguments"),
        (["ask", "hi", "-c", "--resume", "x"], "not allowed with"),
        (["ask"], "there is no prompt"),
        (["ask", "   "], "there is no prompt"),
        (["ask", "hi", "--template", "assistent"], "did you mean assistant"),
        (["ask", "hi", "--format", "chatlm"], "did you mean chatml"),
        (["ask", "hi", "--device", "toaster"], "--device must be one of"),
        (["ask", "hi", "--seed", "9" * 30], "seed must be a whole number of at most"),
        (["ask", "hi", "--top-k", "9" * 20], "at most 2147483647"),
        (["ask", "hi", "--max-tokens", "9" * 20], "max-tokens must be a whole number"),
        (["frobnicate"], "invalid choice"),
    ],
)
def test_wrong_usage(call: Call, arguments: list[str], words: str) -> None:
    assert words in one_line(call(*arguments), 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-m", "no-such-model"], "no-such-model"),
        (["-m", "./missing/folder"], "missing/folder"),
        (["--offline"], "offline"),
    ],
)
def test_what_is_not_there(call: Call, arguments: list[str], words: str) -> None:
    assert words in one_line(call("ask", "hi", *arguments), 1)


def test_bad_model_files(call: Call, tmp_path: Path) -> None:
    text = tmp_path / "notes.gguf"
    text.write_text("these are only notes\n" * 100)
    assert "notes.gguf" in one_line(call("ask", "hi", "-m", str(text)), 1)
    empty = tmp_path / "folder"
    empty.mkdir()
    assert "folder" in one_line(call("ask", "hi", "-m", str(empty)), 1)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text('{"model_type": "gpt2"}')
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert "safetensors" in one_line(call("ask", "hi", "-m", str(pickled)), 1)


@pytest.mark.model
def test_a_truncated_model_is_named_so(call: Call, tmp_path: Path, model_source: object) -> None:
    whole = Path(model_source.path)  # type: ignore[attr-defined]
    cut = tmp_path / "cut.gguf"
    with whole.open("rb") as stream:
        cut.write_bytes(stream.read(10_000_000))
    assert "cut" in one_line(call("ask", "hi", "-m", str(cut)), 1)


def test_bad_settings(call: Call, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = home / "config" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("model = [unfinished\n")
    assert "config.toml" in one_line(call("ask", "hi"), 1)
    config.write_text("[sampling]\ntemperature = 'hot'\n")
    assert "temperature" in one_line(call("ask", "hi"), 1)
    config.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in one_line(call("ask", "hi"), 1)
    config.unlink()
    monkeypatch.setenv("CHATAPP_TOP_K", "lots")
    assert "CHATAPP_TOP_K" in one_line(call("ask", "hi"), 1)


def test_a_template_whose_preset_is_not_there(call: Call, home: Path) -> None:
    file = home / "config" / "templates" / "lost.toml"
    file.parent.mkdir(parents=True)
    file.write_text('preset = "gone"\n')
    words = one_line(call("ask", "hi", "--template", "lost"), 1)
    assert "there is no preset 'gone'; there are default, greedy" in words


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_home(call: Call, home: Path) -> None:
    home.mkdir(parents=True)
    home.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert str(home) in one_line(call("ask", "hi", "--offline"), 1)


def test_a_home_that_is_a_file(call: Call, home: Path) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    home.write_text("not a folder")
    assert str(home) in one_line(call("chats", "list"), 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_standard_output_that_takes_nothing() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "paths"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("chatapp: cannot write standard output")
    assert len(done.stderr.splitlines()) == 1


def test_the_interface_needs_a_terminal(call: Call) -> None:
    assert "chatapp ask" in one_line(call(), 1)


def test_binary_on_standard_input() -> None:
    done = subprocess.run(
        [*PROGRAM, "ask"], input=b"\xff\xfe\x00\x80", capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert b"UTF-8" in done.stderr


@pytest.mark.model
@pytest.mark.usefixtures("home_with_model")
class TestAsk:
    """With the real model."""

    def test_text(self, call: Call) -> None:
        done = call("ask", "Name three primary colours.", "-t", "0")
        assert done.returncode == 0, done.stderr
        assert "red" in done.stdout.lower()
        assert done.stdout.endswith("\n")
        assert "\x1b" not in done.stdout

    def test_json_lines(self, call: Call) -> None:
        done = call(
            "ask",
            "Count to five.",
            "--json",
            "--seed",
            "1",
            "--top-logprobs",
            "3",
            "--max-tokens",
            "8",
        )
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        start, *tokens, end = lines
        assert start["type"] == "start"
        assert start["seed"] == 1
        assert start["sampling"]["temperature"] == 0.7
        assert [token["index"] for token in tokens] == list(range(len(tokens)))
        assert "".join(token["text"] for token in tokens) == end["text"]
        assert end["completion_tokens"] == len(tokens)
        for token in tokens:
            assert bytes(token["bytes"]).decode("utf-8", "replace") == token["token"]
            assert len(token["top_logprobs"]) in (3, 4)
            shown = sum(candidate["prob"] for candidate in token["top_logprobs"])
            assert shown + token["other_prob"] == pytest.approx(1, abs=1e-6)

    def test_a_pipe_and_a_prompt_are_joined(self, call: Call) -> None:
        done = call("ask", "Answer in one word:", "-t", "0", "--max-tokens", "4", piped="Hello!\n")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()

    def test_the_same_conversation_goes_on(self, call: Call, home: Path) -> None:
        assert "no conversation" in one_line(call("ask", "hi", "-c"), 1)

    def test_a_reader_that_leaves_ends_it_quietly(self) -> None:
        with subprocess.Popen(
            [*PROGRAM, "ask", "Tell me a long story.", "--seed", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.read(10)
            process.stdout.close()
            assert process.wait(60) == 141
            assert process.stderr.read() == b""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_an_interrupt_ends_it_cleanly(self, number: signal.Signals) -> None:
        with subprocess.Popen(
            [*PROGRAM, "ask", "Tell me a long story.", "--seed", "1", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout is not None
            for _ in range(4):
                process.stdout.readline()
            process.send_signal(number)
            rest, errors = process.communicate(timeout=60)
            assert process.returncode == 130
            assert "Traceback" not in errors
            end = json.loads(rest.splitlines()[-1])
            assert end["finish_reason"] == "cancelled"

    def test_closed_standard_output(self) -> None:
        command = " ".join([*PROGRAM, "ask", "hi", ">&-"])
        done = subprocess.run(
            ["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False
        )
        assert "standard output is closed" in one_line(done, 1)
