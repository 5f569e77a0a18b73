"""The exact bytes of each token of a vocabulary, read off the tokenizer's own decoder.

A vocabulary stores its tokens in one of several disguises: byte-level BPE writes each byte as a
printable character, SentencePiece writes spaces as "▁" and single bytes as "<0x0A>", WordPiece
marks what continues a word. The decoder in tokenizer.json says which; this module undoes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

Json = Mapping[str, Any]
"""A part of tokenizer.json."""

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class LeadingSpace(Enum):
    """What the decoder does to a space at the very start of a text."""

    KEEP = "keep"
    DROP_ONE = "drop one"
    DROP_OF_FIRST_TOKEN = "drop all of the first token"


def token_decoding(decoder: Json | None) -> tuple[Callable[[str], bytes], LeadingSpace]:
    """How a vocabulary's entries, but for added tokens, become bytes, by tokenizer.json's decoder.

    Exact for byte-level BPE and for SentencePiece's models. For WordPiece, word-level vocabularies
    and BPE with an end-of-word mark the space between two words belongs to neither token; it is
    given to the second (to the first for the end-of-word mark).
    """
    steps = list(_steps(decoder))
    kinds = {step["type"]: step for step in steps}
    if "ByteLevel" in kinds:
        return (byte_level_bytes, LeadingSpace.KEEP)
    if "Metaspace" in kinds:
        step = kinds["Metaspace"]
        leading = (
            LeadingSpace.KEEP
            if step.get("prepend_scheme", "always") == "never"
            else LeadingSpace.DROP_OF_FIRST_TOKEN
        )
        return (_spaced(step.get("replacement", "▁"), " "), leading)
    if "ByteFallback" in kinds or "Replace" in kinds:
        strips = any(s["type"] == "Strip" and s["content"] == " " and s["start"] for s in steps)
        replace = kinds.get("Replace", {})
        mark = replace.get("pattern", {}).get("String", "▁")
        leading = LeadingSpace.DROP_ONE if strips else LeadingSpace.KEEP
        return (_spaced(mark, replace.get("content", " ")), leading)
    if "BPEDecoder" in kinds:
        suffix = kinds["BPEDecoder"].get("suffix", "</w>")
        return (lambda t: t.replace(suffix, " ").encode(), LeadingSpace.KEEP)
    prefix = kinds.get("WordPiece", {}).get("prefix")
    return (_words(prefix), LeadingSpace.DROP_ONE)


def byte_level_bytes(token: str) -> bytes:
    """The bytes of a byte-level BPE token; text outside of its alphabet stands for itself."""
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:
        return token.encode("utf-8", "surrogatepass")


def byte_alphabet() -> dict[int, str]:
    """Which character stands for which byte in byte-level BPE (GPT-2's bytes_to_unicode)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in alphabet)
    return alphabet | {byte: chr(0x100 + number) for number, byte in enumerate(others)}


_BYTE_OF = {character: byte for byte, character in byte_alphabet().items()}


def _steps(decoder: Json | None) -> Iterator[Json]:
    if decoder is None:
        return
    if decoder["type"] == "Sequence":
        for inner in decoder["decoders"]:
            yield from _steps(inner)
    else:
        yield decoder


def _spaced(mark: str, space: str) -> Callable[[str], bytes]:
    """SentencePiece: a mark for the space, and bytes that have no character by number."""

    def to_bytes(token: str) -> bytes:
        if match := _BYTE_TOKEN.fullmatch(token):
            return bytes([int(match.group(1), 16)])
        return token.replace(mark, space).encode()

    return to_bytes


def _words(prefix: str | None) -> Callable[[str], bytes]:
    """Whole words: a space before each, but for those that continue a word."""

    def to_bytes(token: str) -> bytes:
        if prefix and token.startswith(prefix):
            return token[len(prefix) :].encode()
        return f" {token}".encode()

    return to_bytes
