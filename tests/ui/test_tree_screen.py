"""The tree of a chat: where it branches, which paths are likely, and a way to each message."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from chatapp.chat.conversation import Conversation, Message, Reply
from chatapp.chat.sampling import SamplingParams
from chatapp.ui.chat.screen import ChatScreen
from chatapp.ui.dialogs.tree import TreeScreen
from chatapp.ui.layout.tree import make_tree
from chatapp.ui.widgets.row_list import RowList
from tests.ui.host import ask, make_app, notice, ready, shown, until
from tests.ui.kept import make_kept_app, open_store, words
from tests.ui.scripted import ScriptedEngine, make_record

SIZE = (100, 30)


def reply(*logprobs: float) -> Reply:
    records = [
        replace(make_record(index, b"x", "x", SamplingParams()), logprob=logprob)
        for index, logprob in enumerate(logprobs)
    ]
    return Reply(model="m", seed=1, records=tuple(records))


def tree_of(*messages: tuple[str, str | None, str, Reply | None]) -> Conversation:
    conversation = Conversation(id="c", created=1.0)
    for number, (id_, parent, text, said) in enumerate(messages):
        conversation = conversation.with_message(
            Message(
                id=id_,
                parent=parent,
                role="assistant" if said else "user",
                text=text,
                created=float(number),
                reply=said,
            )
        )
    return conversation


BRANCHED = tree_of(
    ("q", None, "question", None),
    ("a", "q", "sure", reply(-0.25, -0.75)),
    ("more", "a", "go on", None),
    ("b", "q", "unsure", reply(-2.0, -4.0)),
    ("c", "q", "middling", reply(-1.0)),
)


def test_only_branches_are_indented_and_paths_are_marked() -> None:
    tree = make_tree(BRANCHED)
    assert [(row.message.id, row.guide) for row in tree.rows] == [
        ("q", ""),
        ("a", "├ "),
        ("more", "│ "),
        ("b", "├ "),
        ("c", "└ "),
    ]
    assert [row.message.id for row in tree.rows if row.current] == ["q", "c"]
    assert [row.message.id for row in tree.rows if row.most_likely] == ["q", "a", "more"]
    assert [row.message.id for row in tree.rows if row.least_likely] == ["q", "b"]
    assert tree.paths == 3
    assert tree.most_likely == pytest.approx(-0.5) and tree.least_likely == pytest.approx(-3)
    assert "▲ most likely −0.50" in tree.words and "▼ least likely −3.00" in tree.words
    (line,) = tree.rows[1].lines(60)
    assert line.plain.startswith(" ▲  ├ assistant sure")
    assert line.plain.endswith("2 tok  −0.50") and line.cell_length == 60


def test_one_path_alone_is_neither_the_most_nor_the_least_likely() -> None:
    tree = make_tree(tree_of(("q", None, "question", None), ("a", "q", "yes", reply(-1.0))))
    assert not any(row.most_likely or row.least_likely for row in tree.rows)
    assert tree.words == "1 path · ● current"


def test_deleted_messages_are_not_there_and_deep_trees_are() -> None:
    tree = make_tree(BRANCHED.delete("a", when=9.0))
    assert [row.message.id for row in tree.rows] == ["q", "b", "c"]
    deep = tree_of(*((str(n), str(n - 1) if n else None, "x", None) for n in range(3000)))
    assert len(make_tree(deep).rows) == 3000
    assert make_tree(Conversation(id="empty", created=1.0)).rows == ()


def test_a_wide_tree_and_hostile_text_fit_the_row() -> None:
    messages: list[tuple[str, str | None, str, Reply | None]] = [("0", None, "x", None)]
    for level in range(40):
        messages.append((f"a{level}", str(level), "\x1b[2J[/b]日本語 " * 20, reply(-1.0)))
        messages.append((str(level + 1), str(level), "y", None))
    for row in make_tree(tree_of(*messages)).rows:
        for width in (1, 20, 80):
            (line,) = row.lines(width)
            assert line.cell_length <= width
            assert "\x1b" not in line.plain


async def branched_chat(pilot: Pilot[Any]) -> ChatScreen:
    """Two answers to one question, standing on the second."""
    chat = await ready(pilot)
    await ask(pilot, "Question")
    await pilot.press("ctrl+r")
    session = chat.session
    await until(pilot, lambda: session.conversation.path()[-1].text == "Second.", "the second")
    await until(pilot, lambda: not chat.turns.busy, "its end")
    return chat


async def open_tree(pilot: Pilot[Any]) -> TreeScreen:
    await pilot.press("f4")
    await until(pilot, lambda: isinstance(pilot.app.screen, TreeScreen), "the tree")
    await pilot.pause()
    assert isinstance(pilot.app.screen, TreeScreen)
    return pilot.app.screen


async def test_enter_goes_to_a_message_and_its_path(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        app = make_kept_app(ScriptedEngine("First.", "Second."), store)
        async with app.run_test(size=SIZE) as pilot:
            chat = await branched_chat(pilot)
            tree = await open_tree(pilot)
            rows = tree.query_one(RowList)
            assert [line[4:].split("  ")[0] for line in rows.text_rows] == [
                "you Question",
                "├ assistant First.",
                "└ assistant Second.",
            ]
            assert rows.highlighted == 2
            assert "2 paths" in words(pilot, "#tree-words")
            await pilot.press("left_square_bracket", "enter")
            await until(pilot, lambda: "First." in shown(chat), "the path")
            assert chat.transcript.cursor is not None
            conversation = chat.session.conversation
            assert conversation.path()[-1].text == "First."
        assert (await store.load(conversation.id)).leaf == conversation.leaf


async def test_b_ends_the_path_there_and_the_next_message_is_a_branch() -> None:
    app = make_app(ScriptedEngine("First.", "Second.", "Third."))
    async with app.run_test(size=SIZE) as pilot:
        chat = await branched_chat(pilot)
        await ask(pilot, "And then?")
        await open_tree(pilot)
        await pilot.press("home", "down", "down", "b")
        await until(pilot, lambda: "goes on from it" in notice(chat), "the words")
        assert chat.session.conversation.path()[-1].text == "Second."
        await ask(pilot, "And else?")
        texts = [m.text for m in chat.session.conversation.path()]
        assert texts[:3] == ["Question", "Second.", "And else?"]
        assert len(chat.session.conversation.leaves()) == 3


async def test_a_path_that_ends_at_a_question_waits_for_a_reply() -> None:
    app = make_app(ScriptedEngine("First.", "Second.", "Third."))
    async with app.run_test(size=SIZE) as pilot:
        chat = await branched_chat(pilot)
        await open_tree(pilot)
        await pilot.press("home", "b")
        await until(pilot, lambda: "Ctrl+R writes a reply" in notice(chat), "the words")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "Third." in shown(chat), "the reply")
        assert len(chat.session.conversation.leaves()) == 3


@pytest.mark.parametrize("size", [(80, 24), (30, 8), (1, 1)])
async def test_it_fits_any_screen(size: tuple[int, int]) -> None:
    app = make_app(ScriptedEngine("First.", "Second."))
    async with app.run_test(size=size) as pilot:
        await ready(pilot)
        tree = await open_tree(pilot)
        await pilot.press("down", "enter", "b")  # nothing is there
        assert app.screen is tree
        await pilot.press("escape")
        await branched_chat(pilot)
        await open_tree(pilot)
