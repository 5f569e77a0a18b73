"""Token records as bytes: columns of a few hundred records, compressed.

A record with 20 candidates holds some 150 numbers. Written one after the other they compress
badly; written by column, with the bytes of each number split into planes (all first bytes, then all
second bytes…), they shrink to a third. Every chunk stands for itself: it names its own tokens, so
that a damaged neighbour takes nothing with it.

Probabilities, logprobs and entropies are kept as float32: seven digits, more than is ever shown.
What the user had set (temperature, settings of stages) and the number that was drawn are kept as
float64, since a replay needs them exactly. Token ids, ranks and counts are unsigned 32-bit. With 20
candidates that makes some 300 bytes a token on the default model (366 while a reply streams, in
chunks of half a second).
"""

from __future__ import annotations

import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec

from chatapp.chat.record import Candidate, Removal, SamplingSpan, TokenRecord
from chatapp.chat.text import escape_bytes
from chatapp.store.unicode import well_formed

CHUNK = 256
"""How many records a chunk of a finished reply holds."""

_VERSION = 1
_LEVEL = 6


class PackingError(ValueError):
    """Bytes that are no packed records, or numbers that do not fit."""


class _Columns(msgspec.Struct, array_like=True, frozen=True):
    """Everything of a chunk but the ids and logprobs of the chosen tokens."""

    first_index: int
    indexes: list[int] | None
    """None when they count up from `first_index`."""
    vocabulary: list[tuple[int, bytes, str | None]]
    """Each token of the chunk once: id, bytes, and its `token` where the bytes don't tell it."""
    chosen: bytes
    texts: list[str | None]
    """None where the text is the token's bytes, decoded."""
    temperatures: list[float]
    draws: list[float | None]
    ranks: bytes
    other_counts: bytes
    floats: list[bytes]
    """One column a name of `_RECORD_FLOATS`."""
    candidate_counts: bytes
    candidates: bytes
    candidate_ranks: bytes
    candidate_floats: list[bytes]
    """One column a name of `_CANDIDATE_FLOATS`."""
    removals: list[tuple[str, float]]
    """Each stage with its setting once."""
    removed: bytes
    """For each candidate, 1 + its place in `removals`, or 0."""
    thresholds: bytes
    values: bytes


class _Chunk(msgspec.Struct, array_like=True, frozen=True):
    version: int
    ids: bytes
    logprobs: bytes
    columns: bytes
    """`_Columns`, compressed."""


_RECORD_FLOATS = (
    "tempered_prob",
    "prob",
    "entropy_bits",
    "final_entropy_bits",
    "p_end",
    "other_model_prob",
    "other_tempered_prob",
    "other_prob",
)
_CANDIDATE_FLOATS = ("logprob", "tempered_prob", "prob")

_chunks = msgspec.msgpack.Decoder(_Chunk)
_columns = msgspec.msgpack.Decoder(_Columns)
_spans = msgspec.msgpack.Decoder(tuple[SamplingSpan, ...])


def pack_records(records: Sequence[TokenRecord]) -> bytes:
    """Records as one chunk.

    Raises PackingError: an id, rank or count is negative or wider than 32 bits.
    """
    candidates = [candidate for record in records for candidate in record.candidates]
    cuts = [candidate.removed_by for candidate in candidates if candidate.removed_by]
    tokens: dict[tuple[int, bytes, str | None], int] = {}
    removals: dict[tuple[str, float], int] = {}

    def place(item: TokenRecord | Candidate) -> int:
        token = None if item.token == escape_bytes(item.bytes) else well_formed(item.token)
        return tokens.setdefault((item.id, item.bytes, token), len(tokens))

    def removed(cut: Removal | None) -> int:
        if cut is None:
            return 0
        return 1 + removals.setdefault((well_formed(cut.stage), cut.setting), len(removals))

    def text(record: TokenRecord) -> str | None:
        found = well_formed(record.text)
        return None if found == _plain_text(record.bytes) else found

    first, indexes = records[0].index, [record.index for record in records]
    try:
        columns = _Columns(
            first_index=first,
            indexes=None if indexes == list(range(first, first + len(records))) else indexes,
            chosen=_packed("I", map(place, records)),
            texts=[text(record) for record in records],
            temperatures=[record.temperature for record in records],
            draws=[record.draw for record in records],
            ranks=_column("I", records, "rank"),
            other_counts=_column("I", records, "other_count"),
            floats=[_column("f", records, name) for name in _RECORD_FLOATS],
            candidate_counts=_packed("I", (len(record.candidates) for record in records)),
            candidates=_packed("I", map(place, candidates)),
            candidate_ranks=_column("I", candidates, "rank"),
            candidate_floats=[_column("f", candidates, name) for name in _CANDIDATE_FLOATS],
            removed=_packed("I", (removed(candidate.removed_by) for candidate in candidates)),
            thresholds=_column("f", cuts, "threshold"),
            values=_column("f", cuts, "value"),
            removals=list(removals),
            vocabulary=list(tokens),
        )
        ids, logprobs = _column("I", records, "id"), _column("f", records, "logprob")
    except OverflowError as error:
        raise PackingError(f"a number of a token record is out of range: {error}") from None
    packed = zlib.compress(msgspec.msgpack.encode(columns), _LEVEL)
    return msgspec.msgpack.encode(_Chunk(_VERSION, ids, logprobs, packed))


