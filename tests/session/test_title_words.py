"""What is a title, and what only looks like one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chatapp.chat.conversation import Conversation, Message, Reply, title_from
from chatapp.chat.prompt import PromptFormat
from chatapp.chat.record import FinishReason
from chatapp.session.titles import cleaned_title, has_first_words, is_begun, title_prompt

SAID = "How do I prune a plum tree in winter?"


def chat(said: str = SAID, reason: FinishReason | None = FinishReason.STOP) -> Conversation:
    reply = Reply(model="m", seed=0, finish_reason=reason)
    user = Message(id="u", parent=None, role="user", text=said, created=0)
    model = Message(id="a", parent="u", role="assistant", text="Gently.", created=0, reply=reply)
    made = Conversation(id="c", created=0, title=title_from(said))
    return made.with_message(user).with_message(model)


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ("Pruning plum trees", "Pruning plum trees"),
        (' "Pruning plum trees."\n', "Pruning plum trees"),
        ("Title: **Plum trees**", "Plum trees"),
        ("Plums\x1b[31m red", "Plums␛[31m red"),
        ("", ""),
        ("...", ""),
        (SAID, ""),
        (SAID.upper().rstrip("?"), ""),
        ("Boiling an egg", ""),
    ],
)
def test_what_a_model_wrote_becomes_a_title_or_nothing(written: str, title: str) -> None:
    assert cleaned_title(written, chat()) == title


def test_a_title_is_bounded() -> None:
    assert len(cleaned_title("plum " * 50, chat())) <= 61


def test_the_first_words_are_known_also_after_a_restart() -> None:
    assert has_first_words(chat())
    assert not has_first_words(replace(chat(), title="My garden"))
    assert not has_first_words(Conversation(id="c", created=0))


def test_a_chat_is_begun_once_something_was_answered() -> None:
    assert is_begun(chat())
    assert not is_begun(chat(reason=None))
    assert not is_begun(chat(reason=FinishReason.CANCELLED))
    assert not is_begun(chat().at("u"))


def test_the_prompt_is_short_however_long_the_message_is() -> None:
    prompt = title_prompt(chat("word " * 10_000), PromptFormat("chatml"))
    assert sum(len(turn.text) for turn in prompt.turns) < 700
    assert prompt.turns[-1].role == "user"
    assert prompt.format.name == "chatml"
