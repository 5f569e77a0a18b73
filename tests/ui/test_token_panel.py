"""The token panel: what it says of a token, at any size, of any text, and how it is worked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, overload

import pytest
from rich.cells import cell_len
from textual import on
from textual.app import App, ComposeResult
from textual.color import Color
from textual.message import Message
from textual.widget import Widget

from chatapp.chat.record import Removal, TokenRecord
from chatapp.explain.removal import cut_by, cut_by_variants, shortfall
from chatapp.ui.widgets.candidate_rows import Layout, candidate_row, sum_row
from chatapp.ui.widgets.candidates import CandidateChosen, CandidateList
from chatapp.ui.widgets.sparkline import LEVELS, Sparklines, curve
from chatapp.ui.widgets.token_panel import NOTHING, TokenPanel, TokenSummary, how_chosen
from tests.ui.records import COLOURS, HOSTILE, record, reply

NARROW, WIDE, TALL = 36, 66, 40


class Host(App[None]):
    """Nothing but the panel."""

    CSS = "TokenPanel { height: 1fr; }"

    def __init__(self, records: Sequence[TokenRecord] = (), **arguments: Any) -> None:
        super().__init__()
        self._records = records
        self._arguments = arguments
        self.posted: list[Message] = []

    def compose(self) -> ComposeResult:
        yield TokenPanel()

    def on_mount(self) -> None:
        self.panel.show(self._records, **self._arguments)

    @property
    def panel(self) -> TokenPanel:
        return self.query_one(TokenPanel)

    @on(CandidateChosen)
    @on(Sparklines.TokenPointed)
    def note(self, message: Message) -> None:
        self.posted.append(message)


def lines(widget: Widget) -> list[str]:
    """What a widget shows, and that every line is exactly as wide as it."""
    strips = [widget.render_line(y) for y in range(widget.size.height)]
    for strip in strips:
        assert cell_len(strip.text) == strip.cell_length == widget.scrollable_content_region.width
    return [strip.text for strip in strips]


def shown(app: Host) -> str:
    """All that the panel shows."""
    parts = (TokenSummary, CandidateList, Sparklines)
    return "\n".join(
        "\n".join(lines(app.query_one(part))) for part in parts if app.query_one(part).display
    ).replace("\u00a0", " ")


async def test_the_numbers_stand_side_by_side_with_their_names() -> None:
    app = Host(reply(17))
    async with app.run_test(size=(NARROW, TALL)) as pilot:
        await pilot.pause()
        text = lines(app.query_one(TokenSummary))
        token = reply(17)[-1]
        assert text[0].split() == ["token", "17", "␣Blue", "id", "500"]
        assert text[1].split() == ["model", "T", "0.7", "final"]
        assert text[2].split() == ["29.3", "%", "77.1", "%", "83.4", "%"]
        assert text[3].startswith("rank 1 · surprisal 1.77 bit")
        assert text[4].startswith(f"entropy {token.entropy_bits:.2f} bit · final 0.65 bit")
        assert text[5].startswith("P(end) 90.0 % · random number 0.4312")


@pytest.mark.parametrize("width", [NARROW, WIDE])
async def test_each_candidate_has_three_figures_and_what_cut_it(width: int) -> None:
    app = Host([record(COLOURS)])
    async with app.run_test(size=(width, TALL)) as pilot:
        await pilot.pause()
        text = [line.replace("\u00a0", " ") for line in lines(app.query_one(CandidateList))]
        assert text[1].split()[:5] == ["›●", "␣Blue", "62.1", "78.5", "83.4"]
        assert "█" in text[1]
        note = "cut by min-p 0.05" if width == WIDE else "min-p"
        assert text[3].split(maxsplit=5)[:5] == ["×", "␣Green", "6.1", "2.9", "0"]
        assert text[3].rstrip().endswith(f" {note}")
        others = next(line for line in text if "49 132" in line)
        assert others.split()[-3:] == ["1.7", "<0.01", "0"]
        assert text[text.index(others) + 1].replace(" %", "").split()[-3:] == ["100"] * 3


async def test_the_taken_one_is_marked_by_id_and_not_by_probability() -> None:
    equal = record({"a": 0.3, "b": 0.3, "c": 0.3}, chosen=1, top_p=1)
    app = Host([equal])
    async with app.run_test(size=(NARROW, TALL)) as pilot:
        await pilot.pause()
        marked = [line for line in lines(app.query_one(CandidateList)) if line[1] == "●"]
        assert len(marked) == 1
        assert marked[0].split()[1] == "b"


async def test_the_row_cursor_says_by_how_much_a_candidate_missed() -> None:
    app = Host([record(COLOURS)])
    async with app.run_test(size=(NARROW, TALL)) as pilot:
        app.panel.candidates.focus()
        await pilot.press("down", "down")
        assert "cut by min-p 0.05:" in shown(app)
        assert "needed 3.9 %, had 2.9 %" in shown(app)
        await pilot.press("down")
        assert "cut by top-p 0.95:" in shown(app)
        assert "tokens above hold 97.0 % already" in shown(app)


async def test_the_list_scrolls_to_its_end_and_posts_what_is_chosen() -> None:
    many = record({f"t{place}": 0.5**place / 2.1 for place in range(200)}, index=6)
    app = Host([many])
    async with app.run_test(size=(NARROW, 24)) as pilot:
        candidates = app.panel.candidates
        candidates.focus()
        await pilot.press("end")
        assert candidates.candidate == many.candidates[-1]
        assert any(line.startswith("›× t199") for line in lines(candidates))
        await pilot.press("enter", "pageup", "home", "enter")
        chosen = [m for m in app.posted if isinstance(m, CandidateChosen)]
        assert [m.token_id for m in chosen] == [many.candidates[-1].id, many.candidates[0].id]
        assert {m.index for m in chosen} == {6}


async def test_a_double_click_chooses_and_a_click_points() -> None:
    app = Host([record(COLOURS)])
    async with app.run_test(size=(NARROW, TALL)) as pilot:
        candidates = app.panel.candidates
        await pilot.pause()
        await pilot.click(candidates, offset=(5, 4))
        assert candidates.row == 3
        assert app.posted == []
        await pilot.click(candidates, offset=(5, 2), times=2)
        assert candidates.row == 1
        assert [m.token_id for m in app.posted if isinstance(m, CandidateChosen)] == [507]


async def test_a_click_beside_the_rows_does_nothing() -> None:
    app = Host([record({"a": 0.9})])
    async with app.run_test(size=(NARROW, TALL)) as pilot:
        for y in (0, 2, 3, 9):
            await pilot.click(app.panel.candidates, offset=(5, y), times=2)
        assert app.posted == []


async def test_bars_follow_the_column_of_choice() -> None:
    one = record({"a": 0.5, "b": 0.25, "c": 0.125}, temperature=1, top_p=1, min_p=0, top_k=2)
    app = Host([one])
    async with app.run_test(size=(WIDE, TALL)) as pilot:
        candidates = app.panel.candidates
        candidates.focus()

        def bars() -> list[int]:
            solid = Color.parse(app.theme_variables["primary"]).rich_color
            return [
                sum(
                    part.text.count("█")
                    for part in candidates.render_line(y)
                    if part.style is not None and part.style.color == solid
                )
                for y in (1, 2, 3)
            ]

        width = Layout.of(WIDE, "final").bar
        await pilot.pause()
        assert bars()[0] == pytest.approx(width * 2 / 3, abs=1)
        assert bars()[2] == 0
        await pilot.press("left", "left")
        assert str(candidates.followed) == "model"
        assert bars() == [int(width * p) for p in (0.5, 0.25, 0.125)]
        assert "bar: model" in lines(candidates)[0]
        await pilot.press("right", "right")
        assert str(candidates.followed) == "final"


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 5), (20, 12), (35, 18), (36, 11), (200, 60)])
async def test_any_size_and_any_text(size: tuple[int, int]) -> None:
    records = [record(HOSTILE, chosen=place, index=place) for place in range(len(HOSTILE))]
    app = Host(records, sampling_changed_at=(0, 3))
    async with app.run_test(size=size) as pilot:
        for place in range(len(records)):
            app.panel.show(records, place, (0, 3))
            await pilot.pause()
            text = shown(app)
            assert not any(ord(sign) < 32 and sign != "\n" for sign in text)
            assert "\u202e" not in text
        await pilot.resize_terminal(80, 24)
        await pilot.resize_terminal(1, 1)
        await pilot.resize_terminal(*size)


def test_columns_stay_in_line_under_any_text() -> None:
    layout = Layout.of(NARROW, "final")
    for candidate in record(HOSTILE).candidates:
        row = candidate_row(candidate, layout, "final", taken=False, under_cursor=False)
        assert cell_len(row.token) == layout.token
        assert [len(figure) for figure in row.figures] == [layout.figure] * 3


@pytest.mark.parametrize("width", range(120))
def test_a_figure_is_shown_whole_or_not_at_all(width: int) -> None:
    layout = Layout.of(width, "final")
    one = record({"a": 0.99995, "b": 0.00001}, top_p=1, min_p=0)
    for candidate in one.candidates:
        row = candidate_row(candidate, layout, "final", taken=False, under_cursor=False)
        for figure in row.figures:
            assert figure.strip() in (">99.99", ">99.9", "<0.01", "…", "")
        assert cell_len(row.token) + sum(map(len, row.figures)) + 3 <= max(width, 3)
    for figure in sum_row(one, layout).figures:
        assert figure.strip() in ("100 %", "100", "…", "")


def test_a_sum_that_is_not_whole_is_not_called_whole() -> None:
    broken = replace(record(COLOURS), other_model_prob=0.5)
    assert sum_row(broken, Layout.of(WIDE, "final")).figures[0].strip() == "148.3 %"


async def test_nothing_yet_and_nothing_again() -> None:
    app = Host()
    async with app.run_test(size=(NARROW, TALL)) as pilot:
        await pilot.pause()
        assert " ".join(shown(app).split()) == NOTHING
        app.panel.candidates.focus()
        await pilot.press("enter", "end", "down")
        app.panel.show(reply(3))
        await pilot.pause()
        assert "token 3" in shown(app)
        app.panel.show([])
        await pilot.pause()
        assert " ".join(shown(app).split()) == NOTHING
        assert app.posted == []


async def test_the_row_cursor_stays_while_the_token_does() -> None:
    records = reply(5)
    app = Host(records, cursor=2)
    async with app.run_test(size=(NARROW, TALL)) as pilot:
        candidates = app.panel.candidates
        candidates.focus()
        await pilot.press("down", "down", "down")
        app.panel.show([*records, reply(6)[-1]], 2)
        assert candidates.row == 3
        app.panel.show(records, 3)
        assert candidates.row == 1, "the one that was taken"


async def test_a_step_under_other_settings_keeps_the_row_and_a_taken_one_gets_it() -> None:
    one = reply(5)[3]
    ids = [candidate.id for candidate in one.candidates]
    app = Host(reply(5), cursor=2)
    async with app.run_test(size=(NARROW, TALL)):
        found = app.panel.candidates
        found.show(one, taken=False)  # what is next, while the reply is held
        found.row = 3
        warmer = replace(one, temperature=0.9)
        found.show(warmer, taken=False)
        assert found.row == 3
        assert found.depth(one) == 0, "nothing was taken at the step that is shown"
        found.show(one)
        assert found.row == ids.index(one.id), "the one that was drawn"
        assert found.depth(warmer) == len(ids)
        found.row = len(ids) - 1
        found.show(replace(warmer, candidates=warmer.candidates[:-1]))
        assert found.row == ids.index(one.id), "the last one is listed no more"
        assert found.depth(reply(5)[2]) == 0


async def test_the_curves_mark_the_cursor_and_the_changes() -> None:
    app = Host(reply(12), cursor=4, sampling_changed_at=(2, 9))
    async with app.run_test(size=(WIDE, TALL)) as pilot:
        await pilot.pause()
        end, entropy, marks = lines(app.query_one(Sparklines))
        assert end.startswith("P(end)  ") and end.rstrip().endswith("0–100 %")
        assert entropy.startswith("entropy ") and entropy.rstrip().endswith("bit")
        assert end[8:20] == curve([r.p_end for r in reply(12)], 12, 1.0).text
        assert {place - 8: marks[place] for place in range(8, 20) if marks[place] != " "} == {
            2: "╵",
            4: "▲",
            9: "╵",
        }
        await pilot.click(Sparklines, offset=(8 + 7, 1))
        assert [m.index for m in app.posted if isinstance(m, Sparklines.TokenPointed)] == [7]


async def test_a_curve_of_many_tokens_says_that_it_shows_the_highest() -> None:
    app = Host(reply(100))
    async with app.run_test(size=(NARROW, TALL)) as pilot:
        await pilot.pause()
        assert "highest of 7" in lines(app.query_one(Sparklines))[2]
        await pilot.resize_terminal(NARROW, 17)
        await pilot.pause()
        assert "highest of 7" in lines(app.query_one(Sparklines))[0]


def test_a_curve_never_loses_a_peak() -> None:
    values = [0.0] * 999 + [1.0]
    for width in (1, 7, 20, 999, 2000):
        drawn = curve(values, width, 1.0)
        assert len(drawn.text) <= width
        assert drawn.text.endswith("█")
    assert curve([0, 0.5, 1, float("nan")], 4, 1.0).text == "▁▅█ "
    assert curve([], 4, 1.0).text == curve([1.0], 0, 1.0).text == ""
    assert len(LEVELS) == 8


class Counting(Sequence[TokenRecord]):
    """A reply that counts how often its records are read."""

    def __init__(self, records: list[TokenRecord]) -> None:
        self.records = records
        self.reads = 0

    @overload
    def __getitem__(self, index: int) -> TokenRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TokenRecord]: ...
    def __getitem__(self, index: int | slice) -> TokenRecord | Sequence[TokenRecord]:
        self.reads += 1
        return self.records[index]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[TokenRecord]:
        raise AssertionError("the whole reply is read again")


async def test_a_growing_reply_costs_only_its_new_tokens() -> None:
    records = reply(400)
    growing = Counting(records[:1])
    app = Host(growing)
    async with app.run_test(size=(NARROW, TALL)) as pilot:
        for end in range(2, 401):
            growing.records = records[:end]
            app.panel.show(growing)
        await pilot.pause()
        assert growing.reads <= 400 * 8
        assert "token 400" in shown(app)


@pytest.mark.parametrize(
    ("removal", "cut", "missed"),
    [
        (Removal("top_k", 50, 50, 51), "top-k 50", "needed rank 50 or better, had 51"),
        (Removal("top_p", 0.95, 0.95, 0.963), "top-p 0.95", "tokens above hold 96.3 % already"),
        (Removal("min_p", 0.05, 0.021, 0.014), "min-p 0.05", "needed 2.1 %, had 1.4 %"),
        (Removal("min_p", 0.05, 0.0214, 0.0213), "min-p 0.05", "needed 2.14 %, had 2.13 %"),
        (Removal("typical", 0.9, 0.9, 0.95), "typical 0.90", "tokens above hold 95.0 % already"),
        (Removal("xtc", 0.5, 0.1, 0.34), "XTC 0.50", "needed <10.0 %, had 34.0 %"),
        (Removal("mirostat", 3, 5, 6.2), "mirostat τ 3.00", "needed ≤5.00 bit, had 6.20 bit"),
        (Removal("top_n_sigma", 1, 12.31, 11.02), "top-nσ 1.00",
         "needed logit 12.31, had 11.02"),
        (Removal("temperature", 0, 12.312, 12.311), "T 0",
         "needed logit 12.312, had 12.311"),
        (Removal("bias", 0, float("-inf"), float("-inf")), "a ban",
         "it is on the list of banned tokens"),
        (Removal("no_repeat_ngram", 3, float("-inf"), float("-inf")), "no-repeat 3",
         "it would repeat 3 tokens in a row"),
        (Removal("min_tokens", 20, float("-inf"), float("-inf")), "min tokens 20",
         "no end before 20 tokens"),
        (Removal("end", 0, 0, 0), "the end rule", "no end was allowed"),
        (Removal("end", 1, 0, 0), "the end rule", "only an end was allowed"),
        (Removal("of tomorrow", 2.5, 1, 0.5), "of tomorrow 2.5", "needed 1.00, had 0.50"),
    ],
)  # fmt: skip
def test_each_stage_says_what_was_needed(removal: Removal, cut: str, missed: str) -> None:
    assert cut_by(removal) == f"cut by {cut}"
    assert shortfall(removal) == missed
    assert cut_by_variants(removal)[0] == cut_by(removal)
    assert cut_by_variants(removal)[-1] == "cut"


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_looks(snap_compare: Any, width: int) -> None:
    """The second of the most probable tokens was taken; the row cursor is on one that was cut."""

    async def point(pilot: Any) -> None:
        pilot.app.panel.candidates.focus()
        await pilot.press("down", "down")

    app = Host(reply(24), cursor=18, sampling_changed_at=(6,))
    assert snap_compare(app, terminal_size=(width, 34), run_before=point)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "The model gave it 62.1 %; temperature and cuts make that 83.4 %. A random number"),
        ({"draw": None, "prob": 1.0}, "once unlikely tokens were cut, nothing else was left"),
        ({"draw": None, "temperature": 0.0}, "at temperature 0 that is always taken"),
        ({"final_entropy_bits": math.nan}, "The model gave it 62.1 %; the settings make that"),
    ],
)
def test_a_sentence_says_how_a_token_was_chosen(changes: dict[str, Any], words: str) -> None:
    assert words in how_chosen(replace(record(COLOURS), **changes))


def test_the_sentence_names_a_choice_by_hand() -> None:
    made = record(COLOURS)
    cut = replace(made.candidates[0], removed_by=Removal("top_p", 0.95, 0.95, 0.963))
    made = replace(made, draw=None, candidates=(cut, *made.candidates[1:]))
    assert "It was chosen by hand: by itself cut by top-p 0.95" in how_chosen(made)


async def test_a_brief_panel_shows_a_share_a_sentence_and_eight_candidates() -> None:
    app = Host(reply(20))
    async with app.run_test(size=(NARROW, TALL)) as pilot:
        app.panel.brief = True
        await pilot.pause()
        assert not app.query_one(Sparklines).display
        assert app.panel.candidates.size.height <= 10
        assert "The model gave it" in shown(app) and "surprisal" not in shown(app)
        app.panel.brief = False
        await pilot.pause()
        assert app.query_one(Sparklines).display and "surprisal" in shown(app)
