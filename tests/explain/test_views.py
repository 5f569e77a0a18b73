"""Views: their numbers are the answer's, they fit their width, and no token can do harm in them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from rich.cells import cell_len

from chatapp.chat import xray
from chatapp.chat.inspection import StageTrace, TracedToken
from chatapp.chat.numbers import percent
from chatapp.chat.prompt import TokenPiece
from chatapp.chat.record import Removal
from chatapp.chat.sampling import SamplingParams
from chatapp.explain import views
from chatapp.explain.views import View, kind_of
from tests.explain import values
from tests.ui.scripted import make_record


def every_view(width: int) -> list[View]:
    return [
        views.tokens(values.pieces(30), width),
        views.neighbors(values.neighbors(), width),
        views.analogy(values.analogy(), width),
        views.similarity(xray.Similarity(0.5, -0.25), width),
        views.word_map(values.word_map(20), width),
        views.attention(values.attention(90), width),
        views.attention(values.attention(90, every=True), width),
        views.head_profiles(values.head_profiles(4, 9), values.piece(2), width),
        views.lens(values.lens(31), width),
        views.attribution(values.attribution(30), width),
        views.positions(values.positions(), width),
        views.anatomy(values.anatomy(), width, measured=12.5),
        views.cache_run(values.cache_run(), width),
    ]


@pytest.mark.parametrize("width", [78, 120])
def test_every_view_fits_and_is_harmless(width: int) -> None:
    for view in every_view(width):
        assert view.sentence and view.lines
        for row in view.rows(width):
            assert row.replace("\xa0", " ").isprintable(), (view.title, row)
            assert cell_len(row) <= width, (view.title, row)


@pytest.mark.parametrize("width", [34, 46, 69, 70])
def test_what_the_panel_shows_fits_it(width: int) -> None:
    record = replace(
        make_record(2, b" a long token of many letters", "", SamplingParams()),
        candidates=tuple(
            replace(one, removed_by=Removal("top_p", 0.95, 0.95, 0.99))
            for one in make_record(2, b"x", "", SamplingParams()).candidates
        ),
    )
    token = TracedToken(record.id, 1.0, 0.123, False)
    stages = [
        StageTrace(name, 0.95, None, None, None, (token,), 0.877, 49_152)
        for name in ("model", "repetition", "top_n_sigma", "temperature")
    ]
    for view in (
        views.tokens(values.pieces(30), width, 1990),
        views.attention(values.attention(90), width),
        views.lens(values.lens(31), width),
        views.filters(stages, record, width),
    ):
        rows = view.rows(width, words_first=False)
        for row in rows:
            assert cell_len(row) <= width, (view.title, row)
        assert len(rows) == len(view.rows(width))
    assert any("needed" in row or "hold" in row for row in views.filters(stages, record).lines)


def test_the_second_scale_shares_out_what_the_first_token_left() -> None:
    assert views.shares_without_first([0.5, 0.25, 0.25]) == [0, 0.5, 0.5]
    assert views.shares_without_first([1.0]) == [0]
    assert views.shares_without_first([1.0, 0.0]) == [0, 0]


def test_the_word_at_a_token_is_found() -> None:
    parts = [b"How", b" st", b"raw", b"berry", b"?", b" \xe6", b"\x97\xa5"]
    pieces = [TokenPiece(number, "", part) for number, part in enumerate(parts)]
    assert [list(views.word_at(pieces, place)) for place in (0, 1, 3, 4)] == [
        [0],
        [1, 2, 3],
        [1, 2, 3],
        [4],
    ]
    assert views.written(pieces[:4]).startswith("4 tokens, 3.5 characters each · last berry: id 3")


def test_what_kind_a_token_is() -> None:
    def piece(data: bytes, control: bool = False) -> TokenPiece:
        return TokenPiece(0, "", data, control)

    assert kind_of(piece(b"The"), first=True) == "word"
    assert kind_of(piece(b"The")) == "inside"
    assert kind_of(piece(b" cat")) == "word"
    assert kind_of(piece(b"!")) == "mark"
    assert kind_of(piece(b"\xf0\x9f")) == "byte"
    assert kind_of(piece(b"<|end|>", control=True)) == "control"


def test_letters_are_held_against_tokens_in_the_word_that_is_cut_most() -> None:
    parts = [b"How", b" st", b"raw", b"berry", b"?"]
    view = views.tokens([TokenPiece(n, "", part) for n, part in enumerate(parts)])
    assert '"strawberry" has 10 letters but 3 tokens, ␣st│raw│berry' in view.remark
    assert "1, 2, 3" in view.remark
    assert "15 characters are 5 tokens, 3.0 characters a token" in view.sentence


def test_a_long_row_keeps_its_largest_shares_in_order() -> None:
    found = values.attention(200)
    view = views.attention(found)
    shown = [int(line.split()[0]) for line in view.lines[1:]]
    largest = sorted(range(200), key=lambda place: -found.rows[0][place])[: len(shown)]
    assert shown == sorted(largest)
    assert f"{200 - len(shown)} tokens with less" in view.remark


def test_the_heat_map_shows_later_tokens_nothing() -> None:
    view = views.attention(values.attention(12, every=True))
    cells = [line[19:] for line in view.lines[2:]]
    assert [len(row) <= place + 1 for place, row in enumerate(cells)] == [True] * 12
    assert cells[0] == "█"  # the first token has only itself


def test_the_heat_map_shows_what_stands_around_the_token_pointed_at() -> None:
    found = values.attention(200, every=True)
    view = views.heat_map(found, 76, 100)
    shown = [line for line in view.lines if line[:5].strip(" ›").isdigit() and len(line) > 20]
    assert [int(line[1:5]) for line in shown[-13:]] == list(range(94, 107))
    assert [line[0] for line in shown].count("›") == 1
    best = max(range(101), key=lambda place: found.rows[100][place])
    told = view.remark.split("looks most at ")[1].split(",")[0]
    assert percent(found.rows[100][best]) in told
    assert "of 200 fit here" in view.remark


def test_a_word_of_the_map_is_pointed_at() -> None:
    found = values.word_map(20)
    seen = [views.word_map(found, 76, mark=mark).lines[-1] for mark in (0, 19, 20, -1)]
    assert seen[0] == seen[2] and seen[1] == seen[3]
    left = min(range(20), key=lambda one: found.points[one].x)
    assert seen[0].startswith(f"◉ word{left}␛, id {left}:")


def test_a_grid_of_many_heads_is_parted() -> None:
    view = views.head_profiles(values.head_profiles(2, 32), values.piece(2), 76)
    heads = [line for line in view.lines if line.startswith("layer")]
    assert len(heads) == 3 and "entropy" in heads[-1]
    assert all(len(line) <= 76 for line in view.lines)


def test_the_lens_says_where_the_winner_leads() -> None:
    view = views.lens(values.lens(10))
    assert "leads first after layer 8." in view.sentence
    assert view.lines[1].split()[:2] == ["embed", "40"]  # 40 000, with a no-break space
    assert view.lines[-1].split()[0] == "output"


def test_attribution_bars_point_to_the_side_of_the_sign() -> None:
    view = views.attribution(values.attribution(3))
    minus = next(line for line in view.lines if "−3.00" in line)
    plus = next(line for line in view.lines if " 2.00" in line)
    assert re.search("▒│", minus) and re.search("│█", plus)
    assert view.lines[-2].split()[-1] == view.lines[-1].split()[1]
