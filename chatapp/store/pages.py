"""The rows in a SQLite file, read page by page without SQLite.

SQLite finds a row by descending from its table's root. One broken page on that way, or a broken
schema, hides every row below it, though the pages that hold those rows are whole. So here each page
is looked at by itself: does it hold rows of a table, and which? What table they are of, the page
does not say; whoever asks must know the rows by their shape.

The numbers in here are those of https://www.sqlite.org/fileformat2.html, chapter 1. Everything is a
pure function of the file's bytes, which may be an mmap. Nothing in the file is trusted: what does
not fit is left out, and nothing here raises for the sake of the file's content.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap

MAGIC = b"SQLite format 3\0"

DEFAULT_PAGE_SIZE = 4096
"""What SQLite takes where nobody says otherwise, and we don't."""

Value = None | int | float | str | bytes

_FILE_HEADER = 100
"""Bytes of the first page before its own header."""
_TABLE_LEAF = 13
"""The type of a page that holds rows."""
_LEAF_HEADER = 8
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
"""Bytes of a big-endian integer by its serial type."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it is stored: a column that is an alias of the row id holds None."""

    rowid: int
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Pages:
    """A database file as pages, counted from 1 as SQLite does."""

    data: bytes | mmap
    size: int
    """Bytes of a page."""
    usable: int
    """Bytes of a page that SQLite uses; the rest is reserved for extensions."""

    @classmethod
    def of(cls, data: bytes | mmap) -> Pages:
        """The pages of a file; where its header is broken, of the size that is usual."""
        size, usable = DEFAULT_PAGE_SIZE, DEFAULT_PAGE_SIZE
        if data[: len(MAGIC)] == MAGIC and len(data) >= _FILE_HEADER:
            told = int.from_bytes(data[16:18], "big")
            told = 65536 if told == 1 else told
            # At least 480 bytes must be usable.
            if 512 <= told <= 65536 and told & (told - 1) == 0 and told - data[20] >= 480:
                size, usable = told, told - data[20]
        return cls(data, size, usable)

    @property
    def count(self) -> int:
        """How many pages there are; the last one may be cut short."""
        return -(-len(self.data) // self.size)

    def page(self, number: int) -> bytes:
        """A page's bytes. Raises ValueError: there is no such page."""
        if not 1 <= number <= self.count:
            raise ValueError(f"there is no page {number}")
        return self.data[(number - 1) * self.size : number * self.size]


def free_pages(pages: Pages) -> frozenset[int] | None:
    """The pages that hold nothing any more, though old rows may still stand in them.

    Returns:
        Their numbers; None where the list of them is broken, so that they are not known.
    """
    if pages.data[: len(MAGIC)] != MAGIC or len(pages.data) < _FILE_HEADER:
        return None
    trunk, expected = struct.unpack_from(">II", pages.data[:_FILE_HEADER], 32)
    found: set[int] = set()
    while trunk:
        try:
            page = pages.page(trunk)
            following, leaves = struct.unpack_from(">II", page)
            listed = (trunk, *struct.unpack_from(f">{leaves}I", page, 8))
        except (ValueError, struct.error):
            return None
        fresh = found.isdisjoint(listed) and len(set(listed)) == len(listed)
        if not fresh or not all(1 < number <= pages.count for number in listed):
            return None
        found.update(listed)
        trunk = following
    return frozenset(found) if len(found) == expected else None


def table_rows(pages: Pages, skip: frozenset[int] = frozenset()) -> Iterator[Row]:
    """Every row of every table that stands whole in the file, in the order of the pages.

    Args:
        pages: the file.
        skip: pages whose content counts for nothing, such as `free_pages`.
    """
    for number in range(1, pages.count + 1):
        start = _FILE_HEADER if number == 1 else 0
        place = (number - 1) * pages.size + start
        is_leaf = place < len(pages.data) and pages.data[place] == _TABLE_LEAF
        if is_leaf and number not in skip:
            yield from _leaf_rows(pages, pages.page(number), start, skip)


def _leaf_rows(pages: Pages, page: bytes, start: int, skip: frozenset[int]) -> Iterator[Row]:
    """The rows of a leaf page whose header begins at `start`."""
    try:
        (count,) = struct.unpack_from(">H", page, start + 3)
    except struct.error:
        return
    for cell in range(count):
        try:
            (place,) = struct.unpack_from(">H", page, start + _LEAF_HEADER + 2 * cell)
            yield _row(pages, page, place, skip)
        except (ValueError, IndexError, struct.error):
            continue  # this one is broken; its neighbours need not be


def _row(pages: Pages, page: bytes, place: int, skip: frozenset[int]) -> Row:
    """The row of a cell: the size of its record, its row id, the record."""
    size, place = read_varint(page, place)
    rowid, place = read_varint(page, place)
    return Row(rowid, read_record(_payload(pages, page, place, size, skip)))


def _payload(pages: Pages, page: bytes, place: int, size: int, skip: frozenset[int]) -> bytes:
    """A cell's record of `size` bytes: the part on its page, and the chain of overflow pages."""
    if not 0 < size <= len(pages.data):
        raise ValueError("a record is larger than the file")
    here = _bytes_on_page(size, pages.usable)
    parts = [_exactly(page, place, here)]
    left = size - here
    following = struct.unpack_from(">I", page, place + here)[0] if left else 0
    while left:
        if following in skip:
            raise ValueError("a record goes on in a page that is free")
        overflow = pages.page(following)
        parts.append(_exactly(overflow, 4, min(left, pages.usable - 4)))
        left -= len(parts[-1])
        (following,) = struct.unpack_from(">I", overflow)
    if following:
        raise ValueError("a chain of pages goes on behind its record's end")
    return b"".join(parts)


def _bytes_on_page(size: int, usable: int) -> int:
    """How many bytes of a record of `size` bytes stand on its leaf page (P, X, M, K there)."""
    largest = usable - 35
    if size <= largest:
        return size
    least = (usable - 12) * 32 // 255 - 23
    filling = least + (size - least) % (usable - 4)
    return filling if filling <= largest else least


def read_record(record: bytes) -> tuple[Value, ...]:
    """The values of a record: a header of serial types, then their bytes.

    Raises:
        ValueError, IndexError: it is none.
    """
    end, place = read_varint(record, 0)
    types: list[int] = []
    while place < end:
        kind, place = read_varint(record, place)
        types.append(kind)
    if place != end:
        raise ValueError("a record's header does not end where it says")
    values: list[Value] = []
    for kind in types:
        size = _size(kind)
        values.append(_value(kind, _exactly(record, place, size)))
        place += size
    if place != len(record):
        raise ValueError("a record does not end where its header says")
    return tuple(values)


def read_varint(data: bytes, place: int) -> tuple[int, int]:
    """A signed integer of 1 to 9 bytes, and the place behind it.

    Raises:
        IndexError: the data ends in it.
    """
    value = 0
    for at in range(place, place + 8):
        value = value << 7 | data[at] & 0x7F
        if data[at] < 0x80:
            return value, at + 1
    value = value << 8 | data[place + 8]  # the ninth byte gives all of its bits
    return (value - (1 << 64) if value >> 63 else value), place + 9


def _size(kind: int) -> int:
    """Bytes of a value by its serial type."""
    if kind >= 12:
        return (kind - 12) // 2
    if kind == 7:
        return 8
    if kind in (0, 8, 9):
        return 0
    if kind in _INTEGERS:
        return _INTEGERS[kind]
    raise ValueError(f"no value has the type {kind}")


def _value(kind: int, raw: bytes) -> Value:
    """A value from its serial type and its bytes."""
    if kind >= 12:
        return raw.decode("utf-8", "replace") if kind % 2 else raw
    if kind == 7:
        (number,) = struct.unpack(">d", raw)
        return float(number)
    if kind == 0:
        return None
    if kind in (8, 9):
        return kind - 8
    return int.from_bytes(raw, "big", signed=True)


def _exactly(data: bytes, place: int, count: int) -> bytes:
    """So many bytes from a place on. Raises ValueError: there are fewer."""
    part = data[place : place + count]
    if len(part) != count:
        raise ValueError("the data ends too early")
    return part
