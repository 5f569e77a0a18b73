"""Every message whose own pages are whole is read, whatever else of the file is broken."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatapp.chat.conversation import Conversation
from chatapp.store.chats import Chats
from chatapp.store.database import Database, connect
from chatapp.store.recovery import recover
from chatapp.store.salvage import SHAPES, Saved, free_pages, rows_of_pages, save_readable
from tests.store.samples import make_conversation, make_message, make_reply, news, reply_text

PAGE = 4096


def mark(number: int) -> str:
    """Stands in a message's own pages alone: the search index leaves such signs out."""
    return f"<<{number:04}>>"


def keeping_freed(path: Path) -> sqlite3.Connection:
    """A connection that leaves old rows in the pages it frees."""
    connection = connect(path)
    connection.execute("PRAGMA secure_delete = OFF")
    return connection


def fill(path: Path) -> int:
    """Messages of all lengths, on many pages below a root. Returns how many."""
    Database(path).close()
    chats = Chats(Database(path, make_connection=keeping_freed))
    rng = random.Random(4)
    number = 0
    for name in range(6):
        conversation = Conversation(id=f"c{name}", created=1.0, title=f"title {name}")
        parent = None
        for _ in range(12):
            size = rng.choice((1, 10, 60, 300, 600, 1200))
            message = make_message(f"m{number}", parent, mark(number) * size)
            conversation = conversation.with_message(message)
            parent, number = message.id, number + 1
        reply = make_reply(20, seed=name)
        answer = make_message(f"r{name}", parent, reply=reply)
        chats.add(conversation.with_message(answer))
    chats.database.close()
    return number


def own_pages(data: bytes, count: int) -> dict[int, set[int]]:
    """For each message, the numbers of the pages that its mark stands in."""
    found: dict[int, set[int]] = {number: set() for number in range(count)}
    for start in range(0, len(data), PAGE):
        for digits in re.findall(rb"<<(\d{4})>>", data[start : start + PAGE]):
            found[int(digits)].add(start // PAGE)
    assert all(found.values())
    return found


def salvage(data: bytes, folder: Path) -> tuple[Saved, set[int], set[str]]:
    """What is read of a damaged file: messages by their number, and the replies' texts."""
    damaged, fresh = folder / "damaged.db", folder / "fresh.db"
    for file in folder.iterdir():
        file.unlink()
    damaged.write_bytes(data)
    Database(fresh).close()
    saved = save_readable(damaged, fresh, time.time)
    with contextlib.closing(connect(fresh)) as connection:
        texts = [text for (text,) in connection.execute("SELECT text FROM message")]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    whole = {
        int(text[2:6])
        for text in texts
        if re.fullmatch(r"<<\d{4}>>", text[:8]) and text == text[:8] * (len(text) // 8)
    }
    return saved, whole, set(texts)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, int]:
    path = tmp_path_factory.mktemp("sample") / "data" / "chats.db"
    count = fill(path)
    return path.read_bytes(), count


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "salvage").mkdir()
    return tmp_path / "salvage"


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", [bytes, random.Random(7).randbytes], ids=["zeros", "noise"])
def test_one_broken_page_takes_only_its_own_messages(
    sample: tuple[bytes, int], folder: Path, make: Callable[[int], bytes], every: int
) -> None:
    data, count = sample
    pages_of = own_pages(data, count)
    for page in range(0, len(data) // PAGE, every):
        broken = bytearray(data)
        broken[page * PAGE : (page + 1) * PAGE] = make(PAGE)
        saved, whole, _ = salvage(bytes(broken), folder)
        expected = {number for number, pages in pages_of.items() if page not in pages}
        assert expected <= whole, f"page {page + 1}"
        assert saved.conversations >= 6


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_file_that_is_cut_anywhere_keeps_what_is_before_the_cut(
    sample: tuple[bytes, int], folder: Path, every: int
) -> None:
    data, count = sample
    pages_of = own_pages(data, count)
    for page in range(0, len(data) // PAGE, every):
        _, whole, _ = salvage(data[: page * PAGE], folder)
        expected = {number for number, pages in pages_of.items() if max(pages) < page}
        assert expected <= whole, f"cut before page {page + 1}"


def test_replies_come_back_with_their_records(folder: Path) -> None:
    path = folder.parent / "data" / "chats.db"
    chats = Chats(Database(path))
    conversation = make_conversation("c", turns=3, tokens=40)
    chats.add(conversation)
    expected = chats.load("c").conversation
    chats.database.close()
    data = bytearray(path.read_bytes())
    data[:PAGE] = bytes(PAGE)
    # No root of a table is left either, so that SQLite reaches nothing.
    with contextlib.closing(connect(path)) as connection:
        roots = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE type = 'table' AND rootpage > 1"
        ).fetchall()
    interior = [page for (page,) in roots if data[(page - 1) * PAGE] == 5]
    assert interior
    for page in interior:
        data[(page - 1) * PAGE : page * PAGE] = bytes(PAGE)
    path.write_bytes(data)
    recover(path)
    chats = Chats(Database(path))
    assert chats.load("c").conversation == expected
    chats.database.close()


def with_a_purged_chat(path: Path) -> bytes:
    """A database with free pages that still hold the messages of a chat that was purged."""
    fill(path)
    chats = Chats(Database(path, make_connection=keeping_freed), clock=lambda: 0.0)
    chats.delete("c3")
    chats.database.close()
    chats = Chats(Database(path, make_connection=keeping_freed))
    assert chats.purge() == 1
    chats.database.close()
    with contextlib.closing(connect(path)) as connection:
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        assert free > 5
    return path.read_bytes()


def interior_pages(data: bytes) -> list[int]:
    return [start for start in range(PAGE, len(data), PAGE) if data[start] == 5]


def test_what_was_purged_does_not_come_back(folder: Path) -> None:
    data = with_a_purged_chat(folder.parent / "data" / "chats.db")
    purged = set(range(36, 48))
    assert any(mark(number).encode() in data for number in purged)
    broken = bytearray(data)
    for start in interior_pages(data):
        broken[start : start + PAGE] = bytes(PAGE)
    saved, whole, texts = salvage(bytes(broken), folder)
    assert whole == set(range(72)) - purged
    assert saved.conversations == 5
    assert reply_text(make_reply(20, seed=3)) not in texts
    # Without the first page it is not known which pages are free; SQLite reads the tables from end
    # to end all the same, so nothing is added to them.
    broken = bytearray(data)
    broken[:PAGE] = bytes(PAGE)
    assert salvage(bytes(broken), folder)[1] == set(range(72)) - purged


def test_of_two_versions_of_a_row_the_later_stays(folder: Path) -> None:
    """Neither the list of free pages nor the way to the rows is left: both versions are met."""
    path = folder.parent / "data" / "chats.db"
    Database(path).close()
    chats = Chats(Database(path, make_connection=keeping_freed))
    whole = make_reply(300, seed=1)
    conversation = Conversation(id="c", created=1.0)
    chats.save_conversation(conversation)
    chats.save_message("c", make_message("u", None, "question"))
    for count in range(0, 300, 20):
        reply = replace(whole, records=whole.records[:count], finish_reason=None)
        answer = make_message("a", "u", reply=reply)
        if count:
            chats.append("c", news(answer, count - 20))
        else:
            chats.save_message("c", answer)
    chats.save_message("c", make_message("a", "u", reply=whole))
    expected = chats.load("c").conversation
    chats.database.close()
    data = bytearray(path.read_bytes())
    assert data[36:40] != bytes(4)  # the chunks of the growing reply stand in free pages
    for start in (0, *interior_pages(bytes(data))):
        data[start : start + PAGE] = bytes(PAGE)
    path.write_bytes(data)
    recover(path)
    chats = Chats(Database(path))
    messages = chats.load("c").conversation.messages
    assert messages == expected.messages
    chats.database.close()


def test_the_shapes_of_tables_are_those_of_the_schema(folder: Path) -> None:
    path = folder / "chats.db"
    Database(path).close()
    kinds = {"INTEGER": "i", "REAL": "[ir]", "TEXT": "t", "BLOB": "b"}
    with contextlib.closing(connect(path)) as connection:
        for table, shape in SHAPES.items():
            written = ""
            columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
            for _, name, kind, needed, _, key in columns:
                letter = kinds[kind]
                late = (table, name) == ("reply", "runtime")
                optional = not (needed or key) or late
                written += f"[{letter.strip('[]')}n]" if optional else letter
            assert re.sub(r"(.)\{(\d)\}", lambda m: m[1] * int(m[2]), shape) == written
            assert len(columns) <= 14


# Pages of any database, one by one

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


def rows_by_page(path: Path, free: frozenset[int]) -> Counter[tuple[object, ...]]:
    """With the types: 1 and 1.0 are not the same."""
    copy = path.with_name("copy.db")
    shutil.copyfile(path, copy)
    return exact(row[:3] for row in rows_of_pages(copy, free))


def exact(rows: Iterable[tuple[object, ...]]) -> Counter[tuple[object, ...]]:
    return Counter((*row, *map(type, row)) for row in rows)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from([512, 1024, 4096, 65536]), rows, st.integers(0, 40))
