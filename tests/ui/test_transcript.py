"""The transcript: following the end, scrolling away, older messages, the cursor, selection."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot
from textual.selection import Selection

from chatapp.chat.conversation import Conversation, Message, Reply
from chatapp.chat.record import FinishReason
from chatapp.ui.chat.screen import ChatScreen
from chatapp.ui.layout.stack import FIRST_SHOWN
from chatapp.ui.token_colours import token_style
from chatapp.ui.widgets.token_cursor import Cursor
from chatapp.ui.widgets.token_panel import TokenSummary
from tests.ui.host import ask, make_app, ready, say, shown, until
from tests.ui.scripted import FACTS, ScriptedEngine, make_records, split

SIZE = (100, 24)
LONG = "\n\n".join(f"Paragraph {number} of a long reply." for number in range(40))


def long_conversation(conversation: Conversation, messages: int) -> Conversation:
    """A conversation of so many messages, every second one a reply with records."""
    parent = None
    for number in range(messages):
        text = f"Message {number}."
        reply = Reply(
            model=FACTS.name,
            model_sha256=FACTS.sha256,
            seed=1,
            records=make_records(text),
            finish_reason=FinishReason.STOP,
        )
        message = Message(
            id=f"m{number}",
            parent=parent,
            role="assistant" if number % 2 else "user",
            text=text,
            created=0,
            reply=reply if number % 2 else None,
        )
        conversation = conversation.with_message(message)
        parent = message.id
    return conversation


async def stream(pilot: Pilot[Any], chat: ChatScreen, engine: ScriptedEngine, upto: int) -> None:
    """Let the reply grow to so many tokens, and wait until they are drawn."""
    engine.allow(upto - chat.turns.tokens)
    await until(pilot, lambda: drawn(chat) >= upto, f"{upto} tokens")


def drawn(chat: ChatScreen) -> int:
    """How many tokens of the last message are on the screen."""
    block = chat.transcript.current if chat.transcript.cursor is None else None
    messages = chat.transcript.messages
    block = block or chat.transcript.block_of(messages[-1].id if messages else None)
    return len(block.records) if block else 0


async def test_the_end_stays_in_view_until_the_person_scrolls_up() -> None:
    engine = ScriptedEngine(LONG, held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        transcript = chat.transcript
        await say(pilot, "go")
        await stream(pilot, chat, engine, 120)
        assert transcript.max_scroll_y > 0
        assert transcript.scroll_offset.y == transcript.max_scroll_y
        transcript.post_message(
            events.MouseScrollUp(transcript, 1, 1, 0, -1, 0, False, False, False)
        )
        await until(pilot, lambda: not transcript.following, "the scroll")
        await until(pilot, lambda: not app.animator.is_being_animated(transcript, "scroll_y"))
        place = transcript.scroll_offset.y
        assert place < transcript.max_scroll_y
        await stream(pilot, chat, engine, 240)
        assert transcript.scroll_offset.y == place  # what grows below does not move it
        transcript.focus()
        await pilot.press("end")
        await stream(pilot, chat, engine, 300)
        assert transcript.scroll_offset.y == transcript.max_scroll_y


async def test_scrolling_down_to_the_end_follows_again_while_it_streams() -> None:
    engine = ScriptedEngine(LONG, held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        transcript = chat.transcript
        await say(pilot, "go")
        await stream(pilot, chat, engine, 200)
        transcript.focus()
        await pilot.press("pageup")
        assert not transcript.following
        await pilot.press("pagedown", "pagedown")
        assert transcript.following
        await stream(pilot, chat, engine, 300)
        assert transcript.scroll_offset.y == transcript.max_scroll_y


async def test_the_end_is_followed_through_changes_of_size() -> None:
    engine = ScriptedEngine(LONG, held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "go")
        await stream(pilot, chat, engine, 120)
        for size in ((100, 40), (100, 12), (60, 24), (1, 1), (200, 60), SIZE):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert chat.transcript.following, size
            assert chat.transcript.scroll_offset.y == chat.transcript.max_scroll_y, size
        await stream(pilot, chat, engine, 200)
        assert chat.transcript.scroll_offset.y == chat.transcript.max_scroll_y


async def test_a_long_conversation_lays_out_only_its_end_and_more_at_the_top() -> None:
    app = make_app(ScriptedEngine())
    session = app.services.session
    session.conversation = long_conversation(session.conversation, 500)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        transcript = chat.transcript
        assert "Message 499." in shown(chat)
        assert f"{500 - FIRST_SHOWN} earlier messages" in shown(chat)
        assert "Message 400." not in shown(chat)
        transcript.focus()
        top = "Message 476."
        assert top in shown(chat)
        for _ in range(20):
            await pilot.press("pageup")
            if "Message 450." in shown(chat):
                break
        assert "Message 450." in shown(chat)
        await pilot.press("home")
        assert "Message 0." in shown(chat)
        assert transcript.scroll_offset.y == 0
        await pilot.press("end")
        assert transcript.scroll_offset.y == transcript.max_scroll_y
        assert "Message 0." not in shown(chat)  # laid out no more


async def test_what_was_in_view_stays_there_when_older_messages_join() -> None:
    app = make_app(ScriptedEngine())
    session = app.services.session
    session.conversation = long_conversation(session.conversation, 200)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        transcript = chat.transcript
        first = f"Message {200 - FIRST_SHOWN}."
        transcript.scroll_to(y=1, animate=False)
        await pilot.pause()
        transcript.scroll_to(y=0, animate=False)
        await until(pilot, lambda: "Message 140." in shown(chat), "older messages")
        in_view = transcript.text_rows[transcript.scroll_offset.y :][:6]
        assert any(first in row for row in in_view)


async def test_the_cursor_walks_tokens_and_the_panel_follows() -> None:
    engine = ScriptedEngine("Red and blue.", "Green is one.")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Name colours")
        await ask(pilot, "Another")
        transcript = chat.transcript
        transcript.focus()
        await pilot.press("left")
        last = chat.session.conversation.path()[-1]
        assert transcript.cursor == Cursor(last.id, 3)
        await pilot.press("left")
        assert transcript.cursor == Cursor(last.id, 2)
        summary = chat.panel.query_one(TokenSummary)
        assert summary.render_line(0).text.startswith("token 3")
        await pilot.press("right", "left", "left", "left")
        assert transcript.cursor == Cursor(last.id, 0)
        await pilot.press("left")  # on to the reply before
        first = chat.session.conversation.path()[1]
        assert transcript.cursor == Cursor(first.id, 3)
        await pilot.press("right")
        assert transcript.cursor == Cursor(last.id, 0)
        await pilot.press("up")  # on to the user's message
        assert transcript.cursor == Cursor(chat.session.conversation.path()[2].id, None)
        await pilot.press("escape")
        assert transcript.cursor is None
        assert chat.focused is chat.prompt


async def test_rows_and_the_least_certain_token() -> None:
    engine = ScriptedEngine("one two three four\nfive six seven\neight nine")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        transcript = chat.transcript
        transcript.focus()
        await pilot.press("left", "up")
        assert transcript.cursor is not None and transcript.cursor.token is not None
        records = transcript.current.records if transcript.current else []
        assert records[transcript.cursor.token].token == " six"
        await pilot.press("up")
        assert records[transcript.cursor.token].token == " two"
        walked: list[float] = []
        for _ in range(4):
            await pilot.press("n")
            assert transcript.cursor.token is not None
            walked.append(records[transcript.cursor.token].logprob)
        assert walked == sorted(walked)


async def test_a_click_points_at_a_token_in_both_views() -> None:
    engine = ScriptedEngine("Some **bold** words here.")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "go")
        transcript = chat.transcript
        rows = transcript.text_rows
        row = next(y for y, text in enumerate(rows) if "Some bold" in text)
        column = rows[row].index("words") + transcript.styles.padding.left
        await pilot.click(transcript, offset=(column + 1, row - transcript.scroll_offset.y))
        records = chat.session.conversation.path()[-1].reply
        assert records is not None and transcript.cursor is not None
        assert transcript.cursor.token is not None
        assert records.records[transcript.cursor.token].token == " words"
        rows = transcript.text_rows  # now as tokens
        row = next(y for y, text in enumerate(rows) if "**bold**" in text)
        column = rows[row].index("bold") + transcript.styles.padding.left
        await pilot.click(transcript, offset=(column + 1, row - transcript.scroll_offset.y))
        assert records.records[transcript.cursor.token].token == "bold"


async def test_while_streaming_the_panel_follows_the_newest_token_until_moved() -> None:
    engine = ScriptedEngine("one two three four five six", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "count")
        await stream(pilot, chat, engine, 2)
        summary = chat.panel.query_one(TokenSummary)
        await until(pilot, lambda: summary.render_line(0).text.startswith("token 2"), "token 2")
        chat.transcript.focus()
        await pilot.press("left", "left")
        assert summary.render_line(0).text.startswith("token 1")
        await stream(pilot, chat, engine, 4)
        assert summary.render_line(0).text.startswith("token 1")
        await pilot.press("end")
        assert summary.render_line(0).text.startswith("token 4")
        engine.allow_all()
        await until(pilot, lambda: not chat.turns.busy, "the end")


@pytest.mark.parametrize("view", ["markdown", "tokens"])
async def test_rows_drawn_while_streaming_are_those_of_a_whole_drawing(view: str) -> None:
    text = (
        "A **bold** start that goes on\nfor some rows, and then\n---\n\n# Heading\n\n"
        "- one\n- two\n\n  - nested with `code` and more words than a row holds\n\n"
        "```py\nfor x in y:\n    pass\n```\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n\n" + "Some more words to scroll. " * 14
    )
    engine = ScriptedEngine(text, held=True)
    app = make_app(engine)
    async with app.run_test(size=(60, 16)) as pilot:
        chat = await ready(pilot)
        transcript = chat.transcript
        transcript.view = "tokens" if view == "tokens" else "markdown"
        await say(pilot, "go")
        for count in range(1, len(split(text)) + 1, 3):
            await stream(pilot, chat, engine, count)
            whole = transcript.size.region
            partly = transcript.render_lines(whole)
            transcript.refresh()
            await pilot.pause()
            assert transcript.render_lines(whole) == partly, f"after {count} tokens"


async def test_tokens_view_is_toggled_with_its_legend() -> None:
    engine = ScriptedEngine("Some **bold** words.")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "go")
        assert "Some bold words." in shown(chat)
        legend = chat.query_one("#legend")
        assert not legend.display
        await pilot.press("ctrl+t")
        assert "**bold**" in shown(chat)
        assert legend.display
        await pilot.press("ctrl+t")
        assert "**bold**" not in shown(chat)
        assert not legend.display


async def test_selected_text_is_copied_without_our_signs() -> None:
    words = " ".join(f"word{number}" for number in range(40))
    engine = ScriptedEngine(f"- {words}\n")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "go")
        rows = chat.transcript.text_rows
        first = next(y for y, text in enumerate(rows) if "word0" in text)
        last = next(y for y, text in enumerate(rows) if "word39" in text)
        assert last > first
        from textual.geometry import Offset

        selection = Selection(Offset(0, first), Offset(len(rows[last]), last))
        selected = chat.transcript.get_selection(selection)
        assert selected is not None
        assert selected[0] == words  # no bullet, no indent, no break where the row was wrapped


async def test_only_the_tokens_that_came_are_drawn_however_they_are_split() -> None:
    flag = "👩‍👩‍👧 für 日本".encode()
    engine = ScriptedEngine([flag[n : n + 1] for n in range(len(flag))])
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "go")
        assert "👩‍👩‍👧 für 日本" in shown(chat)
        await pilot.press("ctrl+t")
        assert "\\xf0\\x9f" in shown(chat)


def test_script_is_split_as_the_tests_assume() -> None:
    assert split("Red and blue.") == [b"Red", b" and", b" blue", b"."]


async def test_n_begins_with_the_least_certain_token_after_a_movement_by_hand() -> None:
    app = make_app(ScriptedEngine("One two three four five"))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        block = chat.transcript.current
        assert block is not None
        probable = [0.9, 0.2, 0.5, 0.1, 0.8]  # positions 3, 1, 2, 4, 0 from the least certain on
        block.records = [
            replace(record, logprob=math.log(prob))
            for record, prob in zip(block.records[:5], probable, strict=True)
        ]

        def token() -> int | None:
            assert chat.transcript.cursor is not None
            return chat.transcript.cursor.token

        chat.transcript.focus()
        await pilot.press("n")
        assert token() == 3
        await pilot.press("n")
        assert token() == 1
        await pilot.press("right", "n")  # not the next one below where the hand went
        assert token() == 3


async def test_tokens_are_coloured_by_the_scale_of_the_theme_that_is_on() -> None:
    app = make_app(ScriptedEngine("One two three four five"))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        await pilot.press("ctrl+t")
        for theme in ("textual-dark", "textual-light"):
            app.theme = theme
            await pilot.pause()
            dark = app.current_theme.dark
            pointed = chat.transcript.pointed
            assert pointed is not None
            pointed[0].records[0] = unsure = replace(pointed[0].records[0], logprob=math.log(0.05))
            wanted = token_style(unsure, chat.transcript.scale, dark=dark)
            grounds = {
                segment.style.bgcolor.get_truecolor()
                for row in range(chat.transcript.size.height)
                for segment in chat.transcript.render_line(row)
                if segment.style is not None and segment.style.bgcolor is not None
            }
            assert wanted.background is not None
            assert wanted.background.rich_color.get_truecolor() in grounds
