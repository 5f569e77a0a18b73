"""The application around the chat: the user's own keys, themes, colours, first notices."""

from __future__ import annotations

import io
from types import MappingProxyType

import pytest
from textual.filter import Monochrome

from chatapp.ui.actions import key_owners
from chatapp.ui.driver import LossyFile
from tests.ui.host import ask, make_app, notice, ready, until
from tests.ui.scripted import ScriptedEngine

SIZE = (100, 30)


async def test_keys_can_be_given_to_other_actions() -> None:
    keys = MappingProxyType({"app.warmer": "f11", "prompt.send": "f13", "message.copy": "Y"})
    engine = ScriptedEngine("Yes.")
    app = make_app(engine, keys=keys)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await pilot.press("f11", "ctrl+up")
        assert chat.session.sampling.temperature == 0.75  # only one of the two is bound
        await pilot.press(*"hello", "enter")
        assert chat.prompt.text == "hello\n"
        await pilot.press("f13")
        await until(pilot, lambda: chat.session.conversation.messages, "the message")
        await until(pilot, lambda: not chat.turns.busy, "the end")


async def test_a_key_for_no_action_is_said() -> None:
    app = make_app(ScriptedEngine(), keys=MappingProxyType({"chat.fly": "f9"}))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        assert "no action is called chat.fly" in notice(chat)


async def test_themes_are_taken_and_a_wrong_one_is_said() -> None:
    app = make_app(ScriptedEngine(), theme="gruvbox")
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        assert app.theme == "gruvbox"
    app = make_app(ScriptedEngine(), theme="nothing")
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        assert "there is no theme 'nothing'" in notice(chat)


async def test_without_colours_everything_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = make_app(ScriptedEngine("Plain text."))
    assert any(isinstance(item, Monochrome) for item in app._filters)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "hi")
        await pilot.press("ctrl+t")
        assert "Plain text." in "\n".join(chat.transcript.text_rows)


async def test_notices_are_said_at_the_start() -> None:
    app = make_app(ScriptedEngine(), notices=("templates/broken.toml: not valid TOML",))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        assert "broken.toml" in notice(chat)


def test_every_key_of_the_interface_has_an_id_of_its_own() -> None:
    bindings = [one for owner in key_owners() for one in vars(owner).get("BINDINGS", ())]
    assert len(bindings) > 100
    ids = [one.id for one in bindings]
    assert all(ids) and len(set(ids)) == len(ids)


async def test_a_fault_of_the_program_ends_it_instead_of_vanishing() -> None:
    app = make_app(ScriptedEngine([b"\xff"]))
    engine = app.services.session.engine
    assert isinstance(engine, ScriptedEngine)
    with pytest.raises(ZeroDivisionError):
        async with app.run_test(size=SIZE) as pilot:
            chat = await ready(pilot)

            def broken(*_: object) -> None:
                raise ZeroDivisionError

            chat.tokens_came = broken  # type: ignore[method-assign, assignment]
            await ask(pilot, "hi")
            await until(pilot, lambda: not app.is_running, "the end")


class GoneFile(io.StringIO):
    """A terminal whose window was closed."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    def flush(self) -> None:
        raise OSError(5, "Input/output error")


def test_drawing_to_a_closed_terminal_is_dropped() -> None:
    file = LossyFile(GoneFile())
    for _ in range(100):
        assert file.write("row") == 3
        file.flush()
    kept = io.StringIO()
    file = LossyFile(kept)
    file.write("row")
    file.flush()
    assert kept.getvalue() == "row"
