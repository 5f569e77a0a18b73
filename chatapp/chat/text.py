"""Text from models, people and files, made harmless and visible before it reaches a screen.

A terminal obeys control characters; bidirectional overrides and zero-width characters make a text
read as something it is not (CVE-2021-42574). Such characters are never deleted: each is replaced
by a marker that shows it. What real writing needs is kept: joiners and variation selectors inside
emoji, joiners between letters of the scripts that use them.

Everything shown passes through `sanitise` once (or, for a single token, `visible_token`). No
widths are measured here.
"""

from __future__ import annotations

import re
import unicodedata

_FLAGS = "|".join(
    # Flags spelt in tag characters; any other text in tags is hidden text.
    "\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in region) + "\U000e007f"
    for region in ("gbeng", "gbsct", "gbwls")
)

_SUSPECTS = re.compile(
    f"{_FLAGS}|["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline; DEL; C1
    "\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ufe00-\ufe0f\U000e0000-\U000e0fff"  # variation selectors and tags
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"  # surrogates and noncharacters
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(1, 17))
    + "]"
)
"""Every character that is replaced, or kept only where its neighbours need it."""

_JOINER, _NON_JOINER = "\u200d", "\u200c"
_TEXT_STYLE, _EMOJI_STYLE = "\ufe0e", "\ufe0f"

_JOINING_SCRIPTS = (
    (0x0600, 0x08FF),  # Arabic, Syriac, Thaana, N'Ko, Mandaic
    (0x0900, 0x0DFF),  # the scripts of India and Sinhala
    (0x0F00, 0x109F),  # Tibetan, Myanmar
    (0x1780, 0x18AF),  # Khmer, Mongolian
    (0x1B00, 0x1BFF),  # Balinese, Sundanese, Batak
    (0xA800, 0xABFF),  # Syloti Nagri to Meetei Mayek
    (0xFB50, 0xFDCF),  # Arabic presentation forms
    (0xFE70, 0xFEFC),
    (0x11000, 0x11FFF),  # Brahmi and its relatives
)
"""Blocks whose writing uses U+200C and U+200D between letters."""

_EMOJI_BLOCKS = (
    (0x203C, 0x203C),
    (0x2049, 0x2049),
    (0x2122, 0x2139),
    (0x2190, 0x23FF),
    (0x2460, 0x27BF),
    (0x2900, 0x2BFF),
    (0x3030, 0x303D),
    (0x3297, 0x3299),
    (0x1F000, 0x1FAFF),
)
"""Blocks that hold the pictographs of emoji-data; none of what `_marker` writes is in them."""

_IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))


def sanitise(text: str) -> str:
    """The text with everything a terminal obeys, or an eye can't see, made visible.

    Newlines and tabs stay; "\\r\\n" becomes "\\n". Control characters become their pictures (␛),
    other invisible characters their number (⟨U+202E⟩), and so do lone surrogates, so that the
    result can always be encoded. Sanitising twice changes nothing more. A text that is sanitised in
    fragments is as safe, though a joiner at a seam is then shown by its number.
    """
    text = text.replace("\r\n", "\n")
    pieces: list[str] = []
    end = 0
    before = ""
    for match in _SUSPECTS.finditer(text):
        start = match.start()
        if start > end:
            pieces.append(text[end:start])
            before = text[start - 1]
        end = match.end()
        character = match.group()
        kept = _is_needed(character, before, text[end : end + 1])
        pieces.append(character if kept else _marker(character))
        before = pieces[-1][-1]
    if not pieces:
        return text
    pieces.append(text[end:])
    return "".join(pieces)


def escape_json(text: str) -> str:
    """JSON with what `sanitise` would change as \\u escapes: harmless, and it says the same."""
    return text if sanitise(text) == text else _SUSPECTS.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    units = match.group().encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def visible_token(data: bytes) -> str:
    """One token as lists and panels show it: nothing in it is invisible.

    Spaces are ␣, newlines ↵, tabs ⇥; bytes that aren't valid UTF-8 are \\xNN; other spaces and
    controls are shown as `sanitise` shows them; an empty token is ∅.
    """
    if not data:
        return "∅"
    shown: list[str] = []
    for character in sanitise(escape_bytes(data).replace("\r\n", "␍\n")):
        if character in _TOKEN_MARKS:
            shown.append(_TOKEN_MARKS[character])
        elif unicodedata.category(character) == "Zs":
            shown.append(_number(character))
        else:
            shown.append(character)
    return "".join(shown)


def escape_bytes(data: bytes) -> str:
    """Bytes as text, each byte that isn't part of valid UTF-8 written as \\xNN."""
    return data.decode("utf-8", "backslashreplace")


_TOKEN_MARKS = {" ": "␣", "\n": "↵", "\t": "⇥"}


def _marker(character: str) -> str:
    """What stands for a character that is not shown itself."""
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else _number(character)


def _number(character: str) -> str:
    return f"⟨U+{ord(character):04X}⟩"


def _is_needed(character: str, before: str, after: str) -> bool:
    """Whether the writing around an invisible character needs it.

    `before` is the character already put out and `after` the one to come, empty at the ends.
    """
    if len(character) > 1:
        return True  # a whole flag
    if not before:
        return False
    if character == _JOINER:
        return _joins_emoji(before, after) or _joins_letters(before, after)
    if character == _NON_JOINER:
        return _joins_letters(before, after)
    if character in (_EMOJI_STYLE, _TEXT_STYLE):
        keycap = before in "#*0123456789" and after == "\u20e3"
        return keycap or before in "©®" or _is_pictograph(before)
    if "\ufe00" <= character <= "\ufe0d" or "\U000e0100" <= character <= "\U000e01ef":
        # Standard variants of mathematical signs and ideographs.
        return _within(before, _IDEOGRAPHS) or unicodedata.category(before) == "Sm"
    return False


def _joins_emoji(before: str, after: str) -> bool:
    return (before == _EMOJI_STYLE or _is_pictograph(before)) and _is_pictograph(after)


def _joins_letters(before: str, after: str) -> bool:
    return _within(before, _JOINING_SCRIPTS) and _within(after, _JOINING_SCRIPTS)


def _is_pictograph(character: str) -> bool:
    return _within(character, _EMOJI_BLOCKS)


def _within(character: str, blocks: tuple[tuple[int, int], ...]) -> bool:
    if not character:
        return False
    code = ord(character)
    return any(low <= code <= high for low, high in blocks)