def test_rows_are_read_as_their_table_reads_them(
    tmp_path: Path, page_size: int, content: list[tuple[object, ...]], removed: int
) -> None:
    path = tmp_path / "sample.db"
    connection = make(path, page_size, list(content))
    connection.execute(
        "DELETE FROM sample WHERE key IN (SELECT key FROM sample ORDER BY b LIMIT ?)", (removed,)
    )
    expected = exact(connection.execute("SELECT key, a, b FROM sample WHERE key >= 0"))
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    connection.close()
    skip = free_pages(path)
    assert skip is not None
    assert len(skip) == free
    assert rows_by_page(path, skip) == expected


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
    free = free_pages(path)
    assert free == set(range(1, path.stat().st_size // 512 + 1)) - used
    assert len(free) > 512 // 4  # so many that one page does not hold their list
    # They do hold old rows: the list is what keeps those from coming back.
    assert {row[0] for row in rows_by_page(path, frozenset())} & set(range(200, 800))
    assert not {row[0] for row in rows_by_page(path, free)} & set(range(100, 901))


@pytest.mark.parametrize("place", [32, 36])
def test_a_broken_list_of_free_pages_is_not_believed(tmp_path: Path, place: int) -> None:
    path = tmp_path / "sample.db"
    connection = make(path, 512, [(n, "x" * 300, b"") for n in range(1000)])
    connection.execute("DELETE FROM sample WHERE key > 10")
    connection.close()
    data = bytearray(path.read_bytes())
    for damage in (bytes(4), b"\xff" * 4, b"\0\0\0\2"):
        data[place : place + 4] = damage
        path.write_bytes(data)
        assert free_pages(path) is None


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=3000), st.integers(0, 2**17), st.binary(max_size=300))
def test_no_content_makes_it_fail(
    sample: tuple[bytes, int], folder: Path, raw: bytes, place: int, patch: bytes
) -> None:
    salvage(raw, folder)
    # And one that looks like a database until the patch.
    data = bytearray(sample[0])
    data[place : place + len(patch)] = patch
    salvage(bytes(data), folder)
