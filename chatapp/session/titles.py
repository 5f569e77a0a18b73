"""Has the loaded model title a conversation while it has nothing else to do.

A title is the first words at once, a model's own words later. A small model often answers the
question instead of naming it, so what comes back is a title only after it has passed a few plain
tests. No title is better than a wrong one: the first words stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from chatapp.chat.conversation import Conversation, Message, title_from
from chatapp.chat.errors import ChatappError
from chatapp.chat.prompt import Prompt, PromptFormat, Turn
from chatapp.chat.record import FinishReason
from chatapp.chat.text import sanitise
from chatapp.chat.thinking import answer_in
from chatapp.session.aside import Aside
from chatapp.session.saving import SaveFailed
from chatapp.session.session import Session

_MOST_TOKENS = 12
"""A title that does not end within so many tokens is a sentence."""

_MOST_CHARACTERS = 60
_READ_CHARACTERS = 400
"""How much of the first message is read: the whole costs seconds where a file is in it."""

_SYSTEM = "You write short titles."
_ASK = "Title for: "
_EXAMPLES = (
    ("How long should I boil an egg?", "Boiling an egg"),
    ("Can you fix my SQL query? It is slow.", "Slow SQL query"),
    ("write a poem about my dog Rex", "Poem about Rex the dog"),
)
"""Shown as turns. Models of 135 million parameters follow an example, but no instruction."""

_BROKEN_OFF = (None, FinishReason.CANCELLED, FinishReason.ERROR)
"""How a reply ends that is no answer to name a chat by; None is one that was cut."""


class TitleWriter:
    """Titles the current conversation, once, and gives way at any time."""

    def __init__(self, session: Session, formats: Callable[[str], PromptFormat]) -> None:
        """`formats` finds a format by name; raises ChatappError for an unknown one."""
        self._session = session
        self._formats = formats
        self._aside: Aside | None = None
        self._asked: set[str] = set()

    @property
    def is_wanted(self) -> bool:
        """Whether the conversation waits for a title, and the model for work."""
        session = self._session
        conversation = session.conversation
        return (
            session.facts is not None
            and not session.replying
            and self._aside is None
            and conversation.id not in self._asked
            and is_begun(conversation)
            and has_first_words(conversation)
        )

    def cancel(self) -> None:
        if self._aside is not None:
            self._aside.cancel()

    async def write(self) -> SaveFailed | None:
        """Ask for a title and give it to the conversation, if it is one and is still wanted."""
        if not self.is_wanted:
            return None
        conversation = self._session.conversation
        try:
            written = await self._ask()
        except ChatappError:
            written = ""  # its format is gone, or the engine: that is said where it is asked next
        now = self._session.conversation  # the user may have gone elsewhere, or named it
        if written is None or now.id != conversation.id:
            return None
        self._asked.add(conversation.id)
        title = cleaned_title(written, conversation)
        if not title or not has_first_words(now):
            return None
        return await self._session.change(replace(now, title=title))

    async def _ask(self) -> str | None:
        """What the model writes; None when it had to give way. Raises ChatappError."""
        conversation = self._session.conversation
        prompt = title_prompt(conversation, self._formats(conversation.format))
        self._aside = Aside(self._session.engine, prompt, _MOST_TOKENS, stop=("\n",))
        try:
            written = await self._aside.write()
        finally:
            self._aside = None
        if written.reason is FinishReason.CANCELLED:
            return None
        is_whole = written.reason in (FinishReason.STOP, FinishReason.STOP_SEQUENCE)
        return written.text if is_whole else ""


def has_first_words(conversation: Conversation) -> bool:
    """Whether the title is still the one that was made from the first words.

    So nobody named it; also after a restart, since it follows from the conversation itself. A chat
    whose first message was worded anew counts as named.
    """
    said = _first_said(conversation)
    return said is not None and conversation.title == title_from(said.text)


def is_begun(conversation: Conversation) -> bool:
    """Whether something was said and answered to the end."""
    return any(
        message.reply is not None
        and message.reply.finish_reason not in _BROKEN_OFF
        and bool(message.text.strip())
        for message in conversation.path()
    )


def title_prompt(conversation: Conversation, prompt_format: PromptFormat) -> Prompt:
    """What a model is asked for a title; the first message has to be there."""
    said = _first_said(conversation)
    assert said is not None  # a conversation is titled once something was said
    turns: list[Turn] = []
    for question, title in _EXAMPLES:
        turns += [Turn("user", _ASK + question), Turn("assistant", title)]
    words = " ".join(said.text[:_READ_CHARACTERS].split())
    turns.append(Turn("user", _ASK + words))
    return Prompt(_SYSTEM, tuple(turns), prompt_format, think=False)


def cleaned_title(written: str, conversation: Conversation) -> str:
    """A title out of what a model wrote; empty where it is none.

    Refused are: nothing, no letter or digit, what only repeats the message, and the examples.
    """
    words = " ".join(sanitise(answer_in(written, None)).split())
    if words.casefold().startswith("title:"):
        words = words[len("title:") :]
    words = words.strip(" \"'“”‘’«»`*_#").rstrip(".,;:")
    said = _first_said(conversation)
    known = {_bare(title) for _, title in _EXAMPLES}
    if said is not None:
        known |= {_bare(said.text), _bare(title_from(said.text))}
    if not _bare(words) or _bare(words) in known:
        return ""
    return title_from(words, _MOST_CHARACTERS)


def _first_said(conversation: Conversation) -> Message | None:
    return next((message for message in conversation.path() if message.role == "user"), None)


def _bare(text: str) -> str:
    """Letters and digits alone, to compare by."""
    return "".join(character for character in text.casefold() if character.isalnum())
