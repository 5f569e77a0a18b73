"""A program that writes conversations and says what it knows to be on disk, until it is killed.

    python -m tests.store.writer DATABASE NAME CONVERSATIONS

For every save that returned it prints one line: conversation, message, how many token records.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from chatapp.chat.conversation import Conversation
from chatapp.chat.record import FinishReason
from chatapp.store.chats import Chats
from chatapp.store.database import Database
from tests.store.samples import make_message, make_reply, news

TOKENS = 60
STEP = 7


def write(path: Path, name: str, conversations: int) -> None:
    """Write so many conversations of three turns, saving replies as they grow."""
    chats = Chats(Database(path))
    replies = [make_reply(TOKENS, seed=seed, candidates=5, finished=False) for seed in range(3)]
    for number in range(conversations):
        conversation = Conversation(id=f"{name}-{number}", created=float(number))
        parent = None
        for turn, whole in enumerate(replies):
            question = make_message(f"u{turn}", parent, f"question {turn}")
            conversation = replace(conversation, leaf=question.id)
            chats.save_conversation(conversation)
            chats.save_message(conversation.id, question)
            tell(conversation.id, question.id, 0)
            for count in [*range(0, TOKENS, STEP), TOKENS]:
                reply = replace(whole, records=whole.records[:count])
                if count == TOKENS:
                    reply = replace(reply, finish_reason=FinishReason.LENGTH)
                answer = make_message(f"a{turn}", question.id, reply=reply)
                if 0 < count < TOKENS:
                    chats.append(conversation.id, news(answer, count - STEP))
                else:
                    chats.save_message(conversation.id, answer)
                tell(conversation.id, answer.id, count)
            parent = answer.id


def tell(*values: object) -> None:
    sys.stdout.write(" ".join(map(str, values)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
