"""Where a reply's thinking ends, however its marks are spelt and cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatapp.chat.thinking import Thinking, ThinkingWatch, answer_in, thinking_of

BEGUN = Thinking(begun=True)


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("<think>so</think>\n\nBlue.", Thinking(), "Blue."),
        ("\n<think>so</think>Blue.", Thinking(), "Blue."),
        ("<think>never closed", Thinking(), ""),
        ("<think></think>", Thinking(), ""),
        ("Blue <think>no</think>", Thinking(), "Blue <think>no</think>"),
        ("</think> alone", Thinking(), "</think> alone"),
        ("<thin", Thinking(), "<thin"),
        ("so\n</think>\nBlue.", BEGUN, "Blue."),
        ("never closed", BEGUN, ""),
        ("[THINK]so[/THINK]Blue.", Thinking("[THINK]", "[/THINK]"), "Blue."),
        ("", Thinking(), ""),
    ],
)
def test_the_answer_stands_behind_the_thinking(text: str, thinking: Thinking, answer: str) -> None:
    assert answer_in(text, thinking) == answer


@given(
    pieces=st.lists(
        st.sampled_from(["<th", "ink>", "<think>", "</", "think", ">", "</think>", "so", "\n", "<"])
    ),
    begun=st.booleans(),
)
def test_a_watch_finds_what_the_whole_text_tells(pieces: list[str], begun: bool) -> None:
    marks = Thinking(begun=begun)
    watch = ThinkingWatch(marks)
    inside = [watch.push(piece) for piece in pieces]
    for number, told in enumerate(inside):
        before = "".join(pieces[:number])
        opened = begun or before.lstrip().startswith("<think>")
        closed = before.partition("" if begun else "<think>")[2] if opened and not begun else before
        assert told == (opened and "</think>" not in closed)
    text = "".join(pieces)
    found = watch.found(1.5)
    opened = 0 if begun else text.find("<think>") + len("<think>")
    if not begun and not text.lstrip().startswith("<think>"):
        assert found is None
        return
    assert found is not None and found.seconds == 1.5
    ends = [n for n in range(len(pieces) + 1) if "</think>" in "".join(pieces[:n])[opened:]]
    assert found.tokens == min(ends, default=len(pieces))
    shown = "".join(pieces[: found.tokens])
    assert answer_in(text, marks).strip() == (text[len(shown) :].strip() if ends else "")


@pytest.mark.parametrize(
    ("template", "marks"),
    [
        ("{{ x.split('</think>')[-1] }}", ("<think>", "</think>")),
        ("{{ '<think>\n' }}", ("<think>", "</think>")),
        ("<seed:think>{{ x }}</seed:think>", ("<seed:think>", "</seed:think>")),
        ("{{ '[THINK]' + x + '[/THINK]' }}", ("[THINK]", "[/THINK]")),
        ("{{ '<thinking>' }}{{ '</thinking>' }}", ("<thinking>", "</thinking>")),
        ("nothing of it", ("<think>", "</think>")),
    ],
)
def test_the_template_names_the_marks(template: str, marks: tuple[str, str]) -> None:
    found = thinking_of(template)
    assert (found.open, found.close) == marks
