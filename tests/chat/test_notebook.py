"""A conversation as one text: nothing is lost on the way there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatapp.chat.conversation import Conversation, Message
from chatapp.chat.notebook import NotebookError, parts_of, rewritten, text_of
from chatapp.chat.prompt import Turn
from chatapp.chat.text import sanitise

LINES = st.text() | st.sampled_from(["=== user", "\\=== assistant", "=== system ", "", "===user"])
TEXTS = st.lists(LINES, max_size=4).map("\n".join).map(sanitise).filter(str.strip)


def chat(*turns: tuple[str, str], system: str = "") -> Conversation:
    made = Conversation(id="c", created=0, system=system)
    for number, (role, text) in enumerate(turns):
        role_ = "user" if role == "user" else "assistant"
        message = Message(id=str(number), parent=made.leaf, role=role_, text=text, created=number)
        made = made.with_message(message)
    return made


def said(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in conversation.path()]


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), TEXTS), min_size=1), TEXTS)
def test_a_text_says_the_turns_it_was_made_of(turns: list[tuple[str, str]], system: str) -> None:
    conversation = chat(*turns, system=system)
    parts = parts_of(text_of(conversation))
    assert [(part.role, part.text) for part in parts] == [("system", system), *turns]
    assert rewritten(conversation, parts, 9.0) == conversation


def test_it_looks_as_the_docs_say() -> None:
    conversation = chat(("user", "Name\n=== user"), ("assistant", "Red, "), system="Be brief.")
    assert text_of(conversation) == (
        "=== system\nBe brief.\n\n=== user\nName\n\\=== user\n\n=== assistant\nRed, "
    )
    assert text_of(chat()) == "=== user\n"


def test_what_is_edited_begins_a_branch_and_the_rest_is_copied_below_it() -> None:
    before = chat(("user", "One"), ("assistant", "Uno"), ("user", "Two"), ("assistant", "Dos"))
    text = text_of(before).replace("Uno", "Un")
    after = rewritten(before, parts_of(text), 9.0)
    assert said(after) == [
        ("user", "One"), ("assistant", "Un"), ("user", "Two"), ("assistant", "Dos"),
    ]  # fmt: skip
    assert said(after.at("3")) == said(before)
    assert [message.text for message in after.siblings("1")] == ["Uno", "Un"]
    assert after.path()[0] is before.path()[0]


def test_what_is_cut_off_stays_below() -> None:
    before = chat(("user", "One"), ("assistant", "Uno"), ("user", "Two"))
    after = rewritten(before, parts_of("=== user\nOne\n\n=== assistant\nUno"), 9.0)
    assert after.leaf == "1"
    assert after.messages == before.messages
    assert rewritten(before, (), 9.0).leaf is None


def test_a_new_text_begins_a_chat_with_its_title() -> None:
    after = rewritten(chat(), parts_of("=== system\nHi.\n=== user\n\n\n=== user\nSay it"), 9.0)
    assert (after.system, after.title, said(after)) == ("Hi.", "Say it", [("user", "Say it")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\nHello", "line 2: a turn begins with a line === user"),
        ("=== user\nHi\n=== system\nBe brief", "line 3: the system text stands before all turns"),
    ],
)
def test_what_is_no_conversation_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(NotebookError, match=words):
        parts_of(text)


def test_blank_lines_by_hand_do_not_matter() -> None:
    assert parts_of("\n=== user\nHi\n=== assistant\n\nYes\n") == (
        Turn("user", "Hi"), Turn("assistant", "\nYes\n"),
    )  # fmt: skip
