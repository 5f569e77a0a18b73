"""Streaming text: every split of every character and stop sequence joins to the whole."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatapp.engine.decoding.reply_text import Detokenizer, StopSequences
from chatapp.engine.runtimes.folder_tokenizer import FolderTokenizer
from chatapp.engine.runtimes.tokenizer import LeadingSpace
from tests.engine.tiny_tokenizers import byte_level, sentencepiece, unigram

MULTI_BYTE = [
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\u2764\ufe0f\u200d\U0001f525",
    "你好，世界",
    "e\u0301a\u0308\u0323",
    "\U0001f1e9\U0001f1ea",
    "नमस्ते",
    "한글 ᄒ\u1161\u11ab",
]
text_without_surrogates = st.text(st.characters(exclude_categories=["Cs"]))


class Bytes:
    """A vocabulary in which token n is the n-th of some pieces."""

    special_ids: frozenset[int] = frozenset()

    def __init__(self, pieces: Sequence[bytes], leading: LeadingSpace = LeadingSpace.KEEP) -> None:
        self._pieces = pieces
        self.leading_space = leading

    def token_bytes(self, token_id: int) -> bytes:
        return self._pieces[token_id]


def stream(pieces: Sequence[bytes], leading: LeadingSpace = LeadingSpace.KEEP) -> list[str]:
    detokenizer = Detokenizer(Bytes(pieces, leading))
    return [*map(detokenizer.push, range(len(pieces))), detokenizer.flush()]


def cut(data: bytes, points: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(points), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@pytest.mark.parametrize("text", MULTI_BYTE)
def test_every_pair_of_cuts(text: str) -> None:
    data = text.encode()
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            pieces = stream(cut(data, [first, second]))
            assert "".join(pieces) == text
            assert "\ufffd" not in "".join(pieces)


@given(text_without_surrogates, st.data())
def test_any_split_of_any_text(text: str, data: st.DataObject) -> None:
    encoded = text.encode()
    points = data.draw(st.lists(st.integers(0, len(encoded))))
    assert "".join(stream(cut(encoded, points))) == text


@given(st.binary(), st.data())
def test_any_split_of_any_bytes_is_the_whole_decoded(encoded: bytes, data: st.DataObject) -> None:
    points = data.draw(st.lists(st.integers(0, len(encoded))))
    assert "".join(stream(cut(encoded, points))) == encoded.decode("utf-8", "replace")


@given(text_without_surrogates)
def test_nothing_is_printed_inside_a_character(text: str) -> None:
    printed = stream([bytes([byte]) for byte in text.encode()])
    assert [piece for piece in printed if piece] == list(text)


def test_an_unfinished_character_is_replaced_at_the_end() -> None:
    assert stream([b"a", b"\xf0\x9f", b"\x91"]) == ["a", "", "", "\ufffd"]


@pytest.mark.parametrize(
    ("leading", "pieces", "text"),
    [
        (LeadingSpace.KEEP, [b" a", b" b"], " a b"),
        (LeadingSpace.DROP_ONE, [b"  a", b" b"], " a b"),
        (LeadingSpace.DROP_ONE, [b"a", b" b"], "a b"),
        (LeadingSpace.DROP_OF_FIRST_TOKEN, [b"  a", b" b"], "a b"),
    ],
)
def test_the_leading_space_goes_where_the_decoder_drops_it(
    leading: LeadingSpace, pieces: list[bytes], text: str
) -> None:
    assert "".join(stream(pieces, leading)) == text


@pytest.mark.parametrize(
    "make", [byte_level, sentencepiece, lambda: sentencepiece("first"), unigram]
)
@given(words=st.lists(st.sampled_from(["the", " the", "hi", "  ", "x", "é", "你", "\n", "🎉"])))
def test_the_joined_text_is_the_librarys_own(make: object, words: list[str]) -> None:
    assert callable(make)
    backend = make()
    tokenizer = FolderTokenizer(backend)
    ids = tokenizer.encode_text("".join(words))
    if any(tokenizer.token_bytes(token_id) == b"<unk>" for token_id in ids):
        return  # the library leaves out what it doesn't know, as it does special tokens
    detokenizer = Detokenizer(tokenizer)
    joined = "".join(map(detokenizer.push, ids)) + detokenizer.flush()
    assert joined == backend.decode(ids, skip_special_tokens=True)


def test_special_tokens_have_no_text_and_other_control_tokens_have() -> None:
    tokenizer = FolderTokenizer(byte_level())
    detokenizer = Detokenizer(tokenizer)
    ids = tokenizer.encode_rendered("<think>hello</think><|im_end|>the")
    assert "".join(map(detokenizer.push, ids)) == "<think>hello</think>the"


def watch(stops: Sequence[str], pieces: Sequence[str]) -> tuple[str, bool]:
    """The text that is printed up to the first stop sequence, and whether there was one."""
    watcher = StopSequences(stops)
    printed = ""
    for piece in pieces:
        text, matched = watcher.push(piece)
        printed += text
        if matched:
            return printed, True
    return printed + watcher.flush(), False


@pytest.mark.parametrize(
    ("stops", "text", "expected"),
    [
        (["\nUser:"], "Hi.\nUser: no", ("Hi.", True)),
        (["\n\nUser:", "\nUser:"], "Hi.\n\nUser: no", ("Hi.", True)),
        (["\nUser:"], "Hi.\nUse", ("Hi.\nUse", False)),
        (["aab"], "aaaab", ("aa", True)),
        (["abcd", "bc"], "xabcd", ("xa", True)),
        ([], "text", ("text", False)),
        ([""], "text", ("text", False)),
        (["🎉!"], "a🎉🎉!b", ("a🎉", True)),
    ],
)
def test_text_ends_before_a_stop_sequence_however_it_is_cut(
    stops: list[str], text: str, expected: tuple[str, bool]
) -> None:
    assert watch(stops, [text]) == expected
    assert watch(stops, list(text)) == expected
    for at in range(len(text)):
        assert watch(stops, [text[:at], text[at:]]) == expected


letters = st.text("ab\n", max_size=12)


@given(st.lists(letters.filter(bool), max_size=3), letters, st.data())
def test_how_text_is_cut_changes_nothing(stops: list[str], text: str, data: st.DataObject) -> None:
    points = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    edges = [0, *points, len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(edges)]
    printed, matched = watch(stops, pieces)
    assert (printed, matched) == watch(stops, [text])
    assert matched == any(stop in text for stop in stops)
    assert text.startswith(printed)
    assert not any(stop in printed for stop in stops)


def test_only_what_may_become_a_stop_sequence_is_held_back() -> None:
    watcher = StopSequences(["\nUser:"])
    assert watcher.push("Hello\n") == ("Hello", False)
    assert watcher.push("U") == ("", False)
    assert watcher.push("FO") == ("\nUFO", False)
    assert watcher.flush() == ""
