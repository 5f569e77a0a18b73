"""The list of chats: found by what was said, opened where it was said, renamed, put away."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from chatapp.chat.conversation import Conversation, Reply
from chatapp.ui.app import ChatApp
from chatapp.ui.dialogs.chats import ChatRow, ChatsScreen, HitRow, marked
from chatapp.ui.dialogs.dialog import HelpScreen
from chatapp.ui.dialogs.write import LineScreen
from chatapp.ui.widgets.row_list import RowList
from tests.ui.host import ask, notice, ready, say, shown, until
from tests.ui.kept import fill, make_kept_app, open_store, talk, words
from tests.ui.scripted import ScriptedEngine, make_records

SIZE = (100, 30)

FRUIT = talk("fruit", "Which fruit is blue?", "Plums are blue.", "And red?", "Cherries are red.")
TREES = talk("trees", "Name a tree", "An oak.", title="About trees", at=2000)
SEA = talk("sea", "Why is the sea salty?", "Rivers carry salt into it.", at=3000)


async def open_chats(pilot: Pilot[Any]) -> ChatsScreen:
    await pilot.press("ctrl+o")
    await until(pilot, lambda: isinstance(pilot.app.screen, ChatsScreen), "the list")
    await pilot.pause()
    screen = pilot.app.screen
    assert isinstance(screen, ChatsScreen)
    return screen


def titles(screen: ChatsScreen) -> list[str]:
    return [row.summary.title for row in screen.rows if isinstance(row, ChatRow)]


async def search(pilot: Pilot[Any], screen: ChatsScreen, text: str) -> list[HitRow]:
    screen.query_one(Input).value = text
    await until(pilot, lambda: screen.shown_for == text, f"what is found for {text!r}")
    return [row for row in screen.rows if isinstance(row, HitRow)]


async def test_all_chats_stand_there_pinned_first_then_by_time(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await fill(store, [FRUIT, TREES, SEA])
        await store.pin("fruit")
        app = make_kept_app(ScriptedEngine(), store)
        async with app.run_test(size=SIZE) as pilot:
            await ready(pilot)
            screen = await open_chats(pilot)
            assert titles(screen) == [FRUIT.title, SEA.title, TREES.title]
            rows = screen.query_one(RowList).text_rows
            assert rows[0] == f"pinned  {FRUIT.title}"
            assert "4 messages · Scripted-1M" in rows[1]


async def test_the_chat_that_was_chosen_opens_though_the_list_has_changed(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await fill(store, [FRUIT, TREES, SEA])
        app = make_kept_app(ScriptedEngine(), store)
        async with app.run_test(size=SIZE) as pilot:
            chat = await ready(pilot)
            screen = await open_chats(pilot)
            rows = screen.query_one(RowList)
            rows.highlighted = titles(screen).index(TREES.title)
            rows.action_choose()
            screen._rows = []  # a search found nothing before the choice was heard
            await until(pilot, lambda: app.screen is chat, "the chat")
            await until(pilot, lambda: chat.session.conversation.id == "trees", "that chat")


async def test_a_hit_is_shown_in_its_context_and_opens_where_it_was_said(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await fill(store, [FRUIT, TREES, SEA])
        app = make_kept_app(ScriptedEngine(), store)
        async with app.run_test(size=SIZE) as pilot:
            chat = await ready(pilot)
            screen = await open_chats(pilot)
            (hit,) = await search(pilot, screen, "plu")
            assert screen.query_one(RowList).text_rows[1] == "  Plums are blue."
            assert hit.place.message_id == "fruit-1" and hit.place.words == "Plums"
            await pilot.press("enter")
            await until(pilot, lambda: app.screen is chat, "the chat")
            await until(pilot, lambda: "Plums are blue." in shown(chat), "the messages")
            assert chat.transcript.cursor is not None
            assert chat.transcript.cursor.message_id == "fruit-1"


async def test_a_hit_on_another_branch_makes_that_branch_current(tmp_path: Path) -> None:
    branched = FRUIT.edit("fruit-1", "Sloes are blue too.", created=1010.0)
    async with open_store(tmp_path) as store:
        await fill(store, [branched])
        app = make_kept_app(ScriptedEngine(), store)
        async with app.run_test(size=SIZE) as pilot:
            chat = await ready(pilot)
            await say(pilot, "/search cherries")
            await until(pilot, lambda: isinstance(app.screen, ChatsScreen), "the list")
            screen = app.screen
            assert isinstance(screen, ChatsScreen)
            await until(pilot, lambda: len(screen.rows) == 1, "the hit")
            await pilot.press("enter")
            await until(pilot, lambda: "Cherries are red." in shown(chat), "the branch")
            assert "Sloes" not in shown(chat)


async def test_a_hit_in_a_reply_points_at_its_token(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        app = make_kept_app(ScriptedEngine("One two three four."), store)
        async with app.run_test(size=SIZE) as pilot:
            chat = await ready(pilot)
            await ask(pilot, "count")
            screen = await open_chats(pilot)
            await search(pilot, screen, "three")
            await pilot.press("enter")
            await until(pilot, lambda: chat.transcript.cursor is not None, "the cursor")
            assert chat.transcript.cursor is not None and chat.transcript.cursor.token == 2


async def test_nothing_found_is_said(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await fill(store, [FRUIT])
        app = make_kept_app(ScriptedEngine(), store)
        async with app.run_test(size=SIZE) as pilot:
            await ready(pilot)
            screen = await open_chats(pilot)
            assert await search(pilot, screen, "xyzzy") == []
            await pilot.press("enter")  # chooses nothing
            assert app.screen is screen
            assert len(await search(pilot, screen, "fruit")) == 2  # title and message


async def acted(pilot: Pilot[Any], screen: ChatsScreen, key: str, said: str) -> None:
    """Press a key in the list and wait until something was said."""
    screen.query_one(RowList).focus()
    await pilot.press(key)
    await until(pilot, lambda: said in words(pilot, "#chats-words"), said)


async def test_a_chat_is_renamed_pinned_and_copied(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await fill(store, [FRUIT, TREES])
        app = make_kept_app(ScriptedEngine(), store)
        async with app.run_test(size=SIZE) as pilot:
            await ready(pilot)
            screen = await open_chats(pilot)
            await pilot.press("tab", "down")
            await acted(pilot, screen, "p", "pinned")
            assert titles(screen) == [FRUIT.title, TREES.title]
            assert screen.query_one(RowList).highlighted == 0  # it stays highlighted
            await pilot.press("r")
            await until(pilot, lambda: isinstance(app.screen, LineScreen), "the line")
            app.screen.query_one(Input).value = "Blue [/fruit]"
            await pilot.press("enter")
            await until(pilot, lambda: app.screen is screen, "the list")
            await until(pilot, lambda: "Blue [/fruit]" in titles(screen), "the title")
            await acted(pilot, screen, "c", "copied")
            assert len(titles(screen)) == 3
            await acted(pilot, screen, "p", "no longer pinned")
    # Pinned or not, what was renamed is what is on disk.
    async with open_store(tmp_path) as store:
        assert "Blue [/fruit]" in {s.title for s in await store.list_conversations()}


async def test_renaming_the_open_chat_lasts(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        app = make_kept_app(ScriptedEngine("Yes.", "No."), store)
        async with app.run_test(size=SIZE) as pilot:
            chat = await ready(pilot)
            await ask(pilot, "Is it?")
            screen = await open_chats(pilot)
            await pilot.press("tab", "r")
            await until(pilot, lambda: isinstance(app.screen, LineScreen), "the line")
            app.screen.query_one(Input).value = "Being"
            await pilot.press("enter")
            await until(pilot, lambda: titles(screen) == ["Being"], "the title")
            await pilot.press("escape")
            await ask(pilot, "Isn't it?")
            assert chat.session.conversation.title == "Being"
        (summary,) = await store.list_conversations()
        assert summary.title == "Being" and summary.messages == 4


async def test_a_deleted_chat_comes_back(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await fill(store, [FRUIT, TREES])
        app = make_kept_app(ScriptedEngine(), store)
        async with app.run_test(size=SIZE) as pilot:
            await ready(pilot)
            screen = await open_chats(pilot)
            await acted(pilot, screen, "d", "u brings it back")
            assert titles(screen) == [FRUIT.title]
            await acted(pilot, screen, "u", "About trees is back")
            assert titles(screen) == [TREES.title, FRUIT.title]
            await acted(pilot, screen, "u", "nothing was deleted")


async def test_deleting_the_open_chat_leaves_an_empty_one(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        engine = ScriptedEngine("One two three", held=True)
        app = make_kept_app(engine, store)
        async with app.run_test(size=SIZE) as pilot:
            chat = await ready(pilot)
            await say(pilot, "count")
            engine.allow(1)
            await until(pilot, lambda: chat.turns.tokens == 1, "a token")
            before = chat.session.conversation.id
            screen = await open_chats(pilot)
            await acted(pilot, screen, "d", "u brings it back")
            assert titles(screen) == []
            assert chat.session.conversation.id != before
            assert not chat.turns.busy
        (deleted,) = await store.list_conversations(deleted=True)
        assert deleted.id == before
        kept = await store.load(before)
        assert [m.text for m in kept.path()] == ["count", "One"]


async def test_a_chat_is_exported_but_never_over_a_file(tmp_path: Path) -> None:
    written: list[str] = []

    async def export(conversation: Conversation, path: Path) -> None:
        written.append(conversation.id)
        path.touch()  # noqa: ASYNC240 (a moment, in a test)

    async with open_store(tmp_path) as store:
        await fill(store, [FRUIT])
        app = make_kept_app(ScriptedEngine(), store, export_chat=export)
        async with app.run_test(size=SIZE) as pilot:
            chat = await ready(pilot)
            screen = await open_chats(pilot)
            for said in ("written to", "is there already"):
                screen.query_one(RowList).focus()
                await pilot.press("x")
                await until(pilot, lambda: isinstance(app.screen, LineScreen), "the line")
                line = app.screen.query_one(Input)
                assert line.value == "which-fruit-is-blue.md"
                line.value = str(tmp_path / line.value)
                await pilot.press("enter")
                await until(pilot, partial(says, screen, said), said)
            assert written == ["fruit"]
            await pilot.press("escape")
            await say(pilot, f"/export {tmp_path}/which-fruit-is-blue.md")
            await until(pilot, lambda: "is there already" in notice(chat), "the refusal")


def says(screen: ChatsScreen, words: str) -> bool:
    from textual.widgets import Static

    return words in str(screen.query_one("#chats-words", Static).visual)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("Gone-9B", "Gone-9B wrote these replies; it is not on this machine. They"),
        ("Other-2M", "it is not on this machine, /model other fetches it"),
    ],
)
async def test_a_chat_of_a_model_that_is_gone_is_read_and_names_it(
    tmp_path: Path, model: str, said: str
) -> None:
    by_other = replace(
        FRUIT.messages["fruit-1"],
        reply=Reply(model=model, model_sha256="dead", seed=1, records=make_records("Plums.")),
    )
    async with open_store(tmp_path) as store:
        await fill(store, [FRUIT.with_message(by_other)])
        engine = ScriptedEngine("Here.")
        app = make_kept_app(engine, store)
        await app.services.session.open("fruit")
        async with app.run_test(size=SIZE) as pilot:
            chat = await ready(pilot)
            assert "Plums are blue." in shown(chat)
            await until(pilot, lambda: said in notice(chat), said)
            # Its tokens are no tokens of this model: they can't be gone on from.
            chat.point_at("fruit-1")
            await pilot.press("c")
            await until(pilot, lambda: f"{model} wrote this reply" in notice(chat), "the refusal")
            await until(pilot, lambda: not chat.turns.busy, "the end")
            # But what is said is read by the model that is here, as text.
            await ask(pilot, "Who are you?")
            turns = engine.requests[-1][0].turns
            assert turns[1].text == "Plums are blue." and turns[1].ids is None


async def test_keys_are_in_the_help(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await fill(store, [FRUIT])
        app = make_kept_app(ScriptedEngine(), store)
        async with app.run_test(size=SIZE) as pilot:
            await ready(pilot)
            await open_chats(pilot)
            await pilot.press("tab", "f1")
            await until(pilot, lambda: isinstance(app.screen, HelpScreen), "help")
            from chatapp.ui.widgets.lines_view import LinesView

            text = "\n".join(app.screen.query_one(LinesView).text_rows)
            for id_ in ("rename", "pin", "duplicate", "export", "delete", "undelete"):
                assert f"(chats.{id_})" in text


def test_marks_survive_what_has_to_be_made_visible() -> None:
    content = marked("a\x1b[31m red b", ((7, 10),))
    assert content.plain == "a␛[31m red b"
    assert [content.plain[span.start : span.end] for span in content.spans] == ["red"]


@pytest.mark.parametrize("size", [(80, 24), (40, 10), (1, 1)])
async def test_it_fits_any_screen(tmp_path: Path, size: tuple[int, int]) -> None:
    async with open_store(tmp_path) as store:
        await fill(store, [FRUIT, TREES])
        app = make_kept_app(ScriptedEngine(), store)
        async with app.run_test(size=size) as pilot:
            await ready(pilot)
            screen = await open_chats(pilot)
            await pilot.press("tab", "down", "up", "end", "home", "pagedown")
            assert app.screen is screen


async def test_a_thousand_chats_open_and_are_searched_at_once(tmp_path: Path) -> None:
    count = 1000
    async with open_store(tmp_path) as store:
        await fill(
            store,
            [talk(f"c{n}", f"question {n}", f"answer {n} of many words") for n in range(count)],
        )
        app: ChatApp = make_kept_app(ScriptedEngine(), store)
        async with app.run_test(size=SIZE) as pilot:
            await ready(pilot)
            await open_chats(pilot)  # once, so that nothing is imported while it is timed
            await pilot.press("escape")
            started = time.process_time()
            screen = await open_chats(pilot)
            opened = time.process_time() - started
            assert len(screen.rows) == count
            started = time.process_time()
            found = await search(pilot, screen, "answer")
            searched = time.process_time() - started
            assert len(found) == 50
            assert len(screen.query_one(RowList).text_rows) == 100
            # Of processor time; aims are 0.3 s and 0.2 s.
            assert opened < 1.5, f"opening took {opened:.2f} s"
            assert searched < 1.0, f"searching took {searched:.2f} s"
            print(f"opened in {opened:.3f} s, searched in {searched:.3f} s")
