"""What a model thinks is folded to a line, opened by a key, and its tokens are like any other."""

from __future__ import annotations

from dataclasses import replace

from chatapp.chat.conversation import Message, Reply
from chatapp.chat.record import FinishReason
from chatapp.chat.thinking import Thinking
from chatapp.ui.widgets.prompt import PromptInput
from tests.ui.host import ask, make_app, notice, ready, shown, until
from tests.ui.scripted import FACTS, ScriptedEngine, make_records, split

SIZE = (100, 30)
THOUGHT = "<think> The sky is blue by day. </think>"
TEXT = THOUGHT + "\n\nIt is blue."


async def test_thinking_is_folded_while_it_streams_and_after_it() -> None:
    engine = ScriptedEngine(TEXT, held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        chat.post_message(PromptInput.Submitted("why?"))
        engine.allow(5)
        await until(pilot, lambda: "thinking, 5 tokens; z opens it" in shown(chat), "the line")
        assert "sky" not in shown(chat)
        engine.allow_all()
        await until(pilot, lambda: not chat.turns.busy, "the end")
        assert "It is blue." in shown(chat)
        assert "sky" not in shown(chat)
        assert "thought for" in shown(chat)
        message = chat.session.conversation.path()[-1]
        assert message.text == TEXT
        assert message.reply is not None and message.reply.thinking is not None
        assert message.reply.thinking.tokens == len(split(THOUGHT))
        await pilot.press("tab", "z")
        await until(pilot, lambda: "sky" in shown(chat), "the thinking")
        await pilot.press("z")
        await until(pilot, lambda: "sky" not in shown(chat), "it is folded")


async def test_the_cursor_opens_what_it_goes_into() -> None:
    engine = ScriptedEngine(TEXT)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "why?")
        thought = len(split(THOUGHT))
        await pilot.press("tab", "left")
        assert "sky" not in shown(chat) and "blue" in shown(chat)
        while chat.transcript.cursor is None or chat.transcript.cursor.token != thought - 1:
            await pilot.press("left")
        await until(pilot, lambda: "sky" in shown(chat), "the thinking")
        block, token = chat.transcript.pointed or (None, 0)
        assert block is not None and block.records[token].bytes == split(THOUGHT)[-1]
        await pilot.press("z")
        assert chat.transcript.cursor is not None
        assert chat.transcript.cursor.token == thought
        assert "sky" not in shown(chat)


async def test_a_click_finds_the_token_behind_folded_thinking() -> None:
    engine = ScriptedEngine(TEXT)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "why?")
        block = chat.transcript.current
        assert block is not None
        rows = chat.transcript.text_rows
        row = next(number for number, text in enumerate(rows) if "It is blue." in text)
        start = next(n for n, text in enumerate(rows) if text.startswith("assistant"))
        found = block.token_at(rows[row].index("blue"), row - start)
        assert found is not None
        assert block.records[found].text.strip() == "blue"
        assert found > len(split(THOUGHT))


async def test_a_kept_reply_and_one_from_elsewhere_are_folded() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        begun = "The sky.</think>It is."
        reply = Reply(
            model=FACTS.name,
            seed=1,
            records=make_records(begun),
            finish_reason=FinishReason.STOP,
            thinking=Thinking(begun=True, tokens=3, seconds=4.2),
        )
        first = Message(id="a", parent=None, role="assistant", text=begun, created=0, reply=reply)
        other = Message(id="b", parent="a", role="assistant", text=TEXT, created=0)
        conversation = chat.session.conversation.with_message(first).with_message(other)
        chat.session.conversation = replace(conversation, title="t")
        chat.conversation_changed()
        await pilot.pause()
        assert "thought for 4.2 s, 3 tokens; z opens it" in shown(chat)
        assert "The sky" not in shown(chat)
        assert "It is blue." in shown(chat)


async def test_think_tells_where_the_template_has_no_switch() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await pilot.press(*"/think off", "enter")
        await until(pilot, lambda: "has no switch for it" in notice(chat), "the words")
        assert chat.session.conversation.think is False
        assert chat.session.prompt_for(None).think is False
