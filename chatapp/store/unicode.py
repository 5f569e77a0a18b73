"""Text as it can be kept: proper Unicode, which UTF-8 can write.

A Python string may hold halves of surrogate pairs: from JSON escapes such as "\\ud83d" in an
imported file, or from bytes on the command line that are no UTF-8. No file, no tokenizer and no
screen can take them, so they are settled here once, where text enters the store or a file: two
halves that belong together become their character, a lone half becomes U+FFFD.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

_Value = TypeVar("_Value", bound=Any)


def well_formed(text: str) -> str:
    """The text without halves of surrogate pairs, otherwise unchanged."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def settled(value: _Value) -> _Value:
    """A dataclass with its own texts well formed, those in tuples too."""
    texts: dict[str, Any] = {}
    for field in fields(value):
        match getattr(value, field.name):
            case str(text):
                texts[field.name] = well_formed(text)
            case tuple(several) if all(isinstance(text, str) for text in several):
                texts[field.name] = tuple(map(well_formed, several))
    return replace(value, **texts)
