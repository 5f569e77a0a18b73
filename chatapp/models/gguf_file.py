"""Whether a .gguf file can be trusted, and what its header tells, before anything else reads it.

gguf 0.19 believes every count in a header: a file of 43 bytes makes it loop for hours and fill the
memory (ggml-org/llama.cpp#27188). Here every count, length and offset is held against the size of
the file first, so that the reading takes time and memory in proportion to a header of known bounds;
a file that passes is safe to hand on. Only the header is read, never the weights.

The format: ggml, docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from chatapp.models.errors import DamagedModel, RefusedModel
from chatapp.models.gguf_types import ARRAY, BLOCKS, FILE_TYPES, SCALARS, STRING

MAX_VALUES = 65_536
MAX_TENSORS = 65_536
MAX_DIMENSIONS = 4
MAX_KEY_BYTES = 65_535
"""The specification's bound."""
MAX_NAME_BYTES = 255
"""The specification allows a tensor's name 64; some writers take more."""
MAX_STRING_BYTES = 64 * 2**20
"""A whole tokenizer.json may stand in one value."""
MAX_ITEM_BYTES = 2**20
"""One string of an array, a token or a merge."""
MAX_ITEMS = 4_000_000
"""Elements of all arrays together; the largest vocabularies in use need 1.3 million."""
MAX_ALIGNMENT = 2**20
MAX_ELEMENTS = 2**63 - 1
"""Of one tensor, ggml's bound."""
KEPT_STRING_BYTES = 4096
"""Longer strings (chat templates) are passed over, not kept."""

_NOT_CAUSAL = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "modern-bert", "clip", "t5encoder"}
)
"""Architectures of GGUF files that write no text."""

_READERS_OWN = frozenset({"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count"})
"""What the gguf package calls the fixed fields; keys of these names make it fail."""

_FIXED = struct.Struct("<QQ")
_LENGTH = struct.Struct("<Q")
_WORD = struct.Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFacts:
    """What the header of a GGUF file tells. Texts are as the file has them: not sanitised."""

    name: str
    architecture: str
    weight_format: str
    context_length: int
    """0 where the file does not say."""
    vocab_size: int
    layers: int
    hidden_size: int
    kv_values: int
    """Numbers that the KV cache keeps for a token; 0 where the file does not say."""
    parameters: int
    """Elements of all tensors."""
    tensors: int
    license: str
    has_chat_template: bool
    size: int
    """Of the file, in bytes."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    type: int
    elements: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class _Array:
    """An array's length; its elements are passed over."""

    count: int


_Value = int | float | bool | str | _Array | None


class _CutOff(Exception):
    """The file ends before its header does."""


class _Bad(Exception):
    """Something in the header cannot be; the message says what."""


def check_gguf(path: Path) -> GgufFacts:
    """Read a file's header and hold everything in it against the file's size.

    Raises:
        DamagedModel: it is no GGUF file, is cut off, or its header contradicts itself.
        RefusedModel: it is whole, but of a kind that is not loaded here.
    """
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            return _check(path, stream, size)
    except _CutOff:
        raise DamagedModel(
            f"{path} is cut off: its header goes on past its {size:,} bytes; fetch or copy it again"
        ) from None
    except _Bad as error:
        raise DamagedModel(f"{path} is damaged: {error}; fetch or copy it again") from None
    except OSError as error:
        raise DamagedModel(f"cannot read {path}: {error.strerror or error}") from None


def _check(path: Path, stream: BinaryIO, size: int) -> GgufFacts:
    reader = _Reader(stream, size)
    start = stream.read(512)
    if start[:4] != b"GGUF":
        raise DamagedModel(f"{path} is {what_it_is(start)}, not a GGUF model")
    stream.seek(4)
    version = reader.word()
    if version & 0xFFFF == 0:
        raise RefusedModel(f"{path} is a big-endian GGUF file; only little-endian ones are read")
    if version not in (2, 3):
        raise RefusedModel(f"{path} is of GGUF version {version}; only 2 and 3 are read")
    tensor_count, value_count = _FIXED.unpack(reader.take(_FIXED.size))
    reader.at_most("tensors", tensor_count, MAX_TENSORS)
    reader.at_most("values", value_count, MAX_VALUES)
    values = _values(reader, value_count)
    tensors = tuple(_tensors(reader, tensor_count))
    _check_data(path, tensors, _alignment(values), stream.tell(), size)
    _check_kind(path, values, tensors)
    return _facts(path, values, tensors, size)


