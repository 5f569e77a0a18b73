"""What a model is asked: a path of a conversation as the prompt it reads.

The ids that a model wrote are given back to that same model as they are. Text would be split anew,
perhaps differently, and then neither the KV cache nor the reply's numbers would hold.
"""

from __future__ import annotations

from chatapp.chat.conversation import Conversation, Message, Reply
from chatapp.chat.errors import EngineError
from chatapp.chat.facts import ModelFacts
from chatapp.chat.prompt import Prompt, PromptFormat, Turn
from chatapp.chat.record import FinishReason, TokenRecord


def prompt_for(
    conversation: Conversation,
    leaf: str | None,
    facts: ModelFacts | None,
    prompt_format: PromptFormat,
    kept: tuple[TokenRecord, ...] = (),
) -> Prompt:
    """What a model reads after a message.

    Args:
        conversation: where the message is.
        leaf: the last message to read; None for none.
        facts: the model that reads.
        prompt_format: how turns are written.
        kept: the start of a reply to that message, to go on from.
    """
    # A reply that was stopped before its first token says nothing to the model.
    path = [m for m in conversation.path_to(leaf) if m.text or m.reply is None]
    turns = [_turn(message, facts) for message in path]
    if kept:
        text = "".join(record.text for record in kept)
        turns.append(Turn("assistant", text, tuple(record.id for record in kept)))
    return Prompt(
        system=conversation.system,
        turns=tuple(turns),
        format=prompt_format,
        continue_reply=bool(kept),
        moment=conversation.created,
    )


def reply_of(message: Message, facts: ModelFacts | None) -> Reply:
    """A reply that the loaded model can go on from, or be asked about, by its ids.

    Raises:
        EngineError: the message has no tokens, or another model wrote them.
    """
    if message.reply is None or not message.reply.records:
        raise EngineError("this message has no tokens to go on from; regenerate it instead")
    if facts is None or message.reply.model_sha256 != facts.sha256:
        raise EngineError(
            f"{message.reply.model} wrote this reply; load it to go on from its tokens"
        )
    return message.reply


def parent_for_reply(conversation: Conversation, message_id: str | None = None) -> str | None:
    """The message that a new reply answers: beside that reply, or to that message.

    Args:
        conversation: where the reply is to stand.
        message_id: a reply, or a message of the person's; None is the current leaf.

    Raises:
        EngineError: there is no message yet.
    """
    leaf = message_id if message_id is not None else conversation.leaf
    if leaf is None:
        raise EngineError("there is nothing to answer yet; write a message first")
    message = conversation.messages[leaf]
    return message.parent if message.role == "assistant" else message.id


def _turn(message: Message, facts: ModelFacts | None) -> Turn:
    """A message as the model reads it: exact ids where this same model wrote them."""
    reply = message.reply
    if reply is None or facts is None or reply.model_sha256 != facts.sha256:
        return Turn(message.role, message.text)
    ids = reply.ids
    if ids and ids[-1] in facts.end_ids:
        ids = ids[:-1]  # the format writes the end of a turn itself
    if reply.finish_reason is FinishReason.STOP_SEQUENCE:
        return Turn(message.role, message.text)  # its ids hold the stop sequence too
    return Turn(message.role, message.text, ids or None)
