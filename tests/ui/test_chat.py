"""A conversation on the screen: sent, streamed, stopped, turned while it streams, failed."""

from __future__ import annotations

import pytest
from textual.widgets import Static

from chatapp.chat.errors import EngineError
from chatapp.chat.record import FinishReason
from chatapp.ui.services import ModelState
from chatapp.ui.widgets.sampling_panel import SamplingPanel
from tests.ui.host import MemoryStore, ask, make_app, notice, ready, say, shown, until
from tests.ui.inspected import InspectedEngine
from tests.ui.scripted import FACTS, ScriptedEngine

SIZE = (100, 30)


async def test_message_is_sent_and_the_reply_streams_to_its_end() -> None:
    engine = ScriptedEngine("Red and blue.", held=True)
    store = MemoryStore()
    app = make_app(engine, store=store)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "Name colours")
        await until(pilot, lambda: "Name colours" in shown(chat), "the message")
        engine.allow(2)
        await until(pilot, lambda: "Red and" in shown(chat), "two tokens")
        assert "blue" not in shown(chat)
        assert chat.turns.busy
        engine.allow(3)
        await until(pilot, lambda: not chat.turns.busy, "the end")
        assert "Red and blue." in shown(chat)
        assert chat.prompt.text == ""
        kept = [m.text for m in store.messages[chat.session.conversation.id].values()]
        assert kept == ["Name colours", "Red and blue."]
        assert chat.header.status.context_used > 0


async def test_escape_stops_the_reply_and_keeps_what_came() -> None:
    engine = ScriptedEngine("One two three four", held=True)
    store = MemoryStore()
    app = make_app(engine, store=store)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "count")
        engine.allow(2)
        await until(pilot, lambda: "One two" in shown(chat), "two tokens")
        await pilot.press("escape")
        await until(pilot, lambda: not chat.turns.busy, "the stop")
        last = chat.session.conversation.path()[-1]
        assert last.text == "One two"
        assert last.reply is not None and last.reply.finish_reason is FinishReason.CANCELLED
        assert store.messages[chat.session.conversation.id][last.id].text == "One two"
        assert "stopped" in shown(chat)


async def test_temperature_changed_in_mid_reply_reaches_the_very_next_token() -> None:
    engine = ScriptedEngine("One two three four", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "count")
        engine.allow(2)
        await until(pilot, lambda: chat.turns.tokens == 2, "two tokens")
        await pilot.press("ctrl+down", "ctrl+down")
        assert chat.session.sampling.temperature == 0.6
        assert chat.header.status.temperature == 0.6
        assert chat.query_one("#sampling", SamplingPanel).sampling.temperature == 0.6
        engine.allow(3)
        await until(pilot, lambda: not chat.turns.busy, "the end")
        assert [s.temperature for s in engine.drawn_with] == [0.7, 0.7, 0.6, 0.6]
        assert "T 0.60 from token 3" in shown(chat)


async def test_temperature_turns_while_typing_and_in_a_dialog() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await pilot.press("h", "ctrl+up", "i")
        assert chat.prompt.text == "hi"
        assert chat.session.sampling.temperature == 0.75
        await pilot.press("f2")
        await pilot.press("ctrl+up")
        assert chat.session.sampling.temperature == 0.8


async def test_panel_turned_while_streaming_reaches_the_engine() -> None:
    engine = ScriptedEngine("One two three", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "count")
        engine.allow(1)
        await until(pilot, lambda: chat.turns.tokens == 1, "a token")
        chat.query_one("#sampling", SamplingPanel).focus()
        await pilot.press("right")
        engine.allow(3)
        await until(pilot, lambda: not chat.turns.busy, "the end")
        assert engine.drawn_with[-1].temperature == 0.75


