"""Looking inside on the screen: pages about the token pointed at, and its journey."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Input, Static

from chatapp.explain.views import shares_without_first
from chatapp.ui.actions import Line
from chatapp.ui.chat.screen import ChatScreen
from chatapp.ui.token_colours import step_of, step_style
from chatapp.ui.widgets.lines_view import LinesView
from chatapp.ui.widgets.token_panel import TABS, TokenPanel
from chatapp.ui.xray.screen import PagesScreen
from tests.explain import values
from tests.ui.host import ask, make_app, notice, ready, say, shown, until
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
        assert engine.asked[-1][2:] == ("input", "cosine")
        await pilot.press("right_square_bracket", "comma")
        await until(pilot, lambda: engine.asked[-1][2:] == ("output", "dot"), "the other ones")
        await pilot.press("right_square_bracket", "comma")
        assert str(engine.asked[-1][1]).startswith("id:")
        for text, wanted in (
            ("tower", ("neighbors", "tower", "input", "cosine")),
            ("woman - man + uncle", ("analogy", "woman - man + uncle")),
            ("king queen prince", ("map", "king", "queen", "prince")),
        ):
            await pilot.press("enter")
            screen.query_one(Input).value = text
            await pilot.press("enter")
            await until(pilot, lambda: engine.asked[-1] == wanted, text)  # noqa: B023
        await until(pilot, lambda: "◉ word" in rows(screen), "the map")
        first = rows(screen).split("◉ word")[1]
        await pilot.press("right")
        assert rows(screen).split("◉ word")[1] != first
        assert engine.asked[-1] == ("map", "king", "queen", "prince")  # drawn anew, not asked
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


# The panel


async def pointed(pilot: Pilot[Any], index: int = 2) -> tuple[ChatScreen, str]:
    """The chat with the cursor on a token of a reply, and that reply's id."""
    chat = await ready(pilot)
    await ask(pilot, "count to four")
    reply = chat.session.conversation.path()[-1].id
    chat.transcript.focus()
    chat.transcript.point(reply, index)
    return chat, reply


def panel_holds(chat: ChatScreen, words: str) -> bool:
    return words in " ".join(chat.panel.page.text_rows)


async def test_the_panels_pages_follow_the_cursor_and_attention_colours_the_transcript() -> None:
    engine = SeenEngine("One two three four")
    async with make_app(engine).run_test(size=SIZE) as pilot:
        chat, reply = await pointed(pilot)
        await pilot.press("t")
        await until(pilot, lambda: panel_holds(chat, "filters cut it away"), "the trace")
        await pilot.press("t")
        await until(pilot, lambda: bool(chat.transcript.looks), "the colours")
        assert panel_holds(chat, "fetches something from the tokens before it")
        kind, place, layer, head, _ = engine.asked[-1]
        assert (kind, layer, head) == ("attention", 1, None) and isinstance(place, int)
        shares = shares_without_first(values.attention(place + 1).rows[0])
        looks = chat.transcript.looks
        for index in range(3):
            wanted = step_style(step_of(shares[place - 2 + index], "attention"))
            assert looks[reply].style(index) == wanted
        assert looks[reply].style(3) == looks[reply].style(99)  # it comes behind, and is plain
        (question,) = (key for key in looks if key != reply)
        # The very first token of the prompt is none that is looked at here.
        assert b"".join(looks[question].tokens) == b" to four"
        assert looks[question].styles and " to four" in shown(chat)
        legend = str(chat.query_one("#legend", Static).content)
        assert "first token left out" in legend and "layer 3 · , . mean of heads" in legend
        await pilot.press("f9")
        await until(pilot, lambda: chat.what_if.result is not None, "settings that are tried")
        assert "attention" not in str(chat.query_one("#legend", Static).content)
        await pilot.press("f9")
        await until(pilot, lambda: chat.transcript.looks == looks, "the colours again")
        await pilot.press("less_than_sign", "full_stop", "right")
        await until(pilot, lambda: engine.asked[-1][1:4] == (place + 1, 0, 0), "another head")
        await pilot.press("i")
        screen = await pages(pilot)
        assert screen.page.name == "attention"  # the page that shows more, of the same head
        await until(pilot, lambda: len(engine.asked) and engine.asked[-1][2:4] == (0, 0), "it")
        await pilot.press("escape", "t")
        await until(pilot, lambda: panel_holds(chat, "stopped after each layer"), "the layers")
        assert not chat.transcript.looks
        await pilot.press("t")
        await until(pilot, lambda: panel_holds(chat, "A model reads no letters"), "the token")
        await pilot.press("t")
        assert chat.panel.tab == TABS[0] and not chat.panel.page.display
        await chat.do(Line("panel", "layers"))
        assert chat.panel.tab == "layers"
        await chat.do(Line("layer", "1"))
        await chat.do(Line("head", "mean"))
        await until(pilot, lambda: engine.asked[-1][2:4] == (1, None), "the mean of a layer")
        for name, wrong in (("layer", "2"), ("head", "first"), ("layer", "mean")):
            await chat.do(Line(name, wrong))
            assert f"/{name} takes 0 to 1, + or -" in notice(chat)
        await chat.do(Line("panel", "nonsense"))
        assert "/panel takes candidates" in notice(chat)


