from __future__ import annotations

import pytest

from chatapp.chat.conversation import Conversation, ConversationError, Message
from tests.store.samples import make_message, make_reply


def tree() -> Conversation:
    """u1 → a1, a2; a1 → u2 → a3; the current leaf is a2."""
    conversation = Conversation(id="c", created=0.0)
    for id_, parent in (("u1", None), ("a1", "u1"), ("u2", "a1"), ("a3", "u2"), ("a2", "u1")):
        conversation = conversation.with_message(make_message(id_, parent, f"text of {id_}"))
    return conversation


def ids(messages: tuple[Message, ...]) -> list[str]:
    return [message.id for message in messages]


def test_an_edit_stands_beside_and_keeps_what_followed() -> None:
    before = tree()
    after = before.edit("u1", "other words", created=5.0)
    edited = after.messages[after.leaf or ""]
    assert (edited.text, edited.parent, edited.role, edited.reply) == (
        "other words",
        None,
        "user",
        None,
    )
    assert ids(after.siblings("u1")) == ["u1", edited.id]
    assert ids(after.at(after.deepest("a1")).path()) == ["u1", "a1", "u2", "a3"]


def test_siblings_are_walked_in_both_directions_to_the_ends() -> None:
    conversation = tree()
    assert conversation.beside("a1", 1) == "a2"
    assert conversation.beside("a2", -1) == "a1"
    assert conversation.beside("a1", -1) is None
    assert conversation.beside("a2", 1) is None
    assert ids(conversation.branch_points()) == ["a2"]
    assert conversation.leaves() == ("a3", "a2")


def test_deleting_hides_what_is_below_and_moves_to_the_sibling() -> None:
    conversation = tree().at("a3").delete("a1", when=1.0)
    assert conversation.leaf == "a2"
    assert ids(conversation.children("u1")) == ["a2"]
    assert not conversation.visible("a3")
    assert set(conversation.messages) == set(tree().messages)
    with pytest.raises(ConversationError, match="deleted"):
        conversation.at("a3")


def test_deleting_the_only_message_leads_to_its_parent() -> None:
    conversation = tree().at("a3").delete("u2", when=1.0)
    assert conversation.leaf == "a1"
    assert tree().delete("u1", when=1.0).leaf is None


def test_deleting_off_the_path_leaves_the_path() -> None:
    assert tree().delete("a1", when=1.0).leaf == "a2"


def test_undo_brings_back_the_last_deleted_first() -> None:
    conversation = tree().delete("a3", when=1.0).delete("a1", when=2.0)
    assert conversation.last_deleted() == "a1"
    conversation = conversation.restore("a1")
    assert conversation.leaf == "u2"
    assert conversation.last_deleted() == "a3"
    conversation = conversation.restore("a3")
    assert conversation.last_deleted() is None
    assert conversation.leaf == "a3"


def test_restoring_an_inner_message_restores_what_hid_it() -> None:
    conversation = tree().delete("a3", when=1.0).delete("u1", when=2.0).restore("a3")
    assert ids(conversation.path()) == ["u1", "a1", "u2", "a3"]


def test_a_reply_that_streams_into_a_deleted_message_stays_deleted() -> None:
    conversation = tree().delete("a2", when=1.0)
    leaf = conversation.leaf
    grown = conversation.with_message(make_message("a2", "u1", "text of a2 and more"))
    assert grown.leaf == leaf
    assert grown.messages["a2"].deleted == 1.0
    assert grown.messages["a2"].text == "text of a2 and more"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (make_message("new", "nowhere"), "not here"),
        (make_message("a3", "u1"), "cannot move"),
    ],
)
def test_what_the_tree_cannot_take_is_refused(message: Message, words: str) -> None:
    with pytest.raises(ConversationError, match=words):
        tree().with_message(message)


def test_nothing_is_added_below_a_deleted_message() -> None:
    with pytest.raises(ConversationError, match="deleted"):
        tree().delete("a1", when=1.0).with_message(make_message("new", "a1"))


def test_most_and_least_likely_paths_by_mean_logprob() -> None:
    conversation = Conversation(id="c", created=0.0).with_message(make_message("u", None))
    means = {}
    for seed in range(4):
        reply = make_reply(3, seed=seed, candidates=5)
        conversation = conversation.with_message(make_message(f"a{seed}", "u", reply=reply))
        means[f"a{seed}"] = sum(r.logprob for r in reply.records) / 3
    assert conversation.mean_logprobs() == pytest.approx(means)
    assert conversation.most_likely() == max(means, key=lambda leaf: means[leaf])
    assert conversation.least_likely() == min(means, key=lambda leaf: means[leaf])


def test_without_tokens_no_path_is_the_most_likely() -> None:
    assert tree().most_likely() is None


def test_check_finds_a_leaf_that_is_missing_and_a_parent_that_comes_late() -> None:
    tree().check()
    good = tree().messages
    with pytest.raises(ConversationError, match="missing"):
        Conversation(id="c", created=0.0, messages=good, leaf="gone").check()
    backwards = dict(reversed(good.items()))
    with pytest.raises(ConversationError, match="before its parent"):
        Conversation(id="c", created=0.0, messages=backwards).check()
    with pytest.raises(ConversationError, match="under the id"):
        Conversation(id="c", created=0.0, messages={"x": good["u1"]}).check()


@pytest.mark.parametrize("name", ["path_to", "siblings", "at", "delete"])
def test_a_message_of_another_chat_is_refused_in_words(name: str) -> None:
    """Whoever asks may have begun in a chat that is not open any more."""
    ask = getattr(tree(), name)
    arguments = {"when": 1.0} if name == "delete" else {}
    with pytest.raises(ConversationError, match="no message elsewhere in this chat any more"):
        ask("elsewhere", **arguments)
