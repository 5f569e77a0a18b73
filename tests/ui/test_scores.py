"""How sure: scales by key and command, a reply's summary, the user's own words scored."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from textual.widgets import Static

from chatapp.chat.conversation import Message
from chatapp.chat.inspection import PLAIN
from chatapp.chat.prompt import Prompt, RenderedPrompt, TokenPiece
from chatapp.chat.template import Template
from chatapp.ui.chat.scores import Part, choose, find_places, spread
from chatapp.ui.chat.screen import ChatScreen
from chatapp.ui.layout.message import SYSTEM
from chatapp.ui.services import ModelState
from chatapp.ui.token_colours import SCALES, Scale, legend, token_style
from chatapp.ui.widgets.token_cursor import Cursor
from chatapp.ui.widgets.token_panel import TokenSummary
from tests.ui.host import TEMPLATES, ask, make_app, notice, ready, say, shown, until
from tests.ui.inspected import InspectedEngine, lines
from tests.ui.kept import words
from tests.ui.scripted import make_record

SIZE = (110, 36)


def screen_rows(chat: ChatScreen) -> list[str]:
    """The rows of the transcript that are in view, the welcome included."""
    height = chat.transcript.scrollable_content_region.height
    return [chat.transcript.render_line(y).text for y in range(height)]


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
        assert (
            "2 tokens · perplexity 1.34 · mean entropy 1.50 bit · 0 not the model's first choice"
            in text
        )
        assert "5.0 tok/s · the model ended it" in text


async def test_own_messages_are_scored_coloured_and_inspectable() -> None:
    engine = InspectedEngine("One two", "Three")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count to two")
        await say(pilot, "/score on")
        await until(pilot, lambda: chat.scores.records, "the scores")
        assert engine.scored == [([3, 4, 5], False)]
        mine = chat.transcript.messages[0]
        block = chat.transcript.block_of(mine.id)
        assert block is not None
        assert [record.bytes for record in block.records] == [b"count", b" to", b" two"]
        assert [record.index for record in block.records] == [0, 1, 2]
        assert chat.transcript.pointed is not None
        assert chat.transcript.pointed[0].message.role == "assistant"
        chat.transcript.point(mine.id, 1)
        await pilot.pause()
        assert "your text · token 2" in lines(chat.query_one(TokenSummary))
        assert "your text: T and final are the model's own" in words(pilot, "#legend")
        assert "your text: 3 tokens · perplexity" in shown(chat)
        await pilot.press("f9")
        assert notice(chat) == "point at a token of a reply first"
        await ask(pilot, "and three")
        await until(pilot, lambda: len(chat.scores.records) == 2, "the next scores")
        await say(pilot, "/score off")
        await until(pilot, lambda: not chat.scores.records, "no scores")
        assert not block.records


async def test_a_message_scored_under_the_cursor_is_walked_into() -> None:
    app = make_app(InspectedEngine("One two"))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count to two")
        mine = chat.transcript.messages[0]
        chat.transcript.point(mine.id, None)
        await say(pilot, "/score on")
        await until(pilot, lambda: chat.scores.records, "the scores")
        chat.transcript.focus()
        for key, token in (("right", 0), ("right", 1), ("left", 0)):
            await pilot.press(key)
            assert chat.transcript.cursor == Cursor(mine.id, token)
        chat.transcript.point(mine.id, None)
        await pilot.press("down")
        assert chat.transcript.cursor == Cursor(mine.id, 0)


async def test_what_was_read_is_scored_unasked_and_only_once() -> None:
    engine = InspectedEngine("One two", "Three")
    app = make_app(engine, template=TEMPLATES["pirate"], score_prompt_tokens=100)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        await until(pilot, lambda: chat.scores.records, "the scores")
        mine = chat.transcript.messages[0].id
        assert set(chat.scores.records) == {SYSTEM, mine}
        await ask(pilot, "and three")
        await until(pilot, lambda: len(chat.scores.records) == 3, "the next scores")
        (first, in_background), (second, _) = engine.scored
        assert in_background
        assert [*range(1, 6), 9] == first  # "You are a pirate." behind its mark, then "count"
        assert len(second) == 2
        assert not set(first) & set(second)
        await say(pilot, "/system Be brief")  # the numbers hold for the old one alone
        await until(
            pilot, lambda: len(engine.scored) == 3 and len(chat.scores.records) == 3, "them again"
        )
        assert [record.bytes for record in chat.scores.records[SYSTEM]] == [b"Be", b" brief"]


async def test_what_is_long_or_was_not_read_is_scored_when_asked_for() -> None:
    engine = InspectedEngine("One two", "Three", "Four")
    app = make_app(engine, score_prompt_tokens=3)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count as far as two")
        await ask(pilot, "go on")
        await until(pilot, lambda: chat.scores.records, "the short one")
        long, _, short, _ = chat.transcript.messages
        assert set(chat.scores.records) == {short.id}
        engine.forgets = True
        await ask(pilot, "more")
        await until(pilot, lambda: len(engine.scored) == 2, "the question")
        assert set(chat.scores.records) == {short.id}
        await say(pilot, "/score on")
        await until(pilot, lambda: len(chat.scores.records) == 3, "all of them")
        assert long.id in chat.scores.records
        assert not engine.scored[-1][1]


async def test_a_new_message_does_not_wait_for_scoring() -> None:
    engine = InspectedEngine("One", "Two")
    engine.may_score.clear()
    app = make_app(engine, score_prompt_tokens=100)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        await until(pilot, lambda: len(engine.scored) == 1, "scoring")
        await ask(pilot, "and on")
        assert engine.withdrawn == 1
        assert shown(chat).count("Two") == 1
        engine.may_score.set()
        await until(pilot, lambda: len(chat.scores.records) == 2, "both scores")


async def test_scoring_unasked_starts_no_model_and_off_ends_it() -> None:
    engine = InspectedEngine("One", "Two")
    app = make_app(engine, score_prompt_tokens=100)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "/score off")
        await ask(pilot, "count")
        await pilot.pause()
        assert not engine.scored
        chat.scores.asked = None
        chat.models.state = ModelState.DEAD
        chat.scores.soon()
        await pilot.pause()
        assert not engine.scored
        assert engine.loads == 1


async def test_the_cursor_walks_into_the_system_text() -> None:
    engine = InspectedEngine("One two")
    app = make_app(engine, template=TEMPLATES["pirate"], score_prompt_tokens=100)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count to two")
        await until(pilot, lambda: chat.scores.records, "the scores")
        mine = chat.transcript.messages[0].id
        chat.transcript.point(mine, 1)
        chat.transcript.focus()
        await pilot.press("left", "left")
        assert chat.transcript.cursor == Cursor(SYSTEM, 4)
        assert "your text · token 5" in lines(chat.query_one(TokenSummary))
        await pilot.press("n")  # from its most certain token on to its least certain one
        assert chat.transcript.cursor == Cursor(SYSTEM, 3)
        await pilot.press("n")
        assert chat.transcript.cursor == Cursor(SYSTEM, 2)
        await pilot.press("up")
        assert chat.transcript.cursor == Cursor(SYSTEM, 2), "nothing stands above it"
        await pilot.press("down")
        assert chat.transcript.cursor == Cursor(mine, 0)
        await pilot.press("up")
        assert chat.transcript.cursor == Cursor(SYSTEM, 4)
        await say(pilot, "/score system")
        assert chat.transcript.cursor == Cursor(SYSTEM, 0)


@pytest.mark.parametrize("scale", SCALES)
async def test_every_scale_colours_what_was_given(scale: Scale) -> None:
    engine = InspectedEngine("One two")
    app = make_app(engine, template=TEMPLATES["pirate"], score_prompt_tokens=100)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count to two")
        await until(pilot, lambda: chat.scores.records, "the scores")
        await say(pilot, f"/colour {scale}")
        await pilot.pause()
        mine = chat.transcript.messages[0].id
        for key, text in ((SYSTEM, "You are a pirate."), (mine, "count to two")):
            row = chat.transcript.text_rows.index(f"  {text}")
            drawn = chat.transcript.render_line(row - chat.transcript.scroll_offset.y)
            position = 2
            for record in chat.scores.records[key]:
                wanted = token_style(record, scale)
                cell = drawn.crop(position, position + 1)._segments[0].style
                assert cell is not None
                if wanted.background is not None:
                    assert cell.bgcolor == wanted.rich_style.bgcolor
                position += len(record.bytes)
        assert words(pilot, "#legend").startswith(legend(scale).plain)


async def test_without_scores_the_system_text_is_plain_and_can_be_pointed_at() -> None:
    app = make_app(InspectedEngine("One"), template=TEMPLATES["strict"])
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        assert chat.transcript.text_rows[:2] == ["system", "  Be exact."]
        assert chat.transcript.messages == []
        assert chat.transcript.current is None
        await ask(pilot, "count")
        chat.transcript.focus()
        await pilot.press("up", "up", "up")
        assert chat.transcript.cursor == Cursor(SYSTEM, None)
        for key in "rbd":
            await pilot.press(key)
            assert app.screen is chat
        assert "this is the system text; /system TEXT sets another one" in notice(chat)
        await pilot.press("y")
        assert "the system text" in notice(chat)
        await pilot.press("e")
        assert chat.prompt.text == "/system Be exact."
        chat.prompt.take("")
        await say(pilot, "/score system")
        assert "/score on scores it" in notice(chat)
        await say(pilot, "/system none")
        assert "Be exact." not in shown(chat)
        await say(pilot, "/score system")
        assert "no system text; /system TEXT sets one" in notice(chat)


async def test_a_long_system_text_is_folded_until_it_is_pointed_at() -> None:
    text = "\n".join(f"Rule {number} of the house." for number in range(40))
    app = make_app(InspectedEngine("One"), template=Template("long", "", text))
    async with app.run_test(size=(80, 24)) as pilot:
        chat = await ready(pilot)
        assert "system  … 38 more rows" in shown(chat)
        assert "Rule 2 " not in shown(chat)
        assert chat.transcript.max_scroll_y == 0, "the welcome stands below it"
        assert any("Write a message below" in row for row in screen_rows(chat))
        await ask(pilot, "count")
        await say(pilot, "/score on")
        await until(pilot, lambda: chat.scores.records, "the scores")
        chat.transcript.focus()
        await pilot.press("up", "up", "up")
        assert chat.transcript.cursor is not None
        assert chat.transcript.cursor.message_id == SYSTEM
        assert "Rule 39 of the house." in " ".join(screen_rows(chat))
        await pilot.press("pageup", "pageup", "pageup")
        assert any("Rule 0 " in row for row in screen_rows(chat))
        await pilot.press("escape")
        assert "38 more rows" in shown(chat)
        assert chat.transcript.following


async def test_the_system_text_stands_through_other_first_messages() -> None:
    app = make_app(InspectedEngine("One", "Two"), template=TEMPLATES["strict"])
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        other = Message(id="other", parent=None, role="user", text="instead", created=0)
        chat.transcript.add(other, chat.session.conversation.with_message(other))
        assert [message.id for message in chat.transcript.messages] == ["other"]
        assert shown(chat).startswith("system\n  Be exact.\n\nyou  ‹ 2/2 ›\n  instead")


def test_tokens_of_a_prompt_are_spread_over_its_parts() -> None:
    texts = [b"<s>", b"You", b" are", b".\n", b"<u>", b" hi", b" you", b"\xc3", b"\xa9", b"<e>"]
    tokens = [TokenPiece(i, "", text, text[:1] == b"<") for i, text in enumerate(texts)]
    records = [make_record(i, text, "", PLAIN) for i, text in enumerate(texts) if i]
    parts = [
        Part(SYSTEM, "You are."),
        Part("gone", "nowhere"),
        Part("reply", "hi", given=False),
        Part("m", "youé  "),
    ]
    places = find_places(parts, tokens)
    assert places == {SYSTEM: [1, 2, 3], "m": [6, 7, 8]}
    found = spread(places, records)
    assert [record.bytes for record in found[SYSTEM]] == [b"You", b" are", b".\n"]
    assert [record.index for record in found["m"]] == [0, 1, 2]
    assert set(spread(places, records[:-3])) == {SYSTEM}, "a part with a gap is left out"


def test_the_first_token_of_a_prompt_has_no_record_and_is_no_gap() -> None:
    record = make_record(1, b"b", "b", PLAIN)
    assert spread({"m": [0, 1], "n": [0]}, [record]) == {"m": (replace(record, index=0),)}


def test_the_newest_parts_are_scored_first_as_far_as_there_is_room() -> None:
    places = {SYSTEM: [1, 2], "a": [4, 5, 6], "b": [8], "c": [9, 10]}
    assert choose(places, (), None).keys() == places.keys()
    assert choose(places, {"c"}, None).keys() == {SYSTEM, "a", "b"}
    assert choose(places, (), 5).keys() == {"c", "b", SYSTEM}
    assert choose(places, (), 0) == {}


CHATML = [
    ("<|im_start|>", True),
    ("system", False),
    ("\n", False),
    ("system", False),
    ("<|im_end|>", True),
    ("\n", False),
    ("<|im_start|>", True),
    ("user", False),
    ("\n", False),
    ("user", False),
    ("<|im_end|>", True),
    ("\n", False),
    ("<|im_start|>", True),
    ("assistant", False),
    ("\n", False),
]


def test_a_message_is_not_taken_for_the_word_that_says_whose_turn_it_is() -> None:
    tokens = [
        TokenPiece(n, text, text.encode(), control) for n, (text, control) in enumerate(CHATML)
    ]
    parts = [Part(SYSTEM, "system"), Part("m", "user")]
    assert find_places(parts, tokens) == {SYSTEM: [3], "m": [9]}


def test_a_message_is_not_found_inside_of_a_control_token() -> None:
    tokens = [
        TokenPiece(n, text, text.encode(), control)
        for n, (text, control) in enumerate((*CHATML[6:9], ("art", False), *CHATML[10:]))
    ]
    assert find_places([Part("m", "art")], tokens) == {"m": [3]}


async def test_a_system_text_changed_in_mid_reply_is_shown_when_it_ends() -> None:
    engine = InspectedEngine("One two", held=True)
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "count")
        engine.allow(1)
        await until(pilot, lambda: chat.turns.tokens == 1, "the first token")
        await say(pilot, "/system Be very kind.")
        engine.allow_all()
        await until(pilot, lambda: not chat.turns.busy, "the end")
        await until(pilot, lambda: "Be very kind." in shown(chat), "the system text")


class SlowRenderer(InspectedEngine):
    """Holds what scoring asks first, until a test lets it answer."""

    def __init__(self, *scripts: str) -> None:
        super().__init__(*scripts)
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def render(self, prompt: Prompt) -> RenderedPrompt:
        self.asked.set()
        await self.may_answer.wait()
        return await super().render(prompt)


async def test_another_chat_may_be_begun_while_the_last_one_is_being_scored() -> None:
    engine = SlowRenderer("One two three")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        await say(pilot, "/score on")
        await until(pilot, engine.asked.is_set, "scoring")
        await pilot.press("ctrl+n")
        engine.may_answer.set()
        await until(pilot, lambda: not list(chat.workers), "the workers")
        assert chat.session.conversation.messages == {}
        assert not chat.scores.records and engine.scored == []
        await ask(pilot, "still there?")
        assert "still there?" in shown(chat)


async def test_another_chat_may_be_begun_while_settings_are_tried() -> None:
    app = make_app(InspectedEngine("One two three"))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        chat.transcript.focus()
        await pilot.press("left", "f9")
        await until(pilot, lambda: chat.what_if.result, "the answer")
        await pilot.press("ctrl+n")
        await pilot.pause()
        assert "count" not in shown(chat)
