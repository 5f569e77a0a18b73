"""How sure: scales by key and command, a reply's summary, the person's own words scored."""

from __future__ import annotations

from textual.widgets import Static

from chatapp.chat.prompt import TokenPiece
from chatapp.chat.scoring import PLAIN
from chatapp.ui.control.scores import SYSTEM, Part, spread
from chatapp.ui.screens.scored import ScoredScreen
from chatapp.ui.widgets.lines_view import LinesView
from chatapp.ui.widgets.token_panel import TokenSummary
from tests.ui.host import ask, make_app, notice, ready, say, shown, until
from tests.ui.inspected import InspectedEngine, lines
from tests.ui.scripted import make_record, split

SIZE = (110, 36)


async def test_scales_follow_each_other_and_the_legend_names_them() -> None:
    app = make_app(InspectedEngine("One two"))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        await pilot.press("f12")
        assert chat.transcript.scale == "surprisal"
        assert chat.transcript.view == "tokens"
        assert "surprisal, bit" in str(chat.query_one("#legend", Static).content)
        chat.transcript.focus()
        await pilot.press("s")
        assert chat.transcript.scale == "entropy"
        await say(pilot, "/colour p_end")
        assert chat.transcript.scale == "p_end"
        await say(pilot, "/colour green")
        assert "/colour takes probability" in notice(chat)


async def test_a_reply_shown_as_tokens_has_its_summary() -> None:
    app = make_app(InspectedEngine("One two"))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        assert "perplexity" not in shown(chat)
        await pilot.press("ctrl+t")
        text = " ".join(shown(chat).split())
        # exp of the mean of −ln 0.9 and −ln 0.62
        assert "2 tokens · perplexity 1.34 · mean entropy 1.50 bit · 0 not the arg-max" in text
        assert "5.0 tok/s · the model ended it" in text


async def test_own_messages_are_scored_coloured_and_inspectable() -> None:
    engine = InspectedEngine("One two", "Three")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count to two")
        await say(pilot, "/score")
        await until(pilot, lambda: chat.scores, "the scores")
        mine = chat.transcript.messages[0]
        block = chat.transcript.block_of(mine.id)
        assert block is not None
        assert [record.bytes for record in block.records] == [b"count", b" to", b" two"]
        assert [record.index for record in block.records] == [0, 1, 2]
        assert chat.transcript.pointed is not None
        assert chat.transcript.pointed[0].message.role == "assistant"
        chat.transcript.point(mine.id, 1)
        await pilot.pause()
        assert "token 2" in lines(chat.query_one(TokenSummary))
        await pilot.press("f9")
        assert notice(chat) == "point at a token of a reply first"
        await ask(pilot, "and three")
        await until(pilot, lambda: len(chat.scores) == 3, "the next scores")
        await say(pilot, "/score off")
        await until(pilot, lambda: not chat.scores, "no scores")
        assert not block.records


async def test_the_system_text_is_scored() -> None:
    app = make_app(InspectedEngine("One two"))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        await say(pilot, "/score system")
        assert "no system text is scored" in notice(chat)
        records = tuple(make_record(i, t, "", PLAIN) for i, t in enumerate(split("Be exact")))
        chat.scores = {SYSTEM: records}
        await say(pilot, "/score system")
        await until(pilot, lambda: isinstance(app.screen, ScoredScreen), "the screen")
        await pilot.pause()
        assert app.screen.query_one(LinesView).text_rows == ["Be exact"]
        await pilot.press("escape")
        assert app.screen is chat


def test_tokens_of_a_prompt_are_spread_over_its_parts() -> None:
    texts = [b"<s>", b"You", b" are", b".\n", b"<u>", b" hi", b" you", b"\xc3", b"\xa9", b"<e>"]
    tokens = [TokenPiece(i, "", text, text[:1] == b"<") for i, text in enumerate(texts)]
    records = [make_record(i, text, "", PLAIN) for i, text in enumerate(texts) if i]
    parts = [Part(SYSTEM, "You are."), Part("gone", "nowhere"), Part("m", "hi youé  ")]
    found = spread(parts, tokens, records)
    assert [record.bytes for record in found[SYSTEM]] == [b"You", b" are", b".\n"]
    assert [record.bytes for record in found["m"]] == [b" hi", b" you", b"\xc3", b"\xa9"]
    assert "gone" not in found
