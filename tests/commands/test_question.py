"""`chatapp ask --file`: text files go with the prompt, as /attach has them go with a message."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from chatapp.chat.attachment import MOST_BYTES, AttachmentError, compose, read_attachment
from chatapp.commands.question import read_question
from tests.conftest import Call, one_line


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    file = tmp_path / "notes.txt"
    file.write_text("Plums are blue.\n")
    return file


def test_prompt_pipe_and_files_come_in_this_order(notes: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.md"
    other.write_text("# Pears")
    piped = io.TextIOWrapper(io.BytesIO(b"from a pipe\n"))
    question = read_question("compare", piped, [notes, other])
    assert question.message == compose(
        "compare\n\nfrom a pipe",
        [
            read_attachment("notes.txt", b"Plums are blue.\n", 16),
            read_attachment("other.md", b"# Pears", 7),
        ],
    )
    assert read_question("alone", None, []).message == "alone"


def test_what_cannot_be_sent_is_refused_with_the_numbers(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "data.bin"
    file.write_bytes(b"text\xff\xfe")
    with pytest.raises(AttachmentError, match="byte 4 of its 6"):
        read_question("look", None, [file])
    with file.open("wb") as stream:
        stream.truncate(MOST_BYTES + 1)
    with pytest.raises(AttachmentError, match=f"{MOST_BYTES + 1} bytes; at most {MOST_BYTES}"):
        read_question("look", None, [file])
    assert "a folder" in one_line(call("ask", "look", "-f", str(tmp_path)), 1)
    assert "cannot read" in one_line(call("ask", "look", "--file", "no-such.txt"), 1)


def test_a_file_is_read_by_the_model_and_its_cost_is_told(
    call: Call, tiny_gguf: str, notes: Path
) -> None:
    options = ("--json", "--max-tokens", "1", "-m", tiny_gguf, "--threads", "1")
    plain = call("ask", "what colour?", *options)
    for decoder in ("sample", "contrastive"):
        done = call("ask", "what colour?", "-f", str(notes), "--decoder", decoder, *options)
        assert done.returncode == 0, done.stderr
        (told,) = (line for line in done.stderr.splitlines() if "notes.txt" in line)
        tokens = int(told.removeprefix("chatapp: notes.txt has ").removesuffix(" tokens"))
        start, before = (json.loads(one.stdout.splitlines()[0]) for one in (done, plain))
        # Seams may join or part a token or two where the file stands behind the text.
        assert abs(start["prompt_tokens"] - before["prompt_tokens"] - tokens) <= 2


def test_a_file_without_room_is_refused(call: Call, tiny_gguf: str, tmp_path: Path) -> None:
    long = tmp_path / "long.txt"
    long.write_text("word " * 2000)
    done = call("ask", "hi", "-f", str(long), "-m", tiny_gguf, "--context-length", "64")
    assert done.returncode == 1
    assert "the context has room for" in done.stderr.splitlines()[-1]
