"""Token records as bytes: columns of a few hundred records, compressed.

A record with 20 candidates holds some 150 numbers. Written one after the other they compress
badly; written by column, with the bytes of each number split into planes (all first bytes, then all
second bytes…), they shrink to a third. Every chunk stands for itself: it names its own tokens, so
that a damaged neighbour takes nothing with it.

Probabilities, logprobs and entropies are kept as float32: seven digits, more than is ever shown.
What a person had set (temperature, settings of stages) and the number that was drawn are kept as
float64, since a replay needs them exactly. Token ids, ranks and counts are unsigned 32-bit. With 20
candidates that makes some 300 bytes a token on the default model (366 while a reply streams, in
chunks of half a second).
"""

from __future__ import annotations

import sys
import zlib
from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypeVar

import msgspec

from chatapp.chat.record import Candidate, Removal, SamplingSpan, TokenRecord
from chatapp.chat.text import escape_bytes
from chatapp.store.unicode import well_formed

CHUNK = 256
"""How many records a chunk of a finished reply holds."""

_Numbers = TypeVar("_Numbers", "array[int]", "array[float]")

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

    Raises:
        PackingError: an id, rank or count is negative or wider than 32 bits.
    """
    vocabulary = _Vocabulary()
    removals: dict[tuple[str, float], int] = {}
    candidates = [candidate for record in records for candidate in record.candidates]
    removed = [candidate.removed_by for candidate in candidates]
    cuts = [cut for cut in removed if cut is not None]
    first = records[0].index
    indexes = [record.index for record in records]
    try:
        columns = _Columns(
            first_index=first,
            indexes=None if indexes == list(range(first, first + len(records))) else indexes,
            chosen=_integers([vocabulary.place(record) for record in records]),
            texts=[_text_unless_plain(record) for record in records],
            temperatures=[record.temperature for record in records],
            draws=[record.draw for record in records],
            ranks=_integers([record.rank for record in records]),
            other_counts=_integers([record.other_count for record in records]),
            floats=[_floats([getattr(r, name) for r in records]) for name in _RECORD_FLOATS],
            candidate_counts=_integers([len(record.candidates) for record in records]),
            candidates=_integers([vocabulary.place(candidate) for candidate in candidates]),
            candidate_ranks=_integers([candidate.rank for candidate in candidates]),
            candidate_floats=[
                _floats([getattr(c, name) for c in candidates]) for name in _CANDIDATE_FLOATS
            ],
            removed=_integers([_removal_place(cut, removals) for cut in removed]),
            thresholds=_floats([cut.threshold for cut in cuts]),
            values=_floats([cut.value for cut in cuts]),
            removals=list(removals),
            vocabulary=list(vocabulary.tokens),
        )
        chunk = _Chunk(
            version=_VERSION,
            ids=_integers([record.id for record in records]),
            logprobs=_floats([record.logprob for record in records]),
            columns=zlib.compress(msgspec.msgpack.encode(columns), _LEVEL),
        )
    except OverflowError as error:
        raise PackingError(f"a number of a token record is out of range: {error}") from None
    return msgspec.msgpack.encode(chunk)


def unpack_records(data: bytes) -> tuple[TokenRecord, ...]:
    """The records of a chunk.

    Raises:
        PackingError: it is none, or of a newer version.
    """
    try:
        chunk = _chunk(data)
        columns = _columns.decode(zlib.decompress(chunk.columns))
        return tuple(_records(chunk, columns))
    except (zlib.error, msgspec.MsgspecError, ValueError, LookupError, StopIteration) as error:
        raise PackingError(f"token records cannot be read: {error}") from None


def unpack_ids(data: bytes) -> tuple[int, ...]:
    """The ids of a chunk's chosen tokens, without the rest. Raises PackingError."""
    return tuple(_read_integers(_chunk(data).ids))


def unpack_logprobs(data: bytes) -> tuple[float, ...]:
    """The logprobs of a chunk's chosen tokens, without the rest. Raises PackingError."""
    return tuple(_read_floats(_chunk(data).logprobs))


def pack_ids(ids: Sequence[int]) -> bytes:
    """Token ids, compressed. Raises PackingError."""
    try:
        return zlib.compress(_integers(ids), _LEVEL)
    except OverflowError as error:
        raise PackingError(f"a token id is out of range: {error}") from None


def unpack_prompt(data: bytes) -> tuple[int, ...]:
    """What `pack_ids` packed. Raises PackingError."""
    try:
        return tuple(_read_integers(zlib.decompress(data)))
    except (zlib.error, ValueError) as error:
        raise PackingError(f"prompt ids cannot be read: {error}") from None


def pack_spans(spans: Sequence[SamplingSpan]) -> bytes:
    """Sampling spans, every parameter by its name, so that new ones can be added later."""
    return msgspec.msgpack.encode(spans)


