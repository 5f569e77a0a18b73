"""Text made harmless: nothing a terminal obeys gets through, and nothing is lost or doubled."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatapp.chat.text import escape_bytes, sanitise, visible_token

FORBIDDEN = (
    {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))} - {"\n", "\t"}
    | {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2060, 0x2070))}
    | set("\u00ad\u061c\u180e\u200b\u200e\u200f\u2028\u2029\ufeff\ufff9\ufffa\ufffb\ufdd0\uffff")
)
ESCAPES = "\x1b[31m\x9b2J\x1b]52;c;aGk=\x07"
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"

# Any text, with what has to be replaced far more often than chance would have it.
texts = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(sorted(FORBIDDEN)),
        st.sampled_from("\r\n\u200d\u200c\ufe0f\ufe0e\ufe00\u2764" + FAMILY + ENGLAND),
        st.characters(categories=["Cs", "Cf", "Cc", "Mn"]),
    )
)


@given(texts)
def test_no_forbidden_character_survives(text: str) -> None:
    shown = sanitise(text)
    assert not FORBIDDEN & set(shown)
    shown.encode("utf-8")  # no lone surrogate either


@given(texts, st.data())
def test_no_forbidden_character_survives_in_text_split_anywhere(
    text: str, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(text)))
    shown = sanitise(text[:cut]) + sanitise(text[cut:])
    assert not FORBIDDEN & set(shown)


@given(texts)
def test_sanitising_twice_changes_nothing_more(text: str) -> None:
    shown = sanitise(text)
    assert sanitise(shown) == shown


@given(texts)
def test_what_is_replaced_is_shown_and_never_deleted(text: str) -> None:
    assert len(sanitise(text)) >= len(text.replace("\r\n", "\n"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (ESCAPES, "␛[31m⟨U+009B⟩2J␛]52;c;aGk=␇"),
        ("a\r\nb\rc\r\r\n", "a\nb␍c␍\n"),
        ("\u202eevil\u202c \u2066x\u2069", "⟨U+202E⟩evil⟨U+202C⟩ ⟨U+2066⟩x⟨U+2069⟩"),
        ("pass\u200bword\ufeff", "pass⟨U+200B⟩word⟨U+FEFF⟩"),
        ("a\u200db", "a⟨U+200D⟩b"),
        ("\u200d", "⟨U+200D⟩"),
        ("a\ufe0f\ufe0f", "a⟨U+FE0F⟩⟨U+FE0F⟩"),
        ("\U0001f3f4\U000e0068\U000e0069", "\U0001f3f4⟨U+E0068⟩⟨U+E0069⟩"),
        ("\ud83d", "⟨U+D83D⟩"),
        ("\x00\x7f", "␀␡"),
    ],
)
def test_hidden_characters_become_visible(text: str, shown: str) -> None:
    assert sanitise(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "plain\ttext\nwith lines",
        FAMILY,
        ENGLAND,
        "\u2764\ufe0f\u200d\U0001f525",  # a burning heart
        "\U0001f44d\U0001f3fd",  # a thumb with a skin tone
        "1\ufe0f\u20e3",  # a keycap
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, with a non-joiner
        "\u0915\u094d\u200d\u0937",  # Hindi, with a joiner
        "שלום مرحبا 你好 e\u0301",
        "\u8fbb\U000e0100",  # an ideograph with its variant
    ],
)
def test_what_real_writing_needs_is_kept(text: str) -> None:
    assert sanitise(text) == text


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b" the", "␣the"),
        (b"\n\t", "↵⇥"),
        (b"\r\n", "␍↵"),
        (b"\xe2\x80", "\\xe2\\x80"),
        (b"a\xff", "a\\xff"),
        (b"", "∅"),
        (b"\x1b[", "␛["),
        ("\u00a0\u3000".encode(), "⟨U+00A0⟩⟨U+3000⟩"),
        ("\u200d".encode(), "⟨U+200D⟩"),
        (FAMILY.encode(), FAMILY),
    ],
)
def test_tokens_are_shown_whole(data: bytes, shown: str) -> None:
    assert visible_token(data) == shown


@given(st.binary())
def test_nothing_in_a_token_is_invisible(data: bytes) -> None:
    shown = visible_token(data)
    assert shown
    assert not any(c.isspace() for c in shown)
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cs"}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_bytes_that_are_text_are_not_escaped(text: str) -> None:
    assert escape_bytes(text.encode()) == text
