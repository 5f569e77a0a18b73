"""The header check against files that are whole, cut at every place, altered and hostile."""

from __future__ import annotations

import os
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chatapp.chat.errors import ModelError
from chatapp.models.errors import DamagedModel, RefusedModel
from chatapp.models.facts import FileFacts
from chatapp.models.gguf_file import (
    BLOCKS,
    FILE_TYPES,
    MAX_ITEMS,
    MAX_TENSORS,
    MAX_VALUES,
    check_gguf,
)
from tests.models.samples import gguf_bytes

WHOLE = gguf_bytes()


def key(name: str) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode()


def number(name: str, value: int) -> bytes:
    return key(name) + struct.pack("<II", 4, value)


def text(name: str, value: str) -> bytes:
    return key(name) + struct.pack("<I", 8) + key(value)


def tensor(
    name: str = "w", shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0
) -> bytes:
    start = key(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return start + struct.pack("<IQ", kind, offset)


ARCHITECTURE = text("general.architecture", "llama")


def header(
    *values: bytes, tensors: tuple[bytes, ...] = (tensor(),), data: int = 4096, version: int = 3
) -> bytes:
    counts = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(values))
    start = counts + b"".join(values) + b"".join(tensors)
    return start + bytes(-len(start) % 32 + data)


@pytest.fixture
def check(tmp_path: Path) -> Callable[[bytes], FileFacts]:
    path = tmp_path / "model.gguf"

    def check(data: bytes) -> FileFacts:
        path.write_bytes(data)
        return check_gguf(path)

    return check


def test_facts(check: Callable[[bytes], FileFacts]) -> None:
    assert check(WHOLE) == FileFacts(
        name="Tiny",
        architecture="llama",
        weight_format="Q8_0",
        context_length=128,
        vocab_size=64,
        layers=1,
        hidden_size=32,
        kv_values=0,  # the file names no heads
        parameters=2 * 64 * 32 + 32,
        tensors=3,
        license="apache-2.0",
        has_chat_template=True,
        size=len(WHOLE),
    )


def test_tables_are_those_of_the_gguf_package() -> None:
    known = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    shared = known.keys() & BLOCKS.keys()  # another release may know more or fewer
    assert len(shared) >= 30
    assert {kind: BLOCKS[kind] for kind in shared} == {kind: known[kind] for kind in shared}
    names = {int(kind): kind.name.partition("_")[2] for kind in gguf.LlamaFileType}
    assert {kind: names[kind] for kind in FILE_TYPES} == dict(FILE_TYPES)


def test_smallest(check: Callable[[bytes], FileFacts]) -> None:
    facts = check(header(ARCHITECTURE))
    assert (facts.name, facts.weight_format, facts.parameters) == ("model", "F32", 32)


def test_cut_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    whole = gguf_bytes(rows=4)
    path.write_bytes(whole)
    for length in reversed(range(len(whole))):
        os.truncate(path, length)
        with pytest.raises(DamagedModel) as caught:
            check_gguf(path)
        message = str(caught.value)
        assert "\n" not in message
        assert "cut off" in message or length < 4


def test_cut_in_the_weights_says_the_sizes(check: Callable[[bytes], FileFacts]) -> None:
    with pytest.raises(DamagedModel, match=f"should have at least .* and has {len(WHOLE) - 9:,}"):
        check(WHOLE[:-9])


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\n <html lang=en>", "a web page"),
        (b"hello, I am a story\n", "a text file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\x03\x04\x00\x00", "zip archive or a Python pickle"),
        (b"\x7fELF\x01\x00", "some other kind"),
    ],
)
def test_other_files(check: Callable[[bytes], FileFacts], start: bytes, words: str) -> None:
    with pytest.raises(DamagedModel, match=words):
        check(start)


def array(name: str, item_type: int, count: int) -> bytes:
    return key(name) + struct.pack("<IIQ", 9, item_type, count)