async def test_message_sent_while_the_model_loads_waits_and_is_then_answered() -> None:
    engine = ScriptedEngine("Here I am.", loads=False)
    store = MemoryStore()
    app = make_app(engine, store=store)
    async with app.run_test(size=SIZE) as pilot:
        chat = app.chat
        await until(pilot, lambda: chat.models.progress is not None, "the load to begin")
        await until(pilot, lambda: chat.header.status.progress is not None, "progress")
        assert chat.header.status.state is ModelState.LOADING
        await say(pilot, "Are you there?")
        await until(pilot, lambda: "Are you there?" in shown(chat), "the message")
        # It is on disk before there is a model.
        assert [m.text for m in store.messages[chat.session.conversation.id].values()] == [
            "Are you there?"
        ]
        assert engine.requests == []
        engine.may_load.set()
        await until(pilot, lambda: "Here I am." in shown(chat), "the reply")


async def test_escape_gives_up_waiting_and_the_message_can_be_answered_later() -> None:
    engine = ScriptedEngine("Late.", loads=False)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = app.chat
        await until(pilot, lambda: chat.models.progress is not None, "the load to begin")
        await say(pilot, "Hello")
        await until(pilot, lambda: "Hello" in shown(chat), "the message")
        await pilot.press("escape")
        await until(pilot, lambda: not chat.turns.busy, "the stop")
        engine.may_load.set()
        await ready(pilot)
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "Late." in shown(chat), "the reply")
        assert [m.role for m in chat.session.conversation.path()] == ["user", "assistant"]


async def test_a_model_that_cannot_be_loaded_is_said_and_a_message_tells_so() -> None:
    engine = ScriptedEngine()
    engine.load_error = EngineError("model.gguf is cut off; fetch it again")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = app.chat
        await until(pilot, lambda: "cut off" in notice(chat), "the failure")
        assert chat.header.status.state is ModelState.NONE
        await say(pilot, "Hello")
        await until(pilot, lambda: not chat.turns.busy, "the failure")
        assert "cut off" in notice(chat)
        engine.load_error = None
        await pilot.press("f5")
        await ready(pilot)


async def test_engine_that_dies_is_said_and_started_again_on_request() -> None:
    engine = ScriptedEngine("One two three", "Back again.", held=True)
    told: list[object] = []
    app = make_app(engine, watch_engine=told.append)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "count")
        engine.allow(1)
        await until(pilot, lambda: "One" in shown(chat), "a token")
        engine.dead = True
        engine.allow(1)
        await until(pilot, lambda: not chat.turns.busy, "the end")
        tell_death = told[0]
        assert callable(tell_death)
        tell_death("the engine process ended: it was killed")
        assert "F5 starts it again" in notice(chat)
        assert chat.header.status.state is ModelState.DEAD
        assert chat.session.conversation.path()[-1].text == "One"  # what came is kept
        engine.allow_all()
        await pilot.press("f5")
        await until(pilot, lambda: chat.models.state is ModelState.READY, "the restart")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "Back again." in shown(chat), "the reply")


async def test_a_message_to_a_dead_engine_starts_it_again() -> None:
    engine = ScriptedEngine("Back.")
    told: list[object] = []
    app = make_app(engine, watch_engine=told.append)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        engine.dead = True
        tell_death = told[0]
        assert callable(tell_death)
        tell_death("the engine process ended")
        await ask(pilot, "Hello?")
        assert engine.loads == 2
        assert "Back." in shown(chat)


async def test_what_cannot_be_saved_is_said_and_the_chat_goes_on() -> None:
    engine = ScriptedEngine("Still here.")
    store = MemoryStore()
    store.failure = "the disk is full"
    app = make_app(engine, store=store)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Hello")
        assert "the disk is full" in notice(chat)
        assert "Still here." in shown(chat)


async def test_a_full_context_is_said_in_words() -> None:
    engine = ScriptedEngine("As far as it went")
    engine.reason = FinishReason.CONTEXT
    engine.end_message = "no room is left in the context (2048 tokens); begin a new chat"
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Go on")
        assert "no room is left" in notice(chat)
        assert "no room is left in the context" in shown(chat)


