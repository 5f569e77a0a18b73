from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from chatapp.chat.conversation import Conversation
from chatapp.chat.errors import StoreError
from chatapp.chat.record import FinishReason, SamplingSpan
from chatapp.chat.sampling import SamplingParams
from chatapp.session.session import ChatStore
from chatapp.store.chats import KEPT_SECONDS
from chatapp.store.database import connect, journal_mode
from chatapp.store.store import Store
from tests.store.conftest import Clock
from tests.store.samples import make_conversation, make_message, make_reply, news


def check_protocol(store: Store) -> ChatStore:
    """mypy agrees that a Store is what the session asks for."""
    return store


async def test_what_is_saved_is_loaded_the_same_by_the_next_start(path: Path) -> None:
    conversation = replace(
        make_conversation(turns=3),
        template="tutor",
        system="Be kind.\n",
        format="chatml",
        stop=("\n\nUser:", "###"),
    )
    first = await Store.open(path)
    await first.save_conversation(conversation)
    for message in conversation.messages.values():
        await first.save_message(conversation.id, message)
    await first.close()
    second = check_protocol(await Store.open(path))
    assert await second.load(conversation.id) == conversation
    assert await second.latest() == conversation.id
    await second.close()


async def test_every_field_of_a_reply_comes_back(store: Store) -> None:
    hot = SamplingParams(temperature=1.35, logit_bias=((5, -float("inf")), (6, 0.1)), banned=(9,))
    reply = replace(
        make_reply(3),
        seed=2**80 + 1,
        sampling=(SamplingSpan(0, SamplingParams()), SamplingSpan(2, hot)),
        finish_reason=FinishReason.ERROR,
        error="the engine died",
    )
    await store.save_conversation(Conversation(id="c", created=1.0))
    await store.save_message("c", make_message("m", None, reply=reply))
    loaded = (await store.load("c")).messages["m"].reply
    assert loaded == reply
    assert loaded is not None
    assert (loaded.ids, loaded.logprobs) == (reply.ids, reply.logprobs)
    assert loaded.tokens_per_second == reply.tokens_per_second
    assert replace(loaded, error="") == replace(reply, error="")
    assert repr(loaded) == repr(reply)


async def test_of_a_growing_reply_only_the_new_records_are_written(
    path: Path, store: Store
) -> None:
    whole = make_reply(700, finished=False, candidates=3)
    await store.save_conversation(Conversation(id="c", created=1.0))
    await store.save_message("c", make_message("m", None, reply=replace(whole, records=())))
    for before, count in ((0, 100), (100, 250), (250, 700)):
        part = replace(whole, records=whole.records[:count])
        await store.append("c", news(make_message("m", None, reply=part), before))
        assert (await store.load("c")).messages["m"].reply == part
    assert chunk_rows(path) == [(0, 100), (100, 150), (250, 256), (506, 194)]
    done = replace(whole, finish_reason=FinishReason.STOP)
    await store.save_message("c", make_message("m", None, reply=done))
    assert (await store.load("c")).messages["m"].reply == done
    assert chunk_rows(path) == [(0, 256), (256, 256), (512, 188)]


async def test_another_process_goes_on_with_a_reply_from_what_is_on_disk(path: Path) -> None:
    whole = make_reply(60, finished=False, candidates=3)
    first = await Store.open(path)
    await first.save_conversation(Conversation(id="c", created=1.0))
    part = replace(whole, records=whole.records[:40])
    await first.save_message("c", make_message("m", None, reply=part))
    await first.close()
    second = await Store.open(path)
    await second.append("c", news(make_message("m", None, reply=whole), 40))
    assert (await second.load("c")).messages["m"] == make_message("m", None, reply=whole)
    assert chunk_rows(path) == [(0, 40), (40, 20)]
    other = make_reply(50, seed=9, candidates=3, finished=False)
    await second.save_message("c", make_message("m", None, reply=other))
    assert (await second.load("c")).messages["m"].reply == other
    await second.close()


