"""Looking inside on the screen: pages about the token pointed at, and its journey."""

from __future__ import annotations

from functools import partial
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Input

from chatapp.ui.actions import Line
from chatapp.ui.chat.screen import ChatScreen
from chatapp.ui.widgets.lines_view import LinesView
from chatapp.ui.xray.screen import PagesScreen
from tests.ui.host import ask, make_app, notice, ready, say, until
from tests.ui.seen import SeenEngine

SIZE = (80, 24)


async def opened(pilot: Pilot[Any], engine: SeenEngine, what: str) -> PagesScreen:
    """The pages about the third token of a reply."""
    chat = await ready(pilot)
    await ask(pilot, "count")
    chat.transcript.point(chat.session.conversation.path()[-1].id, 2)
    chat.transcript.focus()
    await pilot.press(what)
    return await pages(pilot)


async def pages(pilot: Pilot[Any]) -> PagesScreen:
    """The pages, once they are there."""
    await until(
        pilot,
        lambda: isinstance(pilot.app.screen, PagesScreen) and pilot.app.screen.query(LinesView),
        "the pages",
    )
    screen = pilot.app.screen
    assert isinstance(screen, PagesScreen)
    return screen


def holds(screen: PagesScreen, words: str) -> bool:
    return words in rows(screen)


def rows(screen: PagesScreen) -> str:
    return " ".join(screen.text_rows)


async def test_every_page_is_reached_by_keys_alone() -> None:
    engine = SeenEngine("One two three four")
    async with make_app(engine).run_test(size=SIZE) as pilot:
        screen = await opened(pilot, engine, "i")
        words = (
            "A model reads no letters",
            "fetches something from the tokens before it",
            "looks for something of its own",
            "Each line is a token",
            "stopped after each layer",
            "Every part of the model adds something",
            "a row of numbers",
            "Order is told by turning",
            "numbers, learned from text",
            "is kept, so that a",
        )
        for number, sentence in enumerate(words):
            await until(pilot, partial(holds, screen, sentence), sentence)
            assert screen.page.name == screen._pages[number].name
            assert all(len(row) <= SIZE[0] - 4 for row in screen.text_rows)
            await pilot.press("tab")
        assert screen.page.name == "tokens"  # and around
        await pilot.press("5")
        assert screen.page.name == "layers"


async def test_token_layer_and_head_are_turned_and_the_cursor_follows() -> None:
    engine = SeenEngine("One two three four")
    async with make_app(engine).run_test(size=SIZE) as pilot:
        await opened(pilot, engine, "i")
        chat = pilot.app.screen_stack[-2]
        assert isinstance(chat, ChatScreen)
        await pilot.press("2")
        await until(pilot, lambda: bool(engine.asked), "attention")
        _, place, layer, head, _every = engine.asked[-1]
        assert (layer, head) == (1, None)
        await pilot.press("left_square_bracket", "full_stop", "full_stop", "left")
        await until(pilot, lambda: engine.asked[-1][1] == int(str(place)) - 1, "the token before")
        assert engine.asked[-1][2:4] == (0, 1)
        await pilot.press("comma", "comma", "comma", "left_square_bracket")
        await until(pilot, lambda: engine.asked[-1][3] is None, "the mean again")
        asked = len(engine.asked)
        await pilot.press("3", "2")  # what is known is not asked again
        await pilot.pause()
        assert len(engine.asked) == asked
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is chat, "the chat")
        assert chat.transcript.pointed is not None and chat.transcript.pointed[1] == 1


async def test_words_are_looked_up() -> None:
    engine = SeenEngine("One two three four")
    async with make_app(engine).run_test(size=SIZE) as pilot:
        screen = await opened(pilot, engine, "i")
        await pilot.press("7")
        await until(pilot, lambda: bool(engine.asked), "the token's own neighbours")
        assert str(engine.asked[-1][1]).startswith("id:")
        for text, wanted in (
            ("tower", ("neighbors", "tower")),
            ("woman - man + uncle", ("analogy", "woman - man + uncle")),
            ("king queen prince", ("map", "king", "queen", "prince")),
        ):
            await pilot.press("enter")
            screen.query_one(Input).value = text
            await pilot.press("enter")
            await until(pilot, lambda: engine.asked[-1] == wanted, text)  # noqa: B023
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, PagesScreen)
        await pilot.press("1", "enter", "a", "b")
        await until(pilot, lambda: "2 characters" in rows(screen), "tokens while typing")


async def test_a_question_is_withdrawn_and_a_fault_said() -> None:
    engine = SeenEngine("One two three four", "One two three four")
    async with make_app(engine).run_test(size=SIZE) as pilot:
        screen = await opened(pilot, engine, "i")
        engine.slow = True
        await pilot.press("2")
        await until(pilot, lambda: bool(engine.asked), "the question")
        await pilot.press("5")
        await until(pilot, lambda: engine.withdrawn == 1, "it is withdrawn")
        await pilot.press("escape")
        await until(pilot, lambda: engine.withdrawn == 2, "the other, too")
        engine.slow, engine.fault = False, "this model tells no attention\x1b"
        screen = await opened(pilot, engine, "i")
        await pilot.press("2")
        await until(pilot, lambda: "tells no attention␛" in rows(screen), "the fault")


async def test_the_journey_goes_on_and_back_and_deeper() -> None:
    engine = SeenEngine("One two three four")
    async with make_app(engine).run_test(size=SIZE) as pilot:
        screen = await opened(pilot, engine, "j")
        await until(pilot, lambda: "reads a text and says what may" in rows(screen), "the text")
        names = [screen.page.name]
        for _ in range(13):
            await pilot.press("right")
            names.append(screen.page.name)
        assert len(set(names)) == 14 and names[-1] == "end"
        await until(pilot, lambda: "An end is a token like any other" in rows(screen), "the end")
        await pilot.press("right")
        assert screen.page.name == "end"
        await pilot.press("left", "5")
        assert screen.page.name == "attention"
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is not screen, "the deep page")
        deep = pilot.app.screen
        assert isinstance(deep, PagesScreen) and deep.page.name == "attention"
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is screen, "the journey")
        await pilot.press("f1")
        await until(pilot, lambda: pilot.app.screen is not screen, "help")


async def test_it_is_refused_in_words_where_there_is_nothing_to_look_at() -> None:
    engine = SeenEngine("One two three four")
    async with make_app(engine).run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await chat.do(Line("journey", ""))
        assert "point at a token of a reply" in notice(chat)
        await chat.do(Line("inside", "nonsense"))
        assert "/inside takes" in notice(chat)
        await chat.do(Line("inside", "attention"))
        screen = await pages(pilot)
        await until(pilot, lambda: "There is no text yet" in rows(screen), "words")


async def test_while_a_reply_is_written_it_waits() -> None:
    engine = SeenEngine("One two three four", held=True)
    async with make_app(engine).run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "count")
        await until(pilot, lambda: chat.turns.busy, "the reply")
        await chat.do(Line("inside", ""))
        assert "a reply is being written" in notice(chat)
        engine.allow_all()
        await until(pilot, lambda: not chat.turns.busy, "the end")