async def test_regenerate_and_siblings() -> None:
    engine = ScriptedEngine("First answer.", "Second answer.")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Why?")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "Second answer." in shown(chat), "another reply")
        await until(pilot, lambda: not chat.turns.busy, "its end")
        assert "First answer." not in shown(chat)
        assert "2/2" in shown(chat)
        chat.transcript.focus()
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: "First answer." in shown(chat), "the first reply")
        assert "1/2" in shown(chat)
        await pilot.press("left_square_bracket")
        assert "no other one" in notice(chat)
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: "Second answer." in shown(chat), "the second reply")


async def test_continue_goes_on_from_the_exact_ids() -> None:
    engine = ScriptedEngine("One two three", " four five", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "count")
        engine.allow(2)
        await until(pilot, lambda: chat.turns.tokens == 2, "two tokens")
        await pilot.press("escape")
        await until(pilot, lambda: not chat.turns.busy, "the stop")
        ids = chat.session.conversation.path()[-1].reply
        engine.allow_all()
        chat.transcript.focus()
        await pilot.press("c")
        await until(pilot, lambda: "One two four five" in shown(chat), "the rest")
        prompt = engine.requests[-1][0]
        assert prompt.continue_reply
        assert ids is not None and prompt.turns[-1].ids == ids.ids


async def test_another_candidate_is_taken_from_the_panel() -> None:
    engine = ScriptedEngine("One two three", " and on")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        chat.transcript.focus()
        await pilot.press("left", "left", "b")
        assert chat.focused is chat.panel.candidates
        wanted = chat.session.conversation.path()[-1].reply
        assert wanted is not None
        await pilot.press("down", "enter")
        await until(pilot, lambda: not chat.turns.busy and len(engine.requests) == 2, "a branch")
        prompt, options = engine.requests[-1]
        assert options.forced_ids == (wanted.records[1].candidates[1].id,)
        assert prompt.turns[-1].ids == wanted.ids[:1]
        assert "One forced and on" in shown(chat)
        assert "2/2" in shown(chat)


async def test_an_edited_message_is_a_sibling_and_is_answered() -> None:
    engine = ScriptedEngine("Answer one.", "Answer two.")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Question")
        chat.transcript.focus()
        await pilot.press("up", "up")
        assert chat.transcript.cursor is not None
        assert chat.transcript.cursor.token is None  # on the user's own message
        await pilot.press("e")
        await pilot.press(*" two", "ctrl+s")
        await until(pilot, lambda: "Answer two." in shown(chat), "the new answer")
        assert "Question two" in shown(chat)
        assert len(chat.session.conversation.children(None)) == 2


async def test_a_deleted_message_comes_back() -> None:
    app = make_app(ScriptedEngine("Answer."), store=MemoryStore())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Question")
        chat.transcript.focus()
        await pilot.press("d")
        await until(pilot, lambda: "Answer." not in shown(chat), "the deletion")
        await pilot.press("u")
        await until(pilot, lambda: "Answer." in shown(chat), "the undo")


async def test_a_new_chat_stops_the_reply_and_saves_it_first() -> None:
    engine = ScriptedEngine("One two three", held=True)
    store = MemoryStore()
    app = make_app(engine, store=store)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "count")
        engine.allow(1)
        await until(pilot, lambda: chat.turns.tokens == 1, "a token")
        before = chat.session.conversation.id
        await pilot.press("ctrl+n")
        await until(pilot, lambda: chat.session.conversation.id != before, "a new chat")
        assert shown(chat).strip() == ""
        assert [m.text for m in store.messages[before].values()] == ["count", "One"]