async def test_a_cursor_that_moves_withdraws_a_question_but_loading_goes_on() -> None:
    engine = SeenEngine("One two three four")
    async with make_app(engine).run_test(size=SIZE) as pilot:
        chat, _ = await pointed(pilot)
        engine.slow = True
        await chat.do(Line("panel", "layers"))
        await until(pilot, lambda: bool(engine.asked), "the question")
        await pilot.press("right")
        await until(pilot, lambda: engine.withdrawn == 1, "it is withdrawn")
        await chat.do(Line("panel", "candidates"))
        await until(pilot, lambda: engine.withdrawn == len(engine.asked), "the next one, too")
        withdrawn, engine.slow, engine.loading = engine.withdrawn, False, asyncio.Event()
        await chat.do(Line("panel", "attention"))
        await until(pilot, lambda: panel_holds(chat, "loading weights 1/2 tensors"), "the load")
        asked = len(engine.asked)
        await pilot.press("left", "left")
        engine.loading.set()
        await until(pilot, lambda: len(engine.asked) > asked, "the newest token")
        assert engine.withdrawn == withdrawn
        assert int(str(engine.asked[-1][1])) == int(str(engine.asked[asked - 1][1])) - 2
        engine.fault = "it has no attention"
        await pilot.press("left")
        await until(pilot, lambda: panel_holds(chat, "it has no attention"), "the fault")


async def test_the_panel_waits_while_a_reply_is_written() -> None:
    engine = SeenEngine("One two three four", held=True)
    async with make_app(engine).run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await chat.do(Line("panel", "attention"))
        await until(pilot, lambda: panel_holds(chat, "Point at a token first"), "words")
        await say(pilot, "count")
        await until(pilot, lambda: panel_holds(chat, "A reply is being written"), "words")
        assert not engine.asked
        engine.allow_all()
        await until(pilot, lambda: panel_holds(chat, "fetches something"), "the page")
        chat.transcript.point(chat.session.conversation.path()[0].id, None)
        await until(pilot, lambda: panel_holds(chat, "/score on reads it"), "what to do")
        assert chat.query_one(TokenPanel).tab == "attention"


async def test_what_is_written_is_shown_in_tokens() -> None:
    engine = SeenEngine()
    async with make_app(engine).run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        line = chat.query_one("#pieces", Static)
        assert not line.display
        await pilot.press("alt+t")
        assert line.display and "in tokens" in str(line.content)
        chat.prompt.take("two words")
        await until(pilot, lambda: "2 tokens, 4.5 characters each" in str(line.content), "them")
        assert "two␣words" in str(line.content)
        await chat.do(Line("pieces", ""))
        assert not line.display
