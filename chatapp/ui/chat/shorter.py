"""What to leave out when a message doesn't fit the context any more: offered, never done silently.

Every way leads to a new chat that holds what the model will read; the full one stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

from chatapp.chat import numbers
from chatapp.chat.conversation import Conversation, Message, new_id
from chatapp.chat.errors import ChatappError
from chatapp.chat.prompt import Prompt, Turn
from chatapp.chat.record import ENDED_WELL
from chatapp.chat.thinking import answer_in
from chatapp.session.aside import Aside
from chatapp.ui.chat.base import ChatBase
from chatapp.ui.chat.conversations import Conversations
from chatapp.ui.chat.messages import Messages
from chatapp.ui.dialogs.picker import Choice, PickerScreen

_REPLY_SHARE = 4
"""One part in so many of the context is left for the reply."""
_SUMMARY_TOKENS = 200
_ASK = "Sum up this conversation in at most six short sentences. Keep names, numbers and decisions."


class Shorter:
    """Offers shorter chats, and goes on in the one that is chosen."""

    def __init__(self, chat: ChatBase, conversations: Conversations, messages: Messages) -> None:
        self._chat = chat
        self._session = chat.session
        self._conversations = conversations
        self._messages = messages

    def offer(self, message: str, length: int) -> None:
        """Say what could be left out for a message, which stays in the prompt meanwhile.

        `length`: tokens of the context.
        """
        self._chat.work(lambda: self._offer(message, length), "shorter")

    async def _offer(self, message: str, length: int) -> None:
        before, written = self._session.conversation, self._chat.prompt.text
        cut = await self._cut(message, length)
        alone = await self._tokens(self._after(len(before.path()), message))
        choices = []
        path = before.path()
        if cut is not None:
            summing = await self._session.engine.render(self._question(path[:cut]))
            asked = len(summing.tokens)
            fits = asked + _SUMMARY_TOKENS <= length
            left_out, kept = await self._tokens(replace(before, leaf=path[cut - 1].id)), path[cut:]
            what = f"the oldest {cut} messages, {numbers.tokens(left_out)}"
            rest = f"a new chat goes on with the last {len(kept)}; this one stays as it is"
            choices = [
                Choice("drop", f"Leave out {what}", rest),
                Choice(
                    "sum",
                    f"Have the model sum up {what}",
                    f"it reads {numbers.tokens(asked)} and writes at most {_SUMMARY_TOKENS} tokens,"
                    f" which stand in the new chat's system text; {rest}"
                    if fits
                    else f"not possible: it would have to read {numbers.tokens(asked)} at once",
                    enabled=fits,
                ),
            ]
        choices.append(
            Choice("new", "Begin anew with this message alone", f"it reads {numbers.tokens(alone)}")
        )
        title = f"The context of {numbers.tokens(length)} is full"
        picked = await self._chat.app.push_screen_wait(PickerScreen(title, choices))
        if picked is None or self._session.conversation.id != before.id:
            return
        start = cut if picked != "new" and cut is not None else len(path)
        system = before.system
        if picked == "sum":
            summary = await self._summary(path[:start])
            if not summary or self._session.conversation.id != before.id:
                return
            system = f"{system}\n\nEarlier in this conversation: {summary}".strip()
        if self._chat.prompt.text == written:
            self._chat.prompt.take("")  # else it would be the full chat's draft
        await self._conversations.begin_alike()
        shorter = replace(self._session.conversation, system=system, title=before.title)
        messages = _moved_up(path[start:])
        leaf = messages[-1].id if messages else None
        held = MappingProxyType({one.id: one for one in messages})
        await self._session.change(replace(shorter, messages=held, leaf=leaf))
        self._chat.conversation_changed()
        self._messages.send(message)

    async def _cut(self, message: str, length: int) -> int | None:
        """How many of the oldest messages have to go, the fewest; None where all have to."""
        path = self._session.conversation.path()
        starts = [place for place, one in enumerate(path) if one.role == "user" and place]
        low, high = 0, len(starts)
        while low < high:
            middle = (low + high) // 2
            tokens = await self._tokens(self._after(starts[middle], message))
            low, high = (
                (low, middle) if tokens <= length - length // _REPLY_SHARE else (middle + 1, high)
            )
        return starts[low] if low < len(starts) else None

    def _after(self, start: int, message: str) -> Conversation:
        """The current path from a message on, and the new message behind it."""
        conversation = self._session.conversation
        kept = _moved_up(conversation.path()[start:])
        parent = kept[-1].id if kept else None
        new = Message(id="new", parent=parent, role="user", text=message, created=0.0)
        held = {one.id: one for one in (*kept, new)}
        return replace(conversation, messages=MappingProxyType(held), leaf=new.id)

    async def _tokens(self, conversation: Conversation) -> int:
        """How many tokens a path has as the model reads it. Raises EngineError."""
        prompt = self._session.prompt_for(conversation.leaf, of=conversation)
        return len((await self._session.engine.render(prompt)).tokens)

    async def _summary(self, messages: Sequence[Message]) -> str:
        """What the model makes of some messages; empty where it failed, which is said."""
        self._chat.say("the model sums up what is left out …")
        aside = Aside(self._session.engine, self._question(messages), _SUMMARY_TOKENS)
        try:
            written = await aside.write()
        except ChatappError as error:
            text, failed = "", str(error)
        else:
            text, failed = written.text, "the model wrote nothing"
            if written.reason is not None and written.reason not in ENDED_WELL:
                text, failed = "", written.message or "it was stopped"
        summary = " ".join(answer_in(text, None).split())
        if not summary:
            self._chat.say(f"it could not be summed up: {failed}; nothing is changed", "warning")
        return summary

    def _question(self, messages: Sequence[Message]) -> Prompt:
        """What the model reads to sum up some messages."""
        said = "\n\n".join(f"{one.role}: {one.text}" for one in messages)
        prompt_format = self._session.prompt_for(None).format
        return Prompt("", (Turn("user", f"{_ASK}\n\n{said}"),), prompt_format, think=False)


def _moved_up(messages: Sequence[Message]) -> list[Message]:
    """Copies of the messages of a path, the first of which stands first in its chat."""
    made: list[Message] = []
    for message in messages:
        parent = made[-1].id if made else None
        made.append(replace(message, id=new_id(), parent=parent))
    return made
