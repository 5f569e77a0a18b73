"""The models screen: what is here, what the Hub has, and one file of a repository."""

from __future__ import annotations

from textual.widgets import Input, OptionList, Static

from chatapp.ui.dialogs.picker import PickerScreen
from tests.ui.host import make_app, ready, until
from tests.ui.scripted import ScriptedEngine

SIZE = (100, 30)


def rows(app: object) -> list[str]:
    options = app.screen.query_one(OptionList)  # type: ignore[attr-defined]
    return [str(options.get_option_at_index(n).prompt) for n in range(options.option_count)]


async def test_a_repository_is_searched_and_one_of_its_files_is_taken() -> None:
    engine = ScriptedEngine()
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await pilot.press("ctrl+l")
        await until(pilot, lambda: isinstance(app.screen, PickerScreen), "the list")
        assert "Other-2M (not downloaded)" in " ".join(rows(app))
        app.screen.query_one(Input).value = "qwen"
        await until(pilot, lambda: "someone/qwen-GGUF" in " ".join(rows(app)), "the Hub's answer")
        await pilot.press("enter")
        await until(pilot, lambda: any("Q8_0" in row for row in rows(app)), "its files")
        await pilot.press("down", "enter")
        await until(pilot, lambda: chat.models.ref == "someone/qwen-GGUF:Q8_0", "the choice")
        await until(pilot, lambda: engine.loads == 2, "the model")


async def test_a_hub_that_is_not_there_is_said_in_the_list() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+l")
        await until(pilot, lambda: isinstance(app.screen, PickerScreen), "the list")
        app.screen.query_one(Input).value = "down"
        status = app.screen.query_one("#picker-status", Static)
        await until(pilot, lambda: "cannot be reached" in str(status.render()), "the words")
        await pilot.press("escape")
