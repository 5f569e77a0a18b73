"""The current path of a conversation as Markdown.

Messages are Markdown already and are written as they are. A code fence that a reply left open (it
was cut off) is closed, since it would swallow everything after it.
"""

from __future__ import annotations

import re
import time

from chatapp.chat.conversation import Conversation
from chatapp.chat.prompt import Role
from chatapp.chat.thinking import answer_in
from chatapp.store.unicode import well_formed

SPEAKERS: dict[Role, str] = {"system": "System", "user": "You", "assistant": "Assistant"}

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)$")


def export_markdown(conversation: Conversation) -> str:
    """The title, when and with which model, the system text, then every message of the path."""
    blocks = [f"# {title(conversation)}", f"*{about(conversation)}*"]
    if conversation.system:
        blocks += ["## System", closed(conversation.system)]
    for message in conversation.path():
        thinking = message.reply.thinking if message.reply is not None else None
        answer = answer_in(message.text, thinking) if message.role == "assistant" else message.text
        blocks.append(f"## {SPEAKERS[message.role]}")
        if thought := message.text.removesuffix(answer).strip():
            blocks.append(
                f"<details><summary>Thinking</summary>\n\n{closed(thought)}\n\n</details>"
            )
        blocks.append(closed(answer.strip("\n")))
    return well_formed("\n\n".join(blocks) + "\n")


def about(conversation: Conversation) -> str:
    began = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(conversation.created))
    return " · ".join(filter(None, (began, conversation.model)))


def title(conversation: Conversation) -> str:
    """The title on one line; some words where it has none."""
    return " ".join(conversation.title.split()) or "Conversation"


def closed(markdown: str) -> str:
    """The text with the code fence closed that it leaves open."""
    fence = ""
    for line in markdown.split("\n"):
        match = _FENCE.match(line)
        if match is None:
            continue
        marks, rest = match.groups()
        if not fence:
            if marks[0] == "~" or "`" not in rest:
                fence = marks
        elif marks[0] == fence[0] and len(marks) >= len(fence) and not rest.strip():
            fence = ""
    return f"{markdown}\n{fence}" if fence else markdown