HOSTILE = {
    "tensors without end": struct.pack("<4sIQQ", b"GGUF", 3, 2**63, 0),
    "values without end": struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**64 - 1),
    "more tensors than bytes": struct.pack("<4sIQQ", b"GGUF", 3, MAX_TENSORS, 0),
    "more values than bytes": struct.pack("<4sIQQ", b"GGUF", 3, 0, MAX_VALUES),
    "array without end": header(array("a", 0, 2**62), data=0),
    "array of strings without end": header(array("a", 8, MAX_ITEMS), data=0),
    "array of arrays": header(array("a", 9, 1), data=64),
    "array of nothing known": header(array("a", 77, 0)),
    "key without end": header(struct.pack("<Q", 2**63)),
    "string without end": header(key("a") + struct.pack("<IQ", 8, 2**40)),
    "value of no known type": header(key("a") + struct.pack("<I", 99)),
    "key twice": header(ARCHITECTURE, ARCHITECTURE),
    "key that the gguf package uses": header(ARCHITECTURE, number("GGUF.version", 3)),
    "key that is no text": header(struct.pack("<Q", 2) + b"\xff\xfe" + struct.pack("<II", 4, 1)),
    "tensor twice": header(ARCHITECTURE, tensors=(tensor(), tensor(offset=128))),
    "tensor of no known type": header(ARCHITECTURE, tensors=(tensor(kind=4),)),
    "tensor without dimensions": header(ARCHITECTURE, tensors=(tensor(shape=()),)),
    "tensor of many dimensions": header(ARCHITECTURE, tensors=(tensor(shape=(1,) * 5),)),
    "tensor of no elements": header(ARCHITECTURE, tensors=(tensor(shape=(0, 3)),)),
    "tensor that overflows": header(ARCHITECTURE, tensors=(tensor(shape=(2**40, 2**40)),)),
    "rows that fill no block": header(ARCHITECTURE, tensors=(tensor(shape=(33,), kind=8),)),
    "offset beyond the file": header(ARCHITECTURE, tensors=(tensor(offset=2**40),)),
    "offset that overflows": header(ARCHITECTURE, tensors=(tensor(offset=2**64 - 32),)),
    "offset between": header(ARCHITECTURE, tensors=(tensor(offset=7),)),
    "tensors over each other": header(ARCHITECTURE, tensors=(tensor(), tensor("v", offset=32))),
    "alignment of 0": header(ARCHITECTURE, number("general.alignment", 0)),
    "alignment of 3": header(ARCHITECTURE, number("general.alignment", 3)),
    "alignment without end": header(ARCHITECTURE, number("general.alignment", 2**31)),
    "alignment as a text": header(ARCHITECTURE, text("general.alignment", "32")),
    "no architecture": header(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(check: Callable[[bytes], FileFacts], name: str) -> None:
    began = time.process_time()
    with pytest.raises(DamagedModel) as caught:
        check(HOSTILE[name])
    assert time.process_time() - began < 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (header(ARCHITECTURE, version=1), "version 1"),
        (header(ARCHITECTURE, version=0x03000000), "big-endian"),
        (header(ARCHITECTURE, tensors=()), "only a vocabulary"),
        (header(ARCHITECTURE, number("split.count", 3)), "one of 3 parts"),
        (header(text("general.architecture", "bert")), "no causal language model"),
    ],
)
def test_refused(check: Callable[[bytes], FileFacts], data: bytes, words: str) -> None:
    with pytest.raises(RefusedModel, match=words):
        check(data)


def test_a_large_lie_takes_no_memory(check: Callable[[bytes], FileFacts], tmp_path: Path) -> None:
    """An array of as many strings as are allowed, all of them empty: 32 MB of header."""
    path = tmp_path / "model.gguf"
    with path.open("wb") as stream:
        stream.write(header(array("a", 8, MAX_ITEMS), tensors=(), data=0)[:-1])
        stream.truncate(stream.tell() + MAX_ITEMS * 8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError):
        check_gguf(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DamagedModel, match="No such file"):
        check_gguf(tmp_path / "gone.gguf")
    with pytest.raises(DamagedModel, match="cannot read"):
        check_gguf(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DamagedModel, match="Permission denied"):
        check_gguf(tmp_path / "model.gguf")


INTERESTING = [0, 1, 7, 8, 9, 31, 32, 255, 2**16, 2**31 - 1, 2**32 - 1, 2**62, 2**63, 2**64 - 1]


@st.composite
def altered(draw: st.DrawFn) -> bytes:
    """The small file with numbers overwritten, bytes cut out or put in, or its end missing."""
    data = bytearray(WHOLE)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, min(len(data), 2200)))
        match draw(st.sampled_from(["number", "byte", "insert", "delete", "cut"])):
            case "number":
                width = draw(st.sampled_from([4, 8]))
                value = draw(st.sampled_from(INTERESTING) | st.integers(0, 2**64 - 1))
                data[place : place + width] = value.to_bytes(8, "little")[:width]
            case "byte":
                data[place : place + 1] = bytes([draw(st.integers(0, 255))])
            case "insert":
                data[place:place] = draw(st.binary(min_size=1, max_size=16))
            case "delete":
                del data[place : place + draw(st.integers(1, 64))]
            case "cut":
                del data[draw(st.integers(0, len(data))) :]
    return bytes(data)


@settings(
    max_examples=400,
    deadline=2000,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(WHOLE)
@given(altered())
def test_altered_files(tmp_path: Path, data: bytes) -> None:
    """Each is refused in words, or is read by the gguf package without trouble."""
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    try:
        facts = check_gguf(path)
    except ModelError as error:
        assert "\n" not in str(error)
        return
    reader = gguf.GGUFReader(path)
    assert facts.tensors == len(reader.tensors)
    assert facts.parameters == sum(tensor.n_elements for tensor in reader.tensors)