async def test_a_reply_can_be_cut_changed_and_taken_away(store: Store) -> None:
    whole = make_reply(20, candidates=3)
    await store.save_conversation(Conversation(id="c", created=1.0))
    for records in (whole.records, whole.records[:7], whole.records[:3] + whole.records[5:]):
        changed = replace(whole, records=records)
        await store.save_message("c", make_message("m", None, reply=changed))
        assert (await store.load("c")).messages["m"].reply == changed
    await store.save_message("c", make_message("m", None, "just text"))
    assert (await store.load("c")).messages["m"].reply is None


async def test_a_loaded_reply_is_saved_without_unpacking_it(store: Store) -> None:
    await store.add(make_conversation(turns=1))
    loaded = await store.load("c1")
    deleted = loaded.delete("c1-a0", when=5.0)
    await store.save_message("c1", deleted.messages["c1-a0"])
    again = await store.load("c1")
    assert again.messages["c1-a0"].deleted == 5.0
    assert again.leaf == "c1-u0" or again.visible(again.leaf)
    assert again.restore("c1-a0").messages == loaded.messages


async def test_a_leaf_whose_message_was_never_saved_falls_back_to_the_newest(
    store: Store,
) -> None:
    conversation = make_conversation(turns=1)
    await store.add(conversation)
    await store.save_conversation(replace(conversation, leaf="never saved"))
    assert (await store.load("c1")).leaf == "c1-a0"


async def test_text_no_file_can_hold_is_settled(store: Store) -> None:
    await store.save_conversation(Conversation(id="c", created=1.0, title="a\ud800b"))
    text = "lone \udc00, pair \ud83d\ude00, nul \0, rtl \u202e, last"
    await store.save_message("c", make_message("m", None, text))
    loaded = await store.load("c")
    assert loaded.title == "a\ufffdb"
    assert loaded.messages["m"].text == "lone \ufffd, pair 😀, nul \0, rtl \u202e, last"


async def test_list_shows_pinned_first_then_the_last_changed(store: Store, clock: Clock) -> None:
    for number in range(3):
        clock.now += 10
        await store.save_conversation(
            Conversation(id=f"c{number}", created=clock.now, title=f"t{number}", model="m")
        )
        await store.save_message(f"c{number}", make_message("u", None, "  first\n words "))
    clock.now += 10
    await store.save_message("c1", make_message("a", "u", "more"))
    await store.pin("c0")
    found = await store.list_conversations()
    assert [summary.id for summary in found] == ["c0", "c1", "c2"]
    assert (found[0].pinned, found[1].pinned) == (True, False)
    assert (found[1].messages, found[1].first_words) == (2, "first words")
    assert (found[1].changed, found[1].model, found[1].title) == (clock.now, "m", "t1")
    assert await store.latest() == "c1"


async def test_deleted_conversations_come_back_until_they_are_purged(
    path: Path, store: Store, clock: Clock
) -> None:
    await store.add(make_conversation("c1"))
    await store.add(make_conversation("c2"))
    await store.delete("c1")
    assert [s.id for s in await store.list_conversations()] == ["c2"]
    assert [s.id for s in await store.list_conversations(deleted=True)] == ["c1"]
    assert await store.latest() == "c2"
    assert [hit.conversation_id for hit in await store.search("question")] == ["c2", "c2"]
    await store.undelete("c1")
    assert await store.load("c1") == make_conversation("c1")
    await store.delete("c1")
    clock.now += KEPT_SECONDS - 1
    await (await Store.open(path, clock=clock)).close()
    assert (await store.load("c1")).id == "c1"
    clock.now += 2
    await (await Store.open(path, clock=clock)).close()
    with pytest.raises(StoreError, match="there is no conversation c1"):
        await store.load("c1")
    assert [hit.conversation_id for hit in await store.search("question")] == ["c2", "c2"]
    with connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM reply").fetchone() == (2,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