@lru_cache(maxsize=64)  # the same for most replies of a conversation
def unpack_spans(data: bytes) -> tuple[SamplingSpan, ...]:
    """What `pack_spans` packed. Raises PackingError."""
    try:
        return _spans.decode(data)
    except msgspec.MsgspecError as error:
        raise PackingError(f"sampling parameters cannot be read: {error}") from None


class _Vocabulary:
    """The tokens of a chunk, each once, in the order they appear."""

    def __init__(self) -> None:
        self.tokens: dict[tuple[int, bytes, str | None], int] = {}

    def place(self, item: TokenRecord | Candidate) -> int:
        token = well_formed(item.token)
        derived = None if token == escape_bytes(item.bytes) else token
        return self.tokens.setdefault((item.id, item.bytes, derived), len(self.tokens))


def _plain_text(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _text_unless_plain(record: TokenRecord) -> str | None:
    text = well_formed(record.text)
    return None if text == _plain_text(record.bytes) else text


def _removal_place(removal: Removal | None, places: dict[tuple[str, float], int]) -> int:
    if removal is None:
        return 0
    return places.setdefault((well_formed(removal.stage), removal.setting), len(places)) + 1


def _chunk(data: bytes) -> _Chunk:
    try:
        chunk = _chunks.decode(data)
    except msgspec.MsgspecError as error:
        raise PackingError(f"token records cannot be read: {error}") from None
    if chunk.version != _VERSION:
        raise PackingError(f"token records of version {chunk.version}; update chatapp to read them")
    return chunk


def _records(chunk: _Chunk, columns: _Columns) -> Iterable[TokenRecord]:
    tokens = [
        (id_, raw, escape_bytes(raw) if token is None else token)
        for id_, raw, token in columns.vocabulary
    ]
    candidates = iter(_candidates(columns, tokens))
    ids = _read_integers(chunk.ids)
    indexes = columns.indexes or range(columns.first_index, columns.first_index + len(ids))
    floats = [_read_floats(column) for column in columns.floats]
    rows = zip(
        indexes,
        _read_integers(columns.chosen),
        columns.texts,
        _read_floats(chunk.logprobs),
        _read_integers(columns.ranks),
        columns.temperatures,
        _read_integers(columns.candidate_counts),
        _read_integers(columns.other_counts),
        columns.draws,
        zip(*floats, strict=True),
        strict=True,
    )
    for index, place, text, logprob, rank, temperature, count, others, draw, numbers in rows:
        id_, raw, token = tokens[place]
        tempered, prob, entropy, final_entropy, p_end, *rest = numbers
        other_model, other_tempered, other = rest
        plain = _plain_text(raw) if text is None else text
        yield TokenRecord(
            index=index,
            id=id_,
            token=token,
            bytes=raw,
            text=plain or "",
            logprob=logprob,
            tempered_prob=tempered,
            prob=prob,
            rank=rank,
            entropy_bits=entropy,
            final_entropy_bits=final_entropy,
            p_end=p_end,
            temperature=temperature,
            candidates=tuple([next(candidates) for _ in range(count)]),
            other_count=others,
            other_model_prob=other_model,
            other_tempered_prob=other_tempered,
            other_prob=other,
            draw=draw,
        )


def _candidates(columns: _Columns, tokens: Sequence[tuple[int, bytes, str]]) -> Iterable[Candidate]:
    cuts = zip(_read_floats(columns.thresholds), _read_floats(columns.values), strict=True)
    rows = zip(
        _read_integers(columns.candidates),
        _read_integers(columns.candidate_ranks),
        _read_integers(columns.removed),
        *(_read_floats(column) for column in columns.candidate_floats),
        strict=True,
    )
    for place, rank, removed, logprob, tempered, prob in rows:
        id_, raw, token = tokens[place]
        removal = None
        if removed:
            stage, setting = columns.removals[removed - 1]
            removal = Removal(stage, setting, *next(cuts))
        yield Candidate(id_, token, raw, logprob, tempered, prob, rank, removal)


def _integers(values: Sequence[int]) -> bytes:
    return _planes(array("I", values))


def _floats(values: Sequence[float]) -> bytes:
    return _planes(array("f", values))


def _read_integers(data: bytes) -> array[int]:
    return _unplaned(array("I"), data)


def _read_floats(data: bytes) -> array[float]:
    return _unplaned(array("f"), data)


def _planes(values: array[int] | array[float]) -> bytes:
    """The numbers' bytes by significance: all lowest bytes first, all highest bytes last."""
    if sys.byteorder == "big":
        values.byteswap()
    raw = values.tobytes()
    return b"".join(raw[plane::4] for plane in range(4))


def _unplaned(empty: _Numbers, data: bytes) -> _Numbers:
    count, rest = divmod(len(data), 4)
    if rest:
        raise PackingError("a column of token records is cut short")
    raw = bytearray(len(data))
    for plane in range(4):
        raw[plane::4] = data[plane * count : (plane + 1) * count]
    empty.frombytes(raw)
    if sys.byteorder == "big":
        empty.byteswap()
    return empty
