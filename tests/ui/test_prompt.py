"""Writing: rows, history, pasting, counting, the user's own editor."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from textual import events
from textual.widgets import Static

from chatapp.chat.errors import ChatappError
from chatapp.ui.app import ChatApp
from chatapp.ui.editor import edit_text, editor_command
from chatapp.ui.widgets.prompt_history import History
from chatapp.ui.widgets.sampling_panel import SamplingPanel
from tests.ui.host import ask, make_app, ready, until
from tests.ui.inspected import OTHER, InspectedEngine
from tests.ui.scripted import ScriptedEngine, token_id

SIZE = (100, 30)


async def test_several_rows_are_one_message() -> None:
    engine = ScriptedEngine("Yes.")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await pilot.press(*"one", "ctrl+j", *"two", "shift+enter", *"three", "alt+enter", *"four")
        assert chat.prompt.text == "one\ntwo\nthree\nfour"
        assert chat.prompt.size.height == 4
        await pilot.press("enter")
        await until(pilot, lambda: chat.session.conversation.messages, "the message")
        assert chat.session.conversation.path()[0].text == "one\ntwo\nthree\nfour"
        await until(pilot, lambda: not chat.turns.busy, "the end")


async def test_enter_waits_for_the_letters_typed_before_it() -> None:
    engine = ScriptedEngine("Yes.")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        for letter in "quick":
            app.post_message(events.Key(letter, letter))
        app.post_message(events.Key("enter", "\r"))
        await until(pilot, lambda: chat.session.conversation.messages, "the message")
        assert chat.session.conversation.path()[0].text == "quick"
        await until(pilot, lambda: not chat.turns.busy, "the end")


async def test_pasted_rows_are_one_message_and_controls_are_made_visible() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        chat.prompt.post_message(events.Paste("a\r\nb\rc\x1b[31m"))
        await until(pilot, lambda: chat.prompt.text, "the paste")
        assert chat.prompt.text == "a\nb\nc␛[31m"
        assert not chat.session.conversation.messages  # nothing was sent


async def test_history_is_walked_at_the_first_and_last_row() -> None:
    engine = ScriptedEngine("1.", "2.")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "first")
        await ask(pilot, "second\nwith two rows")
        await pilot.press(*"draft", "up")
        assert chat.prompt.text == "second\nwith two rows"
        await pilot.press("up")  # from the last row to the first
        assert chat.prompt.text == "second\nwith two rows"
        await pilot.press("up")
        assert chat.prompt.text == "first"
        await pilot.press("down", "down", "down")
        assert chat.prompt.text == "draft"


async def test_tokens_are_counted_while_typing() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        count = chat.query_one("#prompt-count", Static)
        await pilot.press(*"red and blue")
        await until(pilot, lambda: str(count.visual) == "3", "the count")
        chat.prompt.take("")
        await until(pilot, lambda: str(count.visual) == "", "no count")


async def test_typing_in_the_transcript_goes_to_the_prompt() -> None:
    app = make_app(ScriptedEngine("Yes."))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Hello")
        chat.transcript.focus()
        await pilot.press("w", "h", "y")
        assert chat.focused is chat.prompt
        assert chat.prompt.text == "why"


def burst(app: ChatApp, *keys: str) -> None:
    """Press keys so fast that all of them wait before the first is looked at."""
    names = {"/": "slash", " ": "space", ".": "full_stop"}
    for key in keys:
        character = key if len(key) == 1 else None
        app.post_message(events.Key(names.get(key, key), character))


async def test_letters_that_come_in_one_go_all_reach_the_prompt() -> None:
    app = make_app(ScriptedEngine("Yes."))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Hello")
        chat.panel.candidates.focus()
        await until(pilot, lambda: chat.focused is chat.panel.candidates, "the candidates")
        burst(app, *"/set ")  # "t" alone would show the trace
        await until(pilot, lambda: chat.prompt.text == "/set ", "every letter in the prompt")
        assert app.screen is chat


async def test_keys_before_a_letter_are_judged_where_they_were_pressed() -> None:
    engine = InspectedEngine("One two", "three")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        candidates = chat.panel.candidates
        for keys, text in ((("down", "x", "w"), "draft w"), (("up", "y"), "draft wy")):
            chat.prompt.take(chat.prompt.text or "draft ")
            candidates.focus()
            await until(pilot, lambda: chat.focused is candidates, "the candidates")
            burst(app, *keys)
            await until(pilot, lambda text=text: chat.prompt.text == text, "the letter")
        assert chat.session.sampling.banned == (token_id(OTHER),)
        assert candidates.row == 0
        candidates.focus()
        await until(pilot, lambda: chat.focused is candidates, "the candidates")
        burst(app, "down", "enter", "z")  # takes the candidate; it does not send the draft
        await until(pilot, lambda: len(engine.requests) == 2, "the branch")
        await until(pilot, lambda: chat.prompt.text == "draft wyz", "the letter")
        assert engine.requests[-1][1].forced_ids == (token_id(OTHER),)
        await until(pilot, lambda: not chat.turns.busy, "the end of the branch")


async def test_letters_behind_a_typed_number_reach_the_prompt() -> None:
    app = make_app(ScriptedEngine("Yes."))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        panel = chat.query_one(SamplingPanel)
        panel.focus()
        await until(pilot, lambda: chat.focused is panel, "the controls")
        burst(app, *"0.5", "enter", *"Hi")
        await until(pilot, lambda: chat.prompt.text == "Hi", "the letters")
        assert chat.session.sampling.temperature == 0.5


async def test_empty_messages_are_not_sent() -> None:
    engine = ScriptedEngine()
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await pilot.press("enter", "space", "ctrl+j", "enter")
        assert not engine.requests
        assert chat.prompt.text == " \n"


def test_history_keeps_the_draft_and_drops_repeats() -> None:
    history = History(["a"])
    history.add("b")
    history.add("b")
    assert history.older("draft") == "b"
    assert history.older("b") == "a"
    assert history.older("a") is None
    assert history.newer() == "b"
    assert history.newer() == "draft"
    assert history.newer() is None


def test_editor_changes_the_text(tmp_path: Path) -> None:
    script = tmp_path / "editor.py"
    script.write_text("import sys; open(sys.argv[1], 'a').write(' and more\\n')")
    command = editor_command({"EDITOR": f"{sys.executable} {script}", "VISUAL": ""})
    assert edit_text("text", command) == "text and more"


@pytest.mark.parametrize(
    ("environment", "words"),
    [({}, "no editor is set"), ({"EDITOR": "vi 'unclosed"}, "cannot read the editor's command")],
)
def test_no_editor_is_said(environment: dict[str, str], words: str) -> None:
    with pytest.raises(ChatappError, match=words):
        editor_command(environment)


def test_an_editor_that_fails_leaves_the_text(tmp_path: Path) -> None:
    with pytest.raises(ChatappError, match="ended with status 3"):
        edit_text("text", [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(ChatappError, match="cannot run"):
        edit_text("text", [str(tmp_path / "nothing")])
    breaking = "import sys; open(sys.argv[1], 'wb').write(b'\\xff\\xfe')"
    with pytest.raises(ChatappError, match="no UTF-8"):
        edit_text("text", [sys.executable, "-c", breaking])