class _Reader:
    """Reads forward, and never past the end of the file."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream = stream
        self.size = size
        self.items_left = MAX_ITEMS

    def take(self, count: int) -> bytes:
        data = self.stream.read(count)
        if len(data) != count:
            raise _CutOff
        return data

    def word(self) -> int:
        return int(_WORD.unpack(self.take(4))[0])

    def skip(self, count: int) -> None:
        if self.stream.tell() + count > self.size:
            raise _CutOff
        self.stream.seek(count, os.SEEK_CUR)

    def at_most(self, what: str, count: int, limit: int) -> None:
        if count > limit:
            raise _Bad(f"it claims {count:,} {what}, and {limit:,} is the most there can be")

    def length(self, what: str, limit: int) -> int:
        count = int(_LENGTH.unpack(self.take(8))[0])
        if count > self.size - self.stream.tell():
            raise _CutOff
        self.at_most(f"bytes in {what}", count, limit)
        return count

    def text(self, what: str, limit: int) -> str:
        try:
            return self.take(self.length(what, limit)).decode("utf-8")
        except UnicodeDecodeError:
            raise _Bad(f"{what} is not valid UTF-8") from None

    def value(self, value_type: int) -> _Value:
        if form := SCALARS.get(value_type):
            scalar: int | float | bool = struct.unpack(form, self.take(struct.calcsize(form)))[0]
            return scalar
        if value_type == STRING:
            count = self.length("a value", MAX_STRING_BYTES)
            if count > KEPT_STRING_BYTES:
                self.skip(count)
                return None
            return self.take(count).decode("utf-8", "replace")
        if value_type == ARRAY:
            return self.array()
        raise _Bad(f"a value has the unknown type {value_type}")

    def array(self) -> _Array:
        item_type = self.word()
        count = int(_LENGTH.unpack(self.take(8))[0])
        self.at_most("elements of arrays", count, self.items_left)
        self.items_left -= count
        if form := SCALARS.get(item_type):
            self.skip(count * struct.calcsize(form))
        elif item_type == STRING:
            self.strings(count)
        else:
            raise _Bad(f"an array has elements of the type {item_type}")
        return _Array(count)

    def strings(self, count: int) -> None:
        """Pass over the strings of an array, the bulk of a header: hundreds of thousands."""
        if count * 8 > self.size - self.stream.tell():
            raise _CutOff
        read, unpack = self.stream.read, _LENGTH.unpack
        for _ in range(count):
            head = read(8)
            if len(head) != 8:
                raise _CutOff
            length = unpack(head)[0]
            if length > MAX_ITEM_BYTES:
                if length > self.size - self.stream.tell():
                    raise _CutOff
                self.at_most("bytes in one element of an array", length, MAX_ITEM_BYTES)
            if len(read(length)) != length:
                raise _CutOff


def _values(reader: _Reader, count: int) -> dict[str, _Value]:
    values: dict[str, _Value] = {}
    for _ in range(count):
        key = reader.text("a key", MAX_KEY_BYTES)
        if key in values or key in _READERS_OWN:
            raise _Bad(f"the key {key[:80]!r} stands in it twice")
        value_type = reader.word()
        values[key] = reader.value(value_type)
        if key == "general.alignment" and value_type != 4:
            raise _Bad("general.alignment is not of the type UINT32")
    return values


def _tensors(reader: _Reader, count: int) -> Iterator[_Tensor]:
    names: set[str] = set()
    for _ in range(count):
        name = reader.text("a tensor's name", MAX_NAME_BYTES)
        if name in names:
            raise _Bad(f"the tensor {name!r} stands in it twice")
        names.add(name)
        dimensions = reader.word()
        reader.at_most(f"dimensions of the tensor {name!r}", dimensions, MAX_DIMENSIONS)
        if dimensions == 0:
            raise _Bad(f"the tensor {name!r} has no dimensions")
        shape = struct.unpack(f"<{dimensions}Q", reader.take(8 * dimensions))
        tensor_type = reader.word()
        (offset,) = _LENGTH.unpack(reader.take(8))
        if tensor_type not in BLOCKS:
            raise _Bad(f"the tensor {name!r} has the unknown type {tensor_type}")
        type_name, block, block_bytes = BLOCKS[tensor_type]
        elements = 1
        for extent in shape:
            elements *= extent
        if not 0 < elements <= MAX_ELEMENTS:
            raise _Bad(f"the tensor {name!r} cannot have the shape {shape}")
        if shape[0] % block:
            raise _Bad(
                f"the tensor {name!r} has rows of {shape[0]:,}, no multiple of {type_name}'s"
            )
        yield _Tensor(name, tensor_type, elements, offset, elements // block * block_bytes)


def _alignment(values: dict[str, _Value]) -> int:
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= MAX_ALIGNMENT:
        raise _Bad(f"general.alignment cannot be {alignment!r}")
    if alignment & (alignment - 1):
        raise _Bad(f"general.alignment is {alignment}, not a power of two")
    return alignment


def _check_data(
    path: Path, tensors: tuple[_Tensor, ...], alignment: int, header_end: int, size: int
) -> None:
    """Every tensor lies behind the header, within the file, and overlaps no other."""
    start = -(-header_end // alignment) * alignment
    reached = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.offset % alignment:
            raise _Bad(f"the tensor {tensor.name!r} does not start at a multiple of {alignment}")
        if tensor.offset < reached:
            raise _Bad(f"the tensor {tensor.name!r} overlaps another")
        reached = tensor.offset + tensor.size
    if start + reached > size:
        raise DamagedModel(
            f"{path} is cut off: it should have at least {start + reached:,} bytes and has "
            f"{size:,}; fetch or copy it again"
        )


def _check_kind(path: Path, values: dict[str, _Value], tensors: tuple[_Tensor, ...]) -> None:
    """Refuse what is a well-formed GGUF file but no model that can be loaded by itself."""
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise _Bad("it does not name its architecture")
    if not tensors:
        raise RefusedModel(f"{path} holds no weights, only a vocabulary")
    parts = values.get("split.count", 0)
    if isinstance(parts, int) and parts > 1:
        raise RefusedModel(
            f"{path} is one of {parts} parts; join them first with llama-gguf-split --merge"
        )
    if architecture in _NOT_CAUSAL or values.get("general.type") == "adapter":
        raise RefusedModel(f"{path} is no causal language model ({architecture[:40]!r})")


def _facts(
    path: Path, values: dict[str, _Value], tensors: tuple[_Tensor, ...], size: int
) -> GgufFacts:
    def text(key: str) -> str:
        value = values.get(key)
        return value if isinstance(value, str) else ""

    architecture = text("general.architecture")

    def number(key: str) -> int:
        value = values.get(f"{architecture}.{key}")
        return value if isinstance(value, int) else 0

    tokens = values.get("tokenizer.ggml.tokens")
    return GgufFacts(
        name=text("general.name") or path.stem,
        architecture=architecture,
        weight_format=_weight_format(values, tensors),
        context_length=number("context_length"),
        vocab_size=tokens.count if isinstance(tokens, _Array) else number("vocab_size"),
        layers=number("block_count"),
        hidden_size=number("embedding_length"),
        kv_values=_kv_values(number),
        parameters=sum(tensor.elements for tensor in tensors),
        tensors=len(tensors),
        license=text("general.license"),
        has_chat_template="tokenizer.chat_template" in values,
        size=size,
    )


def _kv_values(number: Callable[[str], int]) -> int:
    """Of a model of the usual kind: some keep less, in layers that look back a little only."""
    heads = number("attention.head_count")
    usual = number("embedding_length") // heads if heads else 0
    widths = (number(f"attention.{kind}_length") or usual for kind in ("key", "value"))
    return number("block_count") * (number("attention.head_count_kv") or heads) * sum(widths)


def _weight_format(values: dict[str, _Value], tensors: tuple[_Tensor, ...]) -> str:
    """The file's own word for its mixture of types, else the type most elements are of."""
    named = values.get("general.file_type")
    if isinstance(named, int) and named in FILE_TYPES:
        return FILE_TYPES[named]
    return most_common((BLOCKS[tensor.type][0], tensor.elements) for tensor in tensors)


def most_common(tensors: Iterable[tuple[str, int]]) -> str:
    """The type that most elements are of, given each tensor's type and elements."""
    elements: Counter[str] = Counter()
    for name, count in tensors:
        elements[name] += count
    return elements.most_common(1)[0][0] if elements else ""


def what_it_is(start: bytes) -> str:
    """What a file that is no model seems to be, from its first bytes, in words."""
    if not start:
        return "empty"
    head = start.lstrip()[:64].lower()
    if head.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return "a web page"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer (run: git lfs pull)"
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")):
        return "a zip archive or a Python pickle"
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in start):
        return "a text file"
    return "some other kind of file"