def unpack_records(data: bytes) -> tuple[TokenRecord, ...]:
    """The records of a chunk. Raises PackingError: it is none, or of a newer version."""
    try:
        chunk = _chunk(data)
        columns = _columns.decode(zlib.decompress(chunk.columns))
        return tuple(_records(chunk, columns))
    except (zlib.error, msgspec.MsgspecError, ValueError, LookupError, StopIteration) as error:
        raise PackingError(f"token records cannot be read: {error}") from None


def unpack_ids(data: bytes) -> tuple[int, ...]:
    """The ids of a chunk's chosen tokens, without the rest. Raises PackingError."""
    return tuple(_unpacked("I", _chunk(data).ids))


def unpack_logprobs(data: bytes) -> tuple[float, ...]:
    """The logprobs of a chunk's chosen tokens, without the rest. Raises PackingError."""
    return tuple(_unpacked("f", _chunk(data).logprobs))


def pack_ids(ids: Sequence[int]) -> bytes:
    """Token ids, compressed. Raises PackingError."""
    try:
        return zlib.compress(_packed("I", ids), _LEVEL)
    except OverflowError as error:
        raise PackingError(f"a token id is out of range: {error}") from None


def unpack_prompt(data: bytes) -> tuple[int, ...]:
    try:
        return tuple(_unpacked("I", zlib.decompress(data)))
    except (zlib.error, ValueError) as error:
        raise PackingError(f"prompt ids cannot be read: {error}") from None


def pack_spans(spans: Sequence[SamplingSpan]) -> bytes:
    """Sampling spans, every parameter by its name, so that new ones can be added later."""
    return msgspec.msgpack.encode(spans)


@lru_cache(maxsize=64)  # the same for most replies of a conversation
def unpack_spans(data: bytes) -> tuple[SamplingSpan, ...]:
    try:
        return _spans.decode(data)
    except msgspec.MsgspecError as error:
        raise PackingError(f"sampling parameters cannot be read: {error}") from None


def _plain_text(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _chunk(data: bytes) -> _Chunk:
    try:
        chunk = _chunks.decode(data)
    except msgspec.MsgspecError as error:
        raise PackingError(f"token records cannot be read: {error}") from None
    if chunk.version != _VERSION:
        raise PackingError(f"token records of version {chunk.version}; update chatapp to read them")
    return chunk


def _records(chunk: _Chunk, columns: _Columns) -> Iterator[TokenRecord]:
    tokens = [
        (id_, raw, escape_bytes(raw) if token is None else token)
        for id_, raw, token in columns.vocabulary
    ]
    candidates = _candidates(columns, tokens)
    ids = _unpacked("I", chunk.ids)
    rows = zip(
        columns.indexes or range(columns.first_index, columns.first_index + len(ids)),
        _unpacked("I", columns.chosen),
        columns.texts,
        _unpacked("f", chunk.logprobs),
        _unpacked("I", columns.ranks),
        columns.temperatures,
        _unpacked("I", columns.candidate_counts),
        _unpacked("I", columns.other_counts),
        columns.draws,
        zip(*(_unpacked("f", column) for column in columns.floats), strict=True),
        strict=True,
    )
    for index, place, text, logprob, rank, temperature, count, others, draw, floats in rows:
        id_, raw, token = tokens[place]
        yield TokenRecord(
            index=index,
            id=id_,
            token=token,
            bytes=raw,
            text=(_plain_text(raw) or "") if text is None else text,
            logprob=logprob,
            rank=rank,
            temperature=temperature,
            candidates=tuple([next(candidates) for _ in range(count)]),
            other_count=others,
            draw=draw,
            **dict(zip(_RECORD_FLOATS, floats, strict=True)),
        )


def _candidates(columns: _Columns, tokens: Sequence[tuple[int, bytes, str]]) -> Iterator[Candidate]:
    thresholds, values = _unpacked("f", columns.thresholds), _unpacked("f", columns.values)
    cuts = zip(thresholds, values, strict=True)
    rows = zip(
        _unpacked("I", columns.candidates),
        _unpacked("I", columns.candidate_ranks),
        _unpacked("I", columns.removed),
        *(_unpacked("f", column) for column in columns.candidate_floats),
        strict=True,
    )
    for place, rank, removed, logprob, tempered, prob in rows:
        id_, raw, token = tokens[place]
        removal = None
        if removed:
            stage, setting = columns.removals[removed - 1]
            removal = Removal(stage, setting, *next(cuts))
        yield Candidate(id_, token, raw, logprob, tempered, prob, rank, removal)


def _column(kind: str, rows: Sequence[object], name: str) -> bytes:
    return _packed(kind, map(attrgetter(name), rows))


def _packed(kind: str, numbers: Iterable[float]) -> bytes:
    """Numbers of 4 bytes ("I" or "f") by significance: all lowest bytes first, all highest last."""
    values: array[Any] = array(kind, numbers)
    if sys.byteorder == "big":
        values.byteswap()
    raw = values.tobytes()
    return b"".join(raw[plane::4] for plane in range(4))


def _unpacked(kind: str, data: bytes) -> array[Any]:
    count, rest = divmod(len(data), 4)
    if rest:
        raise PackingError("a column of token records is cut short")
    raw = bytearray(len(data))
    for plane in range(4):
        raw[plane::4] = data[plane * count : (plane + 1) * count]
    values: array[Any] = array(kind, bytes(raw))
    if sys.byteorder == "big":
        values.byteswap()
    return values