async def test_saying_something_brings_a_deleted_conversation_back(store: Store) -> None:
    await store.add(make_conversation(turns=1))
    await store.delete("c1")
    reply = make_reply(5, seed=0)
    await store.save_message("c1", make_message("c1-a0", "c1-u0", reply=reply))
    assert await store.list_conversations() == ()
    await store.save_message("c1", make_message("new", "c1-a0"))
    assert [summary.id for summary in await store.list_conversations()] == ["c1"]


async def test_a_reply_under_way_is_stopped_in_the_duplicate(store: Store) -> None:
    await store.save_conversation(make_conversation("c1"))
    growing = replace(make_reply(5), finish_reason=None)
    await store.save_message("c1", make_message("m1", None, reply=growing))
    copy = await store.load(await store.duplicate("c1"))
    (message,) = copy.messages.values()
    assert message.reply is not None
    assert message.reply.finish_reason is FinishReason.CANCELLED
    assert message.reply.ids == growing.ids
    (original,) = (await store.load("c1")).messages.values()
    assert original.reply is not None and original.reply.finish_reason is None


async def test_a_duplicate_has_everything_and_lives_its_own_life(store: Store) -> None:
    original = make_conversation()
    await store.add(original)
    copy_id = await store.duplicate("c1")
    copy = await store.load(copy_id)
    assert copy == replace(original, id=copy_id, title="Title of c1 (copy)")
    await store.save_message(copy_id, make_message("new", copy.leaf))
    assert await store.load("c1") == original
    assert len(await store.search("question number 1")) == 2


async def test_ids_are_found_by_their_beginning(store: Store) -> None:
    for id_ in ("abc1", "abc2", "abc", "x%_y"):
        await store.save_conversation(Conversation(id=id_, created=1.0))
    assert await store.resolve("abc2") == "abc2"
    assert await store.resolve("abc") == "abc"
    assert await store.resolve("x%") == "x%_y"
    with pytest.raises(StoreError, match="3 conversations begin with 'ab'"):
        await store.resolve("ab")
    for nothing in ("", "zzz", "%"):
        with pytest.raises(StoreError, match="no conversation"):
            await store.resolve(nothing)
    await store.delete("abc2")
    assert await store.resolve("a", deleted=True) == "abc2"


async def test_rename_and_unknown_ids(store: Store) -> None:
    await store.add(make_conversation())
    await store.rename("c1", "Another title")
    assert (await store.load("c1")).title == "Another title"
    for call in (store.rename("no", "t"), store.pin("no"), store.delete("no"), store.load("no")):
        with pytest.raises(StoreError, match="there is no conversation no"):
            await call
    with pytest.raises(StoreError, match="there is no conversation no"):
        await store.save_message("no", make_message("m", None))


async def test_a_message_whose_parent_is_missing_is_refused(store: Store) -> None:
    await store.add(make_conversation())
    with pytest.raises(StoreError, match="could not be written"):
        await store.save_message("c1", make_message("m", "not there"))
    assert await store.load("c1") == make_conversation()


async def test_numbers_that_do_not_fit_are_refused_in_words(store: Store) -> None:
    await store.save_conversation(Conversation(id="c", created=1.0))
    reply = make_reply(1, candidates=2)
    bad = replace(reply, records=(replace(reply.records[0], rank=-1),))
    with pytest.raises(StoreError, match="out of range"):
        await store.save_message("c", make_message("m", None, reply=bad))
    with pytest.raises(StoreError, match="out of range"):
        await store.save_message(
            "c", make_message("m", None, reply=replace(reply, prompt_ids=(-1,)))
        )
    assert (await store.load("c")).messages == {}


async def test_files_are_their_owners_alone(path: Path, store: Store) -> None:
    await store.add(make_conversation())
    await store.close()  # a backup under way comes and goes
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


