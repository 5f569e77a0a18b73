"""What if: a finished reply under other settings, tried and kept or given up."""

from __future__ import annotations

from textual.widgets import Static

from chatapp.ui.token_colours import step_style
from chatapp.ui.widgets.sampling_panel import SamplingPanel
from chatapp.ui.widgets.token_panel import TokenSummary
from tests.ui.host import ask, make_app, notice, ready, say, shown, until
from tests.ui.inspected import InspectedEngine, lines

SIZE = (110, 36)


async def test_settings_are_tried_on_a_reply_and_given_up() -> None:
    engine = InspectedEngine("One two three four")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await pilot.press("f9")
        assert notice(chat) == "point at a token of a reply first"
        await ask(pilot, "count")
        before = chat.session.sampling
        await pilot.press("f9")
        await until(pilot, lambda: chat.what_if.result is not None, "an answer")
        assert "One two three≠ four" in shown(chat)  # colour alone does not tell
        await say(pilot, "/top-k 1")
        await until(pilot, lambda: "two×" in shown(chat), "the impossible token")
        assert notice(chat) == "top_k is 1, tried on this reply"
        assert engine.tried[-1].top_k == 1
        assert chat.session.sampling == before
        panel = chat.query_one("#sampling", SamplingPanel)
        assert panel.sampling.top_k == 1
        legend = str(chat.query_one("#legend", Static).content)
        assert "total ln p −∞" in legend
        assert "1 impossible ×" in legend and "2 not the model's first choice ≠" in legend
        (look,) = chat.transcript.looks.values()
        assert look.style(1) == step_style(5) and look.style(0) == step_style(1)
        await until(pilot, lambda: "what if" in lines(chat.query_one(TokenSummary)), "the panel")
        assert len(engine.requests) == 1  # nothing was written anew
        await pilot.press("f9")
        assert not chat.transcript.looks
        assert panel.sampling == before
        assert "×" not in shown(chat) and "≠" not in shown(chat)
        assert chat.query_one("#sampling-title", Static).content.plain == "sampling"


async def test_what_was_tried_is_kept() -> None:
    engine = InspectedEngine("One two three four", "Five")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        await pilot.press("f9", "ctrl+up", "ctrl+up")
        await until(
            pilot, lambda: engine.tried and engine.tried[-1].temperature == 0.8, "the question"
        )
        assert chat.session.sampling.temperature == 0.7
        await pilot.press("f10")
        assert chat.session.sampling.temperature == 0.8
        assert not chat.what_if.on
        await ask(pilot, "again")
        assert engine.requests[-1][1].sampling.temperature == 0.8


async def test_a_held_key_asks_once_at_a_time_and_ends_with_the_newest() -> None:
    engine = InspectedEngine("One two three four")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        await pilot.press("f9")
        for steps in range(1, 40):
            chat.set_sampling(chat.sampling.with_values({"top_k": steps}))
        await until(pilot, lambda: chat.what_if.answered == chat.what_if.question, "the answer")
        assert engine.tried[-1].top_k == 39
        assert len(engine.tried) < 10


async def test_a_refusal_is_said_and_ends_it() -> None:
    engine = InspectedEngine("One two three four")
    engine.refuses = "the settings leave no token to take"
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        await pilot.press("f9")
        await until(pilot, lambda: not chat.what_if.on, "the end")
        assert notice(chat) == "the settings leave no token to take"
        await pilot.press("f10")
        assert notice(chat) == "nothing is being tried; F9 begins"


async def test_a_new_message_and_escape_end_it() -> None:
    engine = InspectedEngine("One two three four", "Five")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        await pilot.press("f9", "escape")
        assert not chat.what_if.on
        await pilot.press("f9")
        assert chat.what_if.on
        await ask(pilot, "again")
        assert not chat.what_if.on and not chat.transcript.looks


async def test_the_vocabulary_is_listed_under_what_is_tried() -> None:
    engine = InspectedEngine("One two three four")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        await pilot.press("f9", "ctrl+up")
        found = chat.panel.candidates
        await until(
            pilot, lambda: found._shown and found._shown.temperature == 0.75, "what is tried"
        )
        found.focus()
        await pilot.press("end")
        await until(pilot, lambda: len(found.listed) > 100, "a page")
        sampling = engine.asked[-1].sampling
        assert sampling is not None and sampling.temperature == 0.75
        # Turned again while the user reads far down: as deep a list, and the same candidate.
        await pilot.press("end", "up", "up")
        depth, pointed = len(found.listed), found.candidate
        assert pointed is not None and found.row > 60
        await pilot.press("ctrl+up")
        await until(pilot, lambda: found._shown and found._shown.temperature == 0.8, "the next")
        assert len(found.listed) >= depth
        assert found.candidate is not None and found.candidate.id == pointed.id
