"""Other decoders on the screen: columns side by side, beams as a tree, contrastive penalties."""

from __future__ import annotations

from textual.widgets import Static

from chatapp.ui.dialogs.compare import CompareScreen
from chatapp.ui.dialogs.dialog import HelpScreen
from chatapp.ui.dialogs.search_view import SearchScreen
from chatapp.ui.dialogs.trace import TraceScreen
from chatapp.ui.widgets.candidates import CandidateList
from chatapp.ui.widgets.column import ReplyColumn
from chatapp.ui.widgets.lines_view import LinesView
from chatapp.ui.widgets.token_panel import TokenSummary
from tests.ui.host import ask, make_app, notice, ready, say, until
from tests.ui.inspected import InspectedEngine, lines

SIZE = (130, 40)


async def test_columns_stream_side_by_side_and_one_is_taken() -> None:
    engine = InspectedEngine("One two", "Red and blue")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "colours")
        await say(pilot, "/compare greedy hot nucleus")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen), "the screen")
        screen = app.screen
        assert isinstance(screen, CompareScreen)
        await until(pilot, lambda: screen.over, "the end")
        await pilot.pause()
        assert [one.sampling.temperature for one in engine.compared] == [0.0, 1.3, 1.0]
        columns = list(screen.query(ReplyColumn))
        assert len(columns) == 3
        for column in columns:
            assert "Red and blue" in lines(column)
            assert "perplexity" in str(column.border_subtitle)
        await pilot.press("tab", "left", "left")
        assert screen.focused is columns[1]
        await pilot.press("f1")
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("escape")
        summary = screen.query_one(TokenSummary)
        assert "token 2 of 3" in lines(summary) and "T 1.3" in lines(summary)
        await pilot.press("enter")
        assert app.screen is chat
        await until(pilot, lambda: len(chat.session.conversation.messages) == 3, "the reply")
        taken = chat.session.conversation.path()[-1]
        assert taken.text == "Red and blue"
        assert taken.reply is not None
        assert taken.reply.sampling[0].sampling.temperature == 1.3
        assert len(chat.session.conversation.siblings(taken.id)) == 2


async def test_one_column_is_stopped_and_then_all() -> None:
    engine = InspectedEngine("One", "Red and blue", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        engine.allow(2)
        await ask(pilot, "colours")
        await say(pilot, "/compare greedy hot")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen), "the screen")
        screen = app.screen
        assert isinstance(screen, CompareScreen)
        engine.allow(1)
        columns = list(screen.query(ReplyColumn))
        await until(pilot, lambda: all(one.records for one in columns), "the first tokens")
        await pilot.press("x")
        engine.allow(1)
        await until(pilot, lambda: len(columns[1].records) == 2, "the other one")
        assert len(columns[0].records) == 1
        await pilot.press("escape")
        engine.allow_all()
        await until(pilot, lambda: screen.over, "the end")
        assert len(columns[1].records) == 2
        await pilot.press("escape")
        assert app.screen is not screen


async def test_a_column_is_turned_while_it_streams_and_traced_like_a_reply() -> None:
    engine = InspectedEngine("One", "One two three four", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        engine.allow(2)
        await ask(pilot, "count")
        before = chat.sampling
        await say(pilot, "/compare greedy hot")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen), "the screen")
        screen = app.screen
        assert isinstance(screen, CompareScreen)
        engine.allow(1)
        first, second = screen.query(ReplyColumn)
        await until(pilot, lambda: all(one.records for one in (first, second)), "first tokens")
        await pilot.press("tab", "ctrl+down")
        assert "T 1.25 from here on" in str(second.border_title)
        assert chat.sampling == before
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, TraceScreen), "the trace")
        assert engine.asked[-1].reply.spans[0].sampling.temperature == 1.3
        await pilot.press("escape")
        engine.allow_all()
        await until(pilot, lambda: screen.over, "the end")
        await pilot.pause()
        await pilot.press("pagedown", "pagedown", "pagedown")
        await until(pilot, lambda: "word" in lines(screen.query_one(CandidateList)), "more ranks")
        await pilot.press("enter")
        await until(pilot, lambda: len(chat.session.conversation.messages) == 3, "the reply")
        taken = chat.session.conversation.path()[-1].reply
        assert taken is not None
        assert [span.sampling.temperature for span in taken.sampling] == [1.3, 1.25]
        assert taken.sampling[1].start == 1


async def test_a_beam_column_is_searched_after_the_others() -> None:
    engine = InspectedEngine("One two", "Red and blue")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "colours")
        await say(pilot, "/compare now beam")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen), "the screen")
        screen = app.screen
        assert isinstance(screen, CompareScreen)
        await until(pilot, lambda: screen.over, "the end")
        await pilot.pause()
        first, second = screen.query(ReplyColumn)
        assert "Red and blue" in lines(first) and "Red sea" in lines(second)


async def test_what_cannot_be_compared_is_said() -> None:
    app = make_app(InspectedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "/compare greedy hot")
        assert "write a message first" in notice(chat)
        await say(pilot, "/compare greedy")
        assert notice(chat) == "between 2 and 4 can be compared, not 1"
        await say(pilot, "/compare greedy nothing")
        assert "there is no preset 'nothing'" in notice(chat)
        await say(pilot, "/beam 900")
        assert "num_beams must be" in notice(chat)
        await say(pilot, "/contrastive x")
        assert "/contrastive takes" in notice(chat)


async def test_beams_are_a_tree_with_the_dropped_marked_and_one_is_taken() -> None:
    app = make_app(InspectedEngine("One two"))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "colours")
        await say(pilot, "/beam 2")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen), "the screen")
        screen = app.screen
        assert isinstance(screen, SearchScreen)
        await until(pilot, lambda: screen.over, "the end")
        await pilot.pause()
        assert screen.query_one(LinesView).text_rows == [
            "├ Blue (−1.000)",
            "│   × ␣sea (−1.500)",
            "Red (−0.500)",
            "├ ␣sky ■ (−0.500)",
            "␣sea ■ (−0.400)",
            "",
            "1  score −0.400  Red sea",
            "",
            "2  score −0.500  Red sky",
        ]
        await pilot.press("4")
        assert "only 2 can be taken" in str(screen.query_one("#search-status", Static).content)
        await pilot.press("2")
        await until(pilot, lambda: len(chat.session.conversation.messages) == 3, "the reply")
        assert chat.session.conversation.path()[-1].text == "Red sky"


async def test_contrastive_search_shows_the_penalty_of_each_candidate() -> None:
    app = make_app(InspectedEngine("One two"))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "colours")
        await say(pilot, "/contrastive 2 0.6")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen), "the screen")
        screen = app.screen
        assert isinstance(screen, SearchScreen)
        await until(pilot, lambda: screen.over, "the end")
        await pilot.pause()
        rows = screen.query_one(LinesView).text_rows
        assert rows[0] == "Blue"
        assert rows[2].split() == ["1", "Red", "60.0", "%", "0.900", "−0.300", "2"]
        assert rows[3].split() == ["●", "Blue", "30.0", "%", "0.100", "0.060", "1"]
        await pilot.press("enter")
        await until(pilot, lambda: len(chat.session.conversation.messages) == 3, "the reply")
        assert chat.session.conversation.path()[-1].text == "Blue"