async def test_the_journal_is_the_one_that_is_safe_here(path: Path, store: Store) -> None:
    assert journal_mode((3, 40, 1)) == "truncate"
    assert journal_mode((3, 51, 3)) == "wal"
    connection = sqlite3.connect(path)
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    connection.close()
    # TRUNCATE is a matter of the connection; a new one is told only whether the file is WAL.
    assert (mode == "wal") == (journal_mode() == "wal")
    (mode,) = store._chats.database._connected().execute("PRAGMA journal_mode").fetchone()
    assert mode == journal_mode()
    (sync,) = store._chats.database._connected().execute("PRAGMA synchronous").fetchone()
    assert sync == 2


async def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError) as raised:
        await Store.open(tmp_path / "file" / "data" / "chats.db")
    assert "\n" not in str(raised.value)
    assert str(tmp_path / "file") in str(raised.value)
    (tmp_path / "folder" / "chats.db").mkdir(parents=True)
    with pytest.raises(StoreError):
        await Store.open(tmp_path / "folder" / "chats.db")


async def test_a_file_that_may_only_be_read_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await Store.open(path)
    await store.add(make_conversation())
    await store.close()
    # Root may write anything, so the answer of the system is put in its mouth.
    monkeypatch.setattr("chatapp.store.database.os.access", lambda *_: False)
    store = await Store.open(path)
    assert "may only be read" in store.read_only
    assert await store.load("c1") == make_conversation()
    with pytest.raises(StoreError, match="may only be read"):
        await store.rename("c1", "t")
    await store.close()


async def test_a_database_that_is_locked_is_said_and_then_written(
    path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatapp.store.database.BUSY_SECONDS", 0.05)
    await store.add(make_conversation())
    other = connect(path)
    other.execute("BEGIN EXCLUSIVE")
    message = make_message("m", "c1-a1")
    with pytest.raises(StoreError, match="another program keeps it locked"):
        await store.save_message("c1", message)
    other.execute("ROLLBACK")
    other.close()
    await store.save_message("c1", message)
    assert (await store.load("c1")).messages["m"] == message


def test_another_programs_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE recipes (name)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program's database"):
        asyncio.run(Store.open(path))
    assert path.read_bytes() == before


async def test_the_event_loop_goes_on_while_the_store_works(path: Path) -> None:
    store = await Store.open(path)
    await store.add(make_conversation())
    entered, go_on = threading.Event(), threading.Event()

    def blocked() -> str:
        entered.set()
        assert go_on.wait(10)
        return threading.current_thread().name

    working = asyncio.ensure_future(store._run(blocked))
    assert await asyncio.to_thread(entered.wait, 10)  # the loop turns while the worker stands
    assert not working.done()
    go_on.set()
    assert (await working).startswith("store")
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.latest()


async def test_a_save_whose_caller_gave_up_is_carried_out_all_the_same(store: Store) -> None:
    await store.add(make_conversation())
    go_on = threading.Event()
    blocking = asyncio.ensure_future(store._run(lambda: go_on.wait(10)))
    saving = asyncio.ensure_future(store.save_message("c1", make_message("m", "c1-a1")))
    await asyncio.sleep(0)  # it is asked for now
    saving.cancel()
    go_on.set()
    assert await blocking
    with pytest.raises(asyncio.CancelledError):
        await saving
    assert "m" in (await store.load("c1")).messages


async def test_a_damaged_chunk_costs_only_the_records_behind_it(path: Path, store: Store) -> None:
    reply = make_reply(600, candidates=2)
    await store.save_conversation(Conversation(id="c", created=1.0, title="t"))
    await store.save_message("c", make_message("m", None, reply=reply))
    with connect(path) as connection:
        connection.execute("UPDATE chunk SET data = zeroblob(length(data)) WHERE start = 256")
    connection.close()
    loaded = (await store.load("c")).messages["m"]
    assert loaded.reply is not None
    assert loaded.reply.records == reply.records[:256]
    assert loaded.text == make_message("m", None, reply=reply).text
    assert any("lost token records" in notice for notice in store.notices)


def chunk_rows(path: Path) -> list[tuple[int, int]]:
    connection = connect(path)
    rows = connection.execute("SELECT start, count FROM chunk ORDER BY start").fetchall()
    connection.close()
    return rows
