"""Rows of Markdown and of tokens: pure values, no screen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from chatapp.chat.conversation import Message, Reply
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.text import sanitise
from chatapp.ui.layout.line import Line
from chatapp.ui.layout.markdown import GrowingMarkdown, code_blocks
from chatapp.ui.layout.message import MessageBlock
from chatapp.ui.layout.tokens import TokenLayout
from tests.ui.scripted import make_records


def rows(text: str, width: int = 40) -> list[str]:
    return [line.content.plain.rstrip() for line in GrowingMarkdown(text).lines(width)]


def test_paragraphs_emphasis_and_inline_code_lose_only_their_signs() -> None:
    assert rows("Some *soft* and **loud** `code`.") == ["Some soft and loud code."]


def test_html_is_shown_as_the_text_it_is() -> None:
    assert rows("<b>hi</b> <script>x</script>") == ["<b>hi</b> <script>x</script>"]


def test_links_show_where_they_lead() -> None:
    assert rows("[here](http://a.b/c)") == ["here (http://a.b/c)"]
    assert rows("<http://a.b/c>") == ["http://a.b/c"]


def test_headings_lists_quotes_and_rules() -> None:
    assert rows("## Title\n\n1. one\n2. two\n   - deep\n\n> said\n\n---") == [
        "## Title",
        "",
        "1. one",
        "2. two",
        "   ◦ deep",
        "",
        "▎ said",
        "",
        "─" * 40,
    ]


def test_loose_lists_keep_their_blank_rows() -> None:
    assert rows("- one\n\n- two") == ["• one", "", "• two"]


def test_lists_begin_where_they_say() -> None:
    assert rows("9. nine\n10. ten") == [" 9. nine", "10. ten"]


def test_code_keeps_every_character_and_goes_on_below() -> None:
    text = "```python\nif x:\n    y = 1\n```"
    assert code_blocks(text) == ["if x:\n    y = 1"]
    assert rows(text) == [" python", " if x:", "     y = 1"]
    long = "x" * 50
    shown = rows(f"```\n{long}\n```", width=22)
    assert "".join(row.strip() for row in shown) == long


def test_a_fence_that_is_not_closed_yet_is_code() -> None:
    assert code_blocks("```python\nprint(1)") == ["print(1)"]
    assert rows("```python\nprint(1)") == [" python", " print(1)"]


def test_tables_fit_and_keep_their_cells() -> None:
    assert rows("| a | b |\n|---|---|\n| 1 | 2 |") == ["a │ b", "──┼──", "1 │ 2"]
    wide = "| head | other |\n|---|---|\n| " + "word " * 30 + "| x |"
    assert all(cell_len(row) <= 40 for row in rows(wide))


def test_code_blocks_are_found_whole_wherever_they_stand() -> None:
    text = "```\na\n\nb\n```\n\n- item\n\n  ```py\n  c\n  ```\n\n> ```\n> d\n> ```"
    assert code_blocks(text) == ["a\n\nb", "c", "d"]


def test_blocks_know_their_kind() -> None:
    assert rows("# t\n\n- a\n- b") == ["# t", "", "• a", "• b"]


def test_emphasis_may_nest_deeper_than_python_calls() -> None:
    assert rows("*a " * 2000 + "b*" * 2000, 10_000)[0].startswith("a a a")


@pytest.mark.parametrize("step", [1, 3, 7])
def test_growing_markdown_ends_as_if_it_had_come_at_once(step: int) -> None:
    text = (
        "Intro *with* style.\n\nTitle\n=====\n\n- one\n- two\n\n  more\n\n```python\nx = 1\n\n"
        "y = 2\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> quote\n> goes on\n\n[a]: http://b\n\nend"
    )
    growing = GrowingMarkdown()
    for start in range(0, len(text), step):
        growing.append(text[start : start + step])
        growing.lines(30)
    assert _plain(growing.lines(30)) == _plain(GrowingMarkdown(text).lines(30))


def _plain(lines: list[Line]) -> list[str]:
    return [line.content.plain for line in lines]


@given(st.text(alphabet="ab *_`#>-1.[]()|\n\\<&~", max_size=80), st.integers(1, 30))
def test_any_markdown_at_any_width_stays_within_it(text: str, width: int) -> None:
    for line in GrowingMarkdown(sanitise(text)).lines(width):
        # Signs of nested blocks may be wider than an absurdly small width.
        assert line.content.cell_length <= max(width, 24)
        assert "\n" not in line.content.plain


def layout_of(tokens: list[bytes], width: int) -> TokenLayout:
    return TokenLayout(tokens, width)


def text_of(layout: TokenLayout) -> list[str]:
    return [layout.row(y, lambda _: "", None).content.plain for y in range(layout.height)]


def test_tokens_break_before_words_and_after_newlines() -> None:
    layout = layout_of([b"One", b" two", b" thr", b"ee", b"\n", b"four"], 9)
    assert text_of(layout) == ["One two", " three↵", "four"]


def test_a_newline_inside_a_token_ends_the_row_there() -> None:
    layout = layout_of([b":", b"\n   ", b" return", b"\n\n", b"end"], 40)
    assert text_of(layout) == [":↵", "␣␣␣ return↵", "↵", "end"]
    assert layout.token_at(0, 1) == 1
    assert layout.place_of(3) == (10, 1)


def test_a_token_wider_than_the_row_is_folded() -> None:
    layout = layout_of([b"abcdefghij", b" k"], 4)
    assert "".join(text_of(layout)) == "abcdefghij k"
    assert all(cell_len(row) <= 4 for row in text_of(layout))


def test_places_and_tokens_answer_each_other() -> None:
    tokens = [b"One", b" two", b" three", b"\n", b" four", b"\xf0\x9f", b"\x99\x82"]
    for width in (3, 8, 20):
        layout = layout_of(tokens, width)
        for index in range(len(tokens)):
            x, y = layout.place_of(index)
            assert layout.token_at(x, y) == index


@given(
    st.lists(
        st.sampled_from([b" the", b"a", b"ing", b" ", b"\n", b"\t", b"\xff", "日本".encode()])
    ),
    st.integers(1, 12),
)
def test_no_token_is_lost_at_any_width(tokens: list[bytes], width: int) -> None:
    grown = TokenLayout((), width)
    for token in tokens:
        grown.extend([token])
    at_once = layout_of(tokens, 80)
    at_once.resize(width)
    assert text_of(grown) == text_of(at_once)
    whole = "".join(text_of(layout_of(tokens, 500)))
    assert "".join(text_of(grown)) == whole
    if tokens:
        for index in range(len(tokens)):
            _, y = grown.place_of(index)
            assert 0 <= y < grown.height


def test_a_reply_of_another_time_says_what_changed_and_why_it_ended() -> None:
    from chatapp.chat.record import FinishReason, SamplingSpan

    records = make_records("One two three")
    reply = Reply(
        model="m",
        seed=1,
        records=records,
        sampling=(
            SamplingSpan(0, SamplingParams()),
            SamplingSpan(2, SamplingParams(temperature=1.2)),
        ),
        finish_reason=FinishReason.LENGTH,
    )
    message = Message(
        id="a", parent=None, role="assistant", text="One two three", created=0, reply=reply
    )
    block = MessageBlock(message)
    block.resize(60)
    shown = [block.row(y, lambda _: "", None).content.plain for y in range(block.height)]
    assert "  · temperature: T 1.20 from token 3" in shown
    assert "  · cut at the maximum number of tokens; /continue goes on" in shown
