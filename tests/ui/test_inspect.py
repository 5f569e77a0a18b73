"""Single tokens on the screen: held, stepped, chosen by hand, replaced, found."""

from __future__ import annotations

from typing import Any

from textual.pilot import Pilot
from textual.widgets import OptionList

from chatapp.chat.inspection import FoundToken, ReplyStep
from chatapp.chat.record import FinishReason
from chatapp.ui.actions import Line
from chatapp.ui.chat.screen import ChatScreen
from chatapp.ui.dialogs.dialog import HelpScreen
from chatapp.ui.dialogs.find import FindScreen
from chatapp.ui.dialogs.trace import TraceScreen
from chatapp.ui.widgets.hints import HELD, Hints
from chatapp.ui.widgets.token_panel import NEXT, TokenSummary
from chatapp.ui.widgets.trace_table import TraceTable
from tests.ui.host import ask, make_app, notice, ready, say, shown, until
from tests.ui.inspected import OTHER, InspectedEngine, lines
from tests.ui.scripted import token_id

SIZE = (110, 36)


def coming(chat: ChatScreen, name: str) -> object:
    """A number of the step at which the reply is held; None where it is not."""
    return getattr(chat.hold.paused.next, name) if chat.hold.paused is not None else None


async def test_a_reply_is_held_stepped_and_goes_on() -> None:
    engine = InspectedEngine("One two three four five", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await pilot.press("f6")
        assert notice(chat) == "no reply is under way"
        await say(pilot, "count")
        engine.allow(1)
        await until(pilot, lambda: chat.turns.tokens == 1, "a token")
        await pilot.press("f6")
        engine.allow_all()
        await until(pilot, lambda: chat.hold.paused is not None, "the pause")
        assert chat.turns.tokens == 1
        await pilot.pause()
        assert NEXT in lines(chat.query_one(TokenSummary))
        assert "●" not in lines(chat.panel.candidates).replace("● taken", "")
        await pilot.press("ctrl+down")  # another temperature shows in what could come next
        await until(
            pilot,
            lambda: coming(chat, "temperature") == 0.65,
            "new numbers",
        )
        await pilot.press("f7")
        await until(pilot, lambda: chat.turns.tokens == 2, "a step")
        await until(pilot, lambda: coming(chat, "index") == 2, "held again")
        assert "One two" in shown(chat) and "three" not in shown(chat)
        await pilot.press("f6")
        await until(pilot, lambda: not chat.turns.busy, "the end")
        assert chat.session.conversation.path()[-1].text == "One two three four five"
        assert NEXT not in lines(chat.query_one(TokenSummary))


async def test_the_next_token_is_chosen_by_hand() -> None:
    engine = InspectedEngine("One two three", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "count")
        await until(pilot, lambda: chat.session.replying, "the reply")
        await pilot.press("f7")
        engine.allow_all()
        await until(pilot, lambda: chat.hold.paused is not None, "the pause")
        chat.panel.candidates.focus()
        await pilot.press("down", "enter")
        await until(pilot, lambda: chat.turns.tokens == 1, "the token")
        await until(pilot, lambda: coming(chat, "index") == 1, "held again")
        await pilot.press("escape")
        await until(pilot, lambda: not chat.turns.busy, "the stop")
        reply = chat.session.conversation.path()[-1].reply
        assert reply is not None
        assert reply.ids == (token_id(OTHER),)
        assert reply.finish_reason is FinishReason.CANCELLED


async def test_another_token_of_a_held_reply_branches_there() -> None:
    engine = InspectedEngine("One two three", " way", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "count")
        engine.allow(2)
        await until(pilot, lambda: chat.turns.tokens == 2, "two tokens")
        await pilot.press("f6")
        engine.allow_all()
        await until(pilot, lambda: chat.hold.paused is not None, "the pause")
        chat.transcript.point(chat.transcript.messages[-1].id, 1)
        chat.panel.candidates.focus()
        await pilot.press("down", "enter")
        await until(pilot, lambda: len(engine.requests) == 2, "the branch")
        await until(pilot, lambda: not chat.turns.busy, "the end")
        assert engine.requests[1][1].forced_ids == (token_id(OTHER),)
        assert chat.session.conversation.path()[-1].text == "One forced way"


async def test_candidates_scroll_on_through_the_vocabulary() -> None:
    engine = InspectedEngine("One two")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        found = chat.panel.candidates
        found.focus()
        await pilot.press("end")
        await until(pilot, lambda: "+49\xa0896" in lines(found), "a page")
        assert engine.asked[-1].index == 1
        await pilot.press("end", "enter")
        await until(pilot, lambda: len(engine.requests) == 2, "the branch")
        assert engine.requests[1][1].forced_ids == (103,)


async def test_digits_too_many_for_an_id_are_text() -> None:
    class Engine(InspectedEngine):
        async def find_tokens(
            self, step: ReplyStep, wanted: str | int, limit: int = 50
        ) -> tuple[FoundToken, ...]:
            assert isinstance(wanted, str), "no number of that size goes over the wire"
            return await super().find_tokens(step, wanted, limit)

    engine = Engine("One two", " on")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        digits = "9" * 5000  # more than int() reads
        await chat.do(Line("find", digits))
        await until(pilot, lambda: bool(app.screen.query("FindScreen #picker-list")), "the screen")
        options = app.screen.query_one(OptionList)
        await until(pilot, lambda: "no token has" in words_of(options), "an answer")
        await pilot.press("escape")
        await say(pilot, f"/branch {digits}")
        await until(pilot, lambda: len(engine.requests) == 2, "the branch")
        assert engine.requests[1][1].forced_ids == (token_id(digits.encode()),)


def words_of(options: OptionList) -> str:
    """What the rows of a list say."""
    return "\n".join(str(option.prompt) for option in options.options)


async def test_a_token_is_found_with_what_it_takes_and_taken() -> None:
    engine = InspectedEngine("One two", " on")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        await say(pilot, "/find word")
        await until(pilot, lambda: isinstance(app.screen, FindScreen), "the screen")
        screen = app.screen
        assert isinstance(screen, FindScreen)
        await until(pilot, lambda: len(screen.shown) == 2, "what is found")
        options = screen.query_one(OptionList)
        first, second = (str(options.get_option_at_index(place).prompt) for place in range(2))
        assert "chosen by a draw from 0.5000 to 0.7500; it leads" in first
        assert "cut by top-k 50: needed rank 50 or better, had 701" in second
        assert "leads with a bias of +3.25" in second
        await pilot.press("down", "enter")
        await until(pilot, lambda: len(engine.requests) == 2, "the branch")
        assert engine.requests[1][1].forced_ids == (700,)
        await until(pilot, lambda: not chat.turns.busy, "the end")


async def test_an_unknown_id_and_a_missing_token_are_said() -> None:
    app = make_app(InspectedEngine("One two"))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await pilot.press("f8")
        assert notice(chat) == "point at a token of a reply first"
        await ask(pilot, "count")
        await pilot.press("f8", *"99999")
        screen = app.screen
        assert isinstance(screen, FindScreen)
        options = screen.query_one(OptionList)
        await until(
            pilot,
            lambda: "no token has this text" in str(options.get_option_at_index(0).prompt),
            "the word",
        )
        await pilot.press("enter", "escape")
        assert app.screen is chat


async def test_the_trace_tells_what_each_stage_did() -> None:
    app = make_app(InspectedEngine("One two three"))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        chat.transcript.point(chat.transcript.messages[-1].id, 1)
        await pilot.press("f3")
        await until(pilot, lambda: isinstance(app.screen, TraceScreen), "the screen")
        await pilot.pause()
        table = app.screen.query_one(TraceTable)
        text = lines(table)
        assert "after:" in text and "top-p" in text and "0.95" in text
        rows = text.splitlines()
        assert rows[2].split() == ["›●", "␣two", "62.0", "76.5", "76.5"]
        assert rows[4].split() == ["×", "␣else", "11.4", "×", "cut", "·"]
        assert next(row for row in rows if "sum" in row).split()[1:] == ["100", "%"] * 3
        assert next(row for row in rows if "drew" in row).split() == ["drew", "0.6250"]
        assert "random number 0.2500" in text
        await pilot.press("down", "down")
        assert "cut by top-p 0.95: tokens above hold 97.0 % already" in lines(table)
        await pilot.press("l")
        assert "−0.48" in lines(table)
        await pilot.press("f1")
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("escape")
        await pilot.press("escape")
        assert app.screen is chat


async def held(pilot: Pilot[Any], engine: InspectedEngine) -> ChatScreen:
    """A reply of which two tokens are taken, held before the third."""
    chat = await ready(pilot)
    await say(pilot, "count")
    engine.allow(2)
    await until(pilot, lambda: chat.turns.tokens == 2, "two tokens")
    await pilot.press("f6")
    engine.allow_all()
    await until(pilot, lambda: chat.hold.paused is not None, "the pause")
    return chat


async def test_a_held_step_is_listed_searched_and_traced_like_any_other() -> None:
    engine = InspectedEngine("One two three four five", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await held(pilot, engine)
        await pilot.press("ctrl+down")
        await until(
            pilot,
            lambda: coming(chat, "temperature") == 0.65,
            "new numbers",
        )
        await pilot.press("f3")
        await until(pilot, lambda: isinstance(app.screen, TraceScreen), "the trace")
        await pilot.pause()
        table = lines(app.screen.query_one(TraceTable))
        assert "nothing is drawn yet" in table and "●" not in table
        step = engine.asked[-1]
        assert step.index == 2 == len(step.reply.ids)
        assert step.reply.sampling_at(2).temperature == 0.65
        await pilot.press("escape")
        chat.panel.candidates.focus()
        await pilot.press("end")
        await until(pilot, lambda: "+49\xa0896" in lines(chat.panel.candidates), "a page")
        assert engine.asked[-1] == step
        await pilot.press("f8", *"word")
        screen = app.screen
        assert isinstance(screen, FindScreen)
        await until(pilot, lambda: len(screen.shown) == 2, "what is found")
        assert "leads with a bias of +3.25" in str(screen.shown[1].prompt())
        assert engine.asked[-1] == step
        await pilot.press("escape", "escape")
        await until(pilot, lambda: not chat.turns.busy, "the stop")


async def test_a_page_that_comes_after_a_control_was_turned_is_dropped() -> None:
    engine = InspectedEngine("One two three four five", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await held(pilot, engine)
        found = chat.panel.candidates
        before = found._shown
        assert before is not None and chat.tokens.place is not None
        page = await engine.candidates(chat.tokens.step_at(chat.tokens.place), len(found.listed), 5)
        await pilot.press("ctrl+down")
        await until(pilot, lambda: found._shown is not before, "new numbers")
        count = len(found.listed)
        found.add(before, page)
        assert len(found.listed) == count
        found.add(found._shown or before, page)
        assert len(found.listed) == count + 5
        await pilot.press("escape")
        await until(pilot, lambda: not chat.turns.busy, "the stop")


async def test_all_tokens_of_a_written_text_are_taken_while_held() -> None:
    engine = InspectedEngine("One two three four five", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await held(pilot, engine)
        await pilot.press("f8", *" blue house")
        screen = app.screen
        assert isinstance(screen, FindScreen)
        await until(pilot, lambda: len(screen.shown) == 1, "the text")
        row = screen.shown[0]
        assert row.key == (token_id(b" blue"), token_id(b" house"))
        text = str(row.prompt())
        assert "␣blue ␣house  all 2 tokens" in text
        assert f"ids {row.key[0]} {row.key[1]}" in text
        assert "the first: rank 42" in text and "leads with a bias of +1.50" in text
        await pilot.press("enter")
        await until(pilot, lambda: coming(chat, "index") == 4, "held again")
        assert "One two blue house" in shown(chat)
        await pilot.press("f6")
        await until(pilot, lambda: not chat.turns.busy, "the end")
        assert chat.session.conversation.path()[-1].text == "One two blue house five"


async def test_a_written_text_branches_where_it_was_looked_for() -> None:
    """Also when the reply has gone on meanwhile, and the newest token is another one."""
    engine = InspectedEngine("One two three four five", " it is.", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "count")
        engine.allow(2)
        await until(pilot, lambda: chat.turns.tokens == 2, "two tokens")
        chat.turns.flush()
        await pilot.press("f8", *" blue house")
        screen = app.screen
        assert isinstance(screen, FindScreen)
        await until(pilot, lambda: len(screen.shown) == 1, "the text")
        engine.allow_all()
        await until(pilot, lambda: not chat.turns.busy, "the end")
        await pilot.press("enter")
        await until(pilot, lambda: len(engine.requests) == 2, "the branch")
        prompt, options = engine.requests[1]
        assert options.forced_ids == (token_id(b" blue"), token_id(b" house"))
        assert prompt.turns[-1].ids == (token_id(b"One"),)
        await until(pilot, lambda: not chat.turns.busy, "the end")
        assert len(chat.session.conversation.siblings(chat.transcript.messages[-1].id)) == 2


async def test_the_keys_of_a_held_reply_stay_shown_and_its_speed_counts_no_waiting() -> None:
    engine = InspectedEngine("One two three four five", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await held(pilot, engine)
        chat.panel.candidates.focus()
        await pilot.pause()
        assert chat.query_one(Hints).hints == HELD
        assert chat.header.status.tokens_per_second == 0
        await pilot.press("escape")
        await until(pilot, lambda: not chat.turns.busy, "the stop")
        await pilot.pause()
        assert chat.query_one(Hints).hints != HELD


async def test_another_title_in_mid_reply_leaves_the_reply_as_it_streams() -> None:
    engine = InspectedEngine("One two three four five", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await held(pilot, engine)
        await say(pilot, "/rename Another")
        await until(pilot, lambda: "Another" in notice(chat), "the title")
        assert "cut:" not in shown(chat)
        await say(pilot, '/branch " blue house"')
        await until(pilot, lambda: coming(chat, "index") == 4, "held again")
        await pilot.press("f6")
        await until(pilot, lambda: not chat.turns.busy, "the end")
        assert "One two blue house five" in shown(chat)
        assert len(engine.requests) == 1


async def test_a_choice_for_a_step_that_is_being_left_is_refused() -> None:
    engine = InspectedEngine("One two three four five", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await held(pilot, engine)
        place = chat.tokens.place
        assert place is not None
        await chat.action_act("step")
        chat.tokens.take(place, (token_id(OTHER),))  # before the step has come
        assert notice(chat).startswith("this step is being left")
        await until(pilot, lambda: coming(chat, "index") == 3, "held again")
        assert "One two three" in shown(chat)
        assert chat.tokens.place is not None
        chat.tokens.take(chat.tokens.place, (token_id(OTHER),))
        await until(pilot, lambda: coming(chat, "index") == 4, "held again")
        assert "One two three other" in shown(chat)
        await pilot.press("escape")
        await until(pilot, lambda: not chat.turns.busy, "the stop")
