"""Whether a .gguf file can be trusted, and what its header tells, before anything else reads it.

gguf 0.19 believes every count in a header: a file of 43 bytes makes it loop for hours and fill the
memory (ggml-org/llama.cpp#27188). Here every count, length and offset is held against the size of
the file first, so that the reading takes time and memory in proportion to a header of known bounds;
a file that passes is safe to hand on. Only the header is read, never the weights.

The format: ggml, docs/gguf.md, versions 2 and 3. Its tables stand here because importing the gguf
package takes half a second; a test compares the two.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from chatapp.models.errors import DamagedModel, RefusedModel
from chatapp.models.facts import FileFacts, kv_values, most_common

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

SCALARS: Mapping[int, str] = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
"""Value type → its `struct` format, little-endian."""

STRING = 8
ARRAY = 9

BLOCKS: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}  # fmt: skip
"""Tensor type → its name, the elements of a block, and the bytes of a block."""

FILE_TYPES: Mapping[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0",
}  # fmt: skip
"""`general.file_type` → what the mixture of tensor types is called."""

_NOT_CAUSAL = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "modern-bert", "clip", "t5encoder"}
)
"""Architectures of GGUF files that write no text."""

_READERS_OWN = frozenset({"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count"})
"""What the gguf package calls the fixed fields; keys of these names make it fail."""


class _Tensor(NamedTuple):
    name: str
    type: str
    elements: int
    offset: int
    size: int


class _CutOff(Exception):
    """The file ends before its header does."""


class _Bad(Exception):
    """Something in the header cannot be; the message says what."""


def check_gguf(path: Path) -> FileFacts:
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


def _check(path: Path, stream: BinaryIO, size: int) -> FileFacts:
    start = stream.read(512)
    if start[:4] != b"GGUF":
        raise DamagedModel(f"{path} is {_what_it_is(start)}, not a GGUF model")
    stream.seek(4)
    header = _Header(stream)
    version = header.number("<I")
    if version & 0xFFFF == 0:
        raise RefusedModel(f"{path} is a big-endian GGUF file; only little-endian ones are read")
    if version not in (2, 3):
        raise RefusedModel(f"{path} is of GGUF version {version}; only 2 and 3 are read")
    tensor_count = header.count("tensors", MAX_TENSORS)
    values = header.values(header.count("values", MAX_VALUES))
    tensors = tuple(header.tensors(tensor_count))
    needed = _end_of_data(tensors, values.get("general.alignment", 32), stream.tell())
    if needed > size:
        raise DamagedModel(
            f"{path} is cut off: it should have at least {needed:,} bytes and has "
            f"{size:,}; fetch or copy it again"
        )
    _check_kind(path, values, tensors)
    return _facts(path, values, tensors, size)


class _Header:
    """Reads a header forward.

    What is passed over may lie past the file's end: then the next read finds nothing, or the
    weights would have to lie past it as well.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._items_left = MAX_ITEMS

    def take(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) != count:
            raise _CutOff
        return data

    def number(self, form: str) -> Any:
        """One number of a `struct` format."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def count(self, what: str, limit: int) -> int:
        count: int = self.number("<Q")
        _at_most(what, count, limit)
        return count

    def text(self, what: str, limit: int) -> str:
        try:
            return self.take(self.count(f"bytes in {what}", limit)).decode("utf-8")
        except UnicodeDecodeError:
            raise _Bad(f"{what} is not valid UTF-8") from None

    def values(self, count: int) -> Mapping[str, Any]:
        """By key. A long text is None, an array is a range as long as it is."""
        values: dict[str, Any] = {}
        for _ in range(count):
            key = self.text("a key", MAX_KEY_BYTES)
            if key in values or key in _READERS_OWN:
                raise _Bad(f"the key {key[:80]!r} stands in it twice")
            value_type = self.number("<I")
            values[key] = self._value(value_type)
            if key == "general.alignment" and value_type != 4:
                raise _Bad("general.alignment is not of the type UINT32")
        return values

    def _value(self, value_type: int) -> Any:
        if form := SCALARS.get(value_type):
            return self.number(form)
        if value_type == STRING:
            count = self.count("bytes in a value", MAX_STRING_BYTES)
            if count <= KEPT_STRING_BYTES:
                return self.take(count).decode("utf-8", "replace")
            self._stream.seek(count, os.SEEK_CUR)
            return None
        if value_type != ARRAY:
            raise _Bad(f"a value has the unknown type {value_type}")
        item_type = self.number("<I")
        count = self.count("elements of arrays", self._items_left)
        self._items_left -= count
        if form := SCALARS.get(item_type):
            self._stream.seek(count * struct.calcsize(form), os.SEEK_CUR)
        elif item_type == STRING:
            self._pass_over(count)
        else:
            raise _Bad(f"an array has elements of the type {item_type}")
        return range(count)

    def _pass_over(self, count: int) -> None:
        """The strings of an array, the bulk of a header: hundreds of thousands."""
        read, unpack = self._stream.read, struct.Struct("<Q").unpack
        for _ in range(count):
            head = read(8)
            if len(head) != 8:
                raise _CutOff
            (length,) = unpack(head)
            if length > MAX_ITEM_BYTES:
                _at_most("bytes in one element of an array", length, MAX_ITEM_BYTES)
            if len(read(length)) != length:
                raise _CutOff

    def tensors(self, count: int) -> Iterator[_Tensor]:
        names: set[str] = set()
        for _ in range(count):
            name = self.text("a tensor's name", MAX_NAME_BYTES)
            if name in names:
                raise _Bad(f"the tensor {name!r} stands in it twice")
            names.add(name)
            dimensions = self.number("<I")
            _at_most(f"dimensions of the tensor {name!r}", dimensions, MAX_DIMENSIONS)
            if dimensions == 0:
                raise _Bad(f"the tensor {name!r} has no dimensions")
            shape = [self.number("<Q") for _ in range(dimensions)]
            tensor_type, offset = self.number("<I"), self.number("<Q")
            if tensor_type not in BLOCKS:
                raise _Bad(f"the tensor {name!r} has the unknown type {tensor_type}")
            type_name, block, block_bytes = BLOCKS[tensor_type]
            elements = math.prod(shape)
            if not 0 < elements <= MAX_ELEMENTS:
                raise _Bad(f"the tensor {name!r} cannot have the shape {shape}")
            if shape[0] % block:
                raise _Bad(
                    f"the tensor {name!r} has rows of {shape[0]:,}, no multiple of {type_name}'s"
                )
            yield _Tensor(name, type_name, elements, offset, elements // block * block_bytes)


def _at_most(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise _Bad(f"it claims {count:,} {what}, and {limit:,} is the most there can be")


def _end_of_data(tensors: tuple[_Tensor, ...], alignment: int, header_end: int) -> int:
    """Where the last tensor ends; each lies behind the header, aligned, and overlaps no other."""
    if not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise _Bad(f"general.alignment is {alignment:,}, no power of two up to {MAX_ALIGNMENT:,}")
    reached = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.offset % alignment:
            raise _Bad(f"the tensor {tensor.name!r} does not start at a multiple of {alignment}")
        if tensor.offset < reached:
            raise _Bad(f"the tensor {tensor.name!r} overlaps another")
        reached = tensor.offset + tensor.size
    return -(-header_end // alignment) * alignment + reached


def _check_kind(path: Path, values: Mapping[str, Any], tensors: tuple[_Tensor, ...]) -> None:
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
    path: Path, values: Mapping[str, Any], tensors: tuple[_Tensor, ...], size: int
) -> FileFacts:
    def text(key: str) -> str:
        value = values.get(key)
        return value if isinstance(value, str) else ""

    architecture = text("general.architecture")

    def number(key: str) -> int:
        value = values.get(f"{architecture}.{key}")
        return value if isinstance(value, int) else 0

    mixture, tokens = values.get("general.file_type"), values.get("tokenizer.ggml.tokens")
    layers, hidden_size = number("block_count"), number("embedding_length")
    return FileFacts(
        name=text("general.name") or path.stem,
        architecture=architecture,
        # The file's own word for its mixture of types, else the type most elements are of.
        weight_format=FILE_TYPES[mixture]
        if isinstance(mixture, int) and mixture in FILE_TYPES
        else most_common((tensor.type, tensor.elements) for tensor in tensors),
        context_length=number("context_length"),
        vocab_size=len(tokens) if isinstance(tokens, range) else number("vocab_size"),
        layers=layers,
        hidden_size=hidden_size,
        kv_values=kv_values(
            layers,
            hidden_size,
            number("attention.head_count"),
            number("attention.head_count_kv"),
            number("attention.key_length"),
            number("attention.value_length"),
        ),
        parameters=sum(tensor.elements for tensor in tensors),
        tensors=len(tensors),
        license=text("general.license"),
        has_chat_template="tokenizer.chat_template" in values,
        size=size,
    )


def _what_it_is(start: bytes) -> str:
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
