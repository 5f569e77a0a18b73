"""What can be sent with a message, and how it stands in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatapp.chat.attachment import (
    MOST_BYTES,
    Attachment,
    AttachmentError,
    check_room,
    compose,
    find_mentions,
    read_attachment,
)


def read(data: bytes, name: str = "a.txt") -> Attachment:
    return read_attachment(name, data, len(data))


def test_text_stands_in_a_frame_with_its_name() -> None:
    notes = read(b"one\r\ntwo", "notes.txt")
    assert notes.framed() == "``` notes.txt\none\ntwo\n```"
    assert compose("What is this?", [notes]) == ("What is this?\n\n``` notes.txt\none\ntwo\n```")


@given(st.text(alphabet="`~ \nab", min_size=1))
def test_no_text_can_close_its_frame(text: str) -> None:
    lines = Attachment("a`b\nc", text, 1).framed().split("\n")
    fence = lines[0].split(" ")[0]
    assert len(fence) >= 3 and set(fence) == {"`"} and lines[-1] == fence
    assert lines[0] == f"{fence} a'b c"
    inside = [line.lstrip(" ") for line in lines[1:-1]]
    assert not any(line.startswith(fence) for line in inside)


@pytest.mark.parametrize(
    "data",
    ["grüße".encode(), b"\xef\xbb\xbf" + "grüße".encode(), "\ufeffgrüße".encode("utf-16-le")],
)
def test_encodings_that_say_so_are_read(data: bytes) -> None:
    assert read(data).text == "grüße"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x89PNG\r\n\x1a\n\x00", "byte 0 of its 9 is not UTF-8"),
        (b"plain\x00\x00text", "2 of its 11 bytes are zero"),
        (b" \n", "is empty (2 bytes)"),
        (b"\xff\xfea", "is not UTF-16-LE"),
    ],
)
def test_what_is_no_text_is_refused_with_the_numbers(data: bytes, words: str) -> None:
    with pytest.raises(AttachmentError) as refused:
        read(data)
    assert words in str(refused.value)
    assert str(refused.value).startswith("a.txt ")


def test_what_is_too_large_is_refused_with_the_numbers() -> None:
    with pytest.raises(AttachmentError, match=rf"has {MOST_BYTES + 1} bytes; at most {MOST_BYTES}"):
        read_attachment("big.log", b"", MOST_BYTES + 1)
    check_room(99, "a.txt", 200, 100)
    with pytest.raises(
        AttachmentError, match="has 100 tokens; the context has room for 100 of 200"
    ):
        check_room(100, "a.txt", 200, 100)
    with pytest.raises(AttachmentError, match="room for 0 of 200"):
        check_room(1, "a.txt", 200, 300)


def test_names_begin_with_an_at_at_the_start_of_a_word() -> None:
    text = '@a.txt and @"b c.txt", not me@home.org; again @a.txt (@d) @'
    assert find_mentions(text) == ("a.txt", "b c.txt")


def test_a_name_that_is_no_unicode_can_be_sent_all_the_same() -> None:
    framed = Attachment("\udcff.txt", "words", 5).framed()
    assert framed.startswith("``` ?.txt\n")
    framed.encode()