@pytest.mark.parametrize("key", ["ctrl+q", "ctrl+c"])
async def test_leaving_in_mid_reply_saves_what_came(key: str) -> None:
    engine = ScriptedEngine("One two three", held=True)
    store = MemoryStore()
    app = make_app(engine, store=store)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "count")
        engine.allow(1)
        await until(pilot, lambda: chat.turns.tokens == 1, "a token")
        conversation = chat.session.conversation.id
        if key == "ctrl+c":
            await pilot.press("ctrl+c")
            assert "once more" in notice(chat)
            assert app.is_running
        await pilot.press(key)
        await until(pilot, lambda: not app.is_running, "the end of the program")
    assert [m.text for m in store.messages[conversation].values()] == ["count", "One"]
    assert app.return_code == 0


async def test_the_model_is_named_in_the_header() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        row = chat.header.render().plain
        for part in (FACTS.name, "Q4_1", "cpu", "ctx 0/2048 (0 %)", "T 0.70"):
            assert part in row


async def test_a_rename_in_mid_reply_loses_nothing_of_it() -> None:
    engine = ScriptedEngine("One two three four", held=True)
    store = MemoryStore()
    app = make_app(engine, store=store)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "count")
        engine.allow(2)
        await until(pilot, lambda: chat.turns.tokens == 2, "two tokens")
        await say(pilot, "/rename Counting")
        await until(pilot, lambda: chat.session.conversation.title == "Counting", "the title")
        assert chat.turns.busy  # a title is no reason to stop
        engine.allow(3)
        await until(pilot, lambda: not chat.turns.busy, "the end")
        last = chat.session.conversation.path()[-1]
        assert last.text == "One two three four"
        assert last.reply is not None and last.reply.finish_reason is FinishReason.STOP
        assert chat.session.conversation.title == "Counting"
        assert store.messages[chat.session.conversation.id][last.id].text == last.text


async def test_a_message_that_cannot_fit_is_refused_and_stays_in_the_prompt() -> None:
    engine = ScriptedEngine("Yes.")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        facts = chat.session.facts
        assert facts is not None
        text = "word " * (facts.context_length + 1)
        chat.prompt.take(text)
        await pilot.press("enter")
        await until(pilot, lambda: "the context has room for" in notice(chat), "the refusal")
        assert chat.prompt.text == text
        assert not chat.session.conversation.messages and not engine.requests


async def test_a_draft_stays_with_its_chat() -> None:
    app = make_app(ScriptedEngine("Yes."), store=MemoryStore())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "First")
        first = chat.session.conversation.id
        await pilot.press(*"half a")
        await pilot.press("ctrl+n")
        await until(pilot, lambda: chat.session.conversation.id != first, "a new chat")
        assert chat.prompt.text == ""
        await chat.conversations.open(first)
        assert chat.prompt.text == "half a"


async def test_esc_and_pause_are_acknowledged_at_once() -> None:
    engine = InspectedEngine("One two three", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "count")
        await pilot.press("f6")
        assert notice(chat).startswith("holding before the next token")
        await pilot.press("escape")
        assert "stopping" in notice(chat) or not chat.turns.busy
        engine.allow(1)
        await until(pilot, lambda: not chat.turns.busy, "the stop")
        assert "stopping" not in notice(chat)


async def test_a_short_screen_gives_its_rows_to_the_candidates() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=(80, 24)) as pilot:
        chat = await ready(pilot)
        panel, title = chat.query_one("#sampling"), chat.query_one("#sampling-title", Static)
        assert panel.size.height == 1
        assert "k 50 · p 0.95 · m 0.05" in str(title.content)
        panel.focus()
        await until(pilot, lambda: panel.size.height > 3, "all of them")
        await pilot.press("down", "right")  # top-k, turned
        chat.prompt.focus()
        await until(pilot, lambda: panel.size.height == 1, "one again")
        assert "k 51" in str(title.content)
        await pilot.resize_terminal(80, 40)
        await until(pilot, lambda: panel.size.height > 3, "room for all")
        assert "p 0.95" not in str(title.content)
