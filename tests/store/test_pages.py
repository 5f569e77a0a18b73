from __future__ import annotations

import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatapp.store.pages import Pages, Row, Value, free_pages, read_varint, table_rows

integers = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    # Both sides of where SQLite takes another width.
    st.sampled_from(
        [
            sign * 2**bits + by
            for bits in (0, 7, 15, 23, 31, 47, 62)
            for sign in (1, -1)
            for by in (-1, 0, 1)
        ]
    ),
)
values = st.one_of(
    st.none(),
    integers,
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
    st.binary(max_size=50),
    # Larger than a page, so that it goes on in others.
    st.builds(
        lambda size, seed: random.Random(seed).randbytes(size),
        st.integers(0, 30_000),
        st.integers(),
    ),
    st.builds(lambda n: "ü" * n, st.integers(0, 10_000)),
)
rows = st.lists(st.tuples(st.one_of(st.none(), integers), values, values), max_size=40)


def make(path: Path, page_size: int, content: list[tuple[object, ...]]) -> sqlite3.Connection:
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA secure_delete = OFF")  # freed pages keep their old rows
    connection.execute(f"PRAGMA page_size = {page_size}")
    connection.execute("CREATE TABLE sample (key INTEGER PRIMARY KEY, a, b)")
    connection.execute("BEGIN")
    connection.executemany("INSERT OR IGNORE INTO sample VALUES (?, ?, ?)", content)
    connection.execute("COMMIT")
    return connection


def as_sqlite_reads(connection: sqlite3.Connection) -> Counter[Row]:
    """All rows of all tables, the schema's too."""
    schema = connection.execute(
        "SELECT rowid, type, name, tbl_name, rootpage, sql FROM sqlite_master"
    )
    found = Counter(Row(rowid, tuple(row)) for rowid, *row in schema)
    for key, a, b in connection.execute("SELECT key, a, b FROM sample"):
        found[Row(key, (None, a, b))] += 1
    return found


def exact(found: Counter[Row]) -> Counter[tuple[object, ...]]:
    """With the types: 1 and 1.0 are not the same."""
    return Counter(
        {(row.rowid, row.values, tuple(map(type, row.values))): n for row, n in found.items()}
    )


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from([512, 1024, 4096, 65536]), rows, st.integers(0, 40))
def test_rows_are_read_as_sqlite_reads_them(
    tmp_path: Path, page_size: int, content: list[tuple[Value, ...]], removed: int
) -> None:
    path = tmp_path / "sample.db"
    connection = make(path, page_size, list(content))
    connection.execute(
        "DELETE FROM sample WHERE key IN (SELECT key FROM sample ORDER BY b LIMIT ?)", (removed,)
    )
    expected = as_sqlite_reads(connection)
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    connection.close()
    pages = Pages.of(path.read_bytes())
    assert pages.size == page_size
    skip = free_pages(pages)
    assert skip is not None
    assert len(skip) == free
    assert exact(Counter(table_rows(pages, skip))) == exact(expected)


def test_free_pages_are_those_of_no_table(tmp_path: Path) -> None:
    path = tmp_path / "sample.db"
    connection = make(path, 512, [(n, "x" * 300, b"y" * n) for n in range(1000)])
    connection.execute("DELETE FROM sample WHERE key BETWEEN 100 AND 900")
    try:
        used = {n for (n,) in connection.execute("SELECT pageno FROM dbstat")}
    except sqlite3.OperationalError:
        pytest.skip("this SQLite does not tell which pages are used")
    finally:
        connection.close()
    pages = Pages.of(path.read_bytes())
    free = free_pages(pages)
    assert free == set(range(1, pages.count + 1)) - used
    assert len(free) > 512 // 4  # so many that one page does not hold their list
    # They do hold old rows: the list is what keeps those from coming back.
    assert {row.rowid for row in table_rows(pages)} & set(range(200, 800))
    assert not {row.rowid for row in table_rows(pages, free)} & set(range(100, 901))


@pytest.mark.parametrize("place", [32, 36])
def test_a_broken_list_of_free_pages_is_not_believed(tmp_path: Path, place: int) -> None:
    path = tmp_path / "sample.db"
    connection = make(path, 512, [(n, "x" * 300, b"") for n in range(1000)])
    connection.execute("DELETE FROM sample WHERE key > 10")
    connection.close()
    data = bytearray(path.read_bytes())
    for damage in (bytes(4), b"\xff" * 4, b"\0\0\0\2"):
        data[place : place + 4] = damage
        assert free_pages(Pages.of(bytes(data))) is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 2000), st.binary(max_size=300))
def test_no_content_makes_it_fail(raw: bytes, place: int, patch: bytes) -> None:
    list(table_rows(Pages.of(raw)))
    free_pages(Pages.of(raw))
    # And one that looks like a database until the patch.
    sample = bytearray(SAMPLE)
    sample[place : place + len(patch)] = patch
    pages = Pages.of(bytes(sample))
    list(table_rows(pages, free_pages(pages) or frozenset()))


def _sample() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA page_size = 512")
    connection.execute("CREATE TABLE t (a, b)")
    connection.executemany("INSERT INTO t VALUES (?, ?)", [(n, "z" * n * 40) for n in range(20)])
    connection.commit()
    data = connection.serialize()
    connection.close()
    return data


SAMPLE = _sample()


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"\x00", 0),
        (b"\x7f", 127),
        (b"\x81\x00", 128),
        (b"\x81\x91\xd1\xac\x78", 0x12345678),
        (b"\xff" * 9, -1),
        (b"\x80" * 7 + b"\x81\x00", 256),
        (b"\x80" * 8 + b"\x01", 1),
    ],
)
def test_varint(raw: bytes, value: int) -> None:
    assert read_varint(b"?" + raw + b"?", 1) == (value, 1 + len(raw))
    with pytest.raises(IndexError):
        read_varint(raw[:-1], 0)
