"""Has the loaded model title a conversation while it has nothing else to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from chatapp.chat.errors import ChatappError
from chatapp.chat.prompt import PromptFormat
from chatapp.chat.record import FinishReason
from chatapp.chat.titles import (
    MOST_TOKENS,
    cleaned_title,
    has_first_words,
    is_begun,
    title_prompt,
)
from chatapp.session.aside import Aside
from chatapp.session.saving import SaveFailed
from chatapp.session.session import Session


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
        self._aside = Aside(self._session.engine, prompt, MOST_TOKENS, stop=("\n",))
        try:
            written = await self._aside.write()
        finally:
            self._aside = None
        if written.reason is FinishReason.CANCELLED:
            return None
        is_whole = written.reason in (FinishReason.STOP, FinishReason.STOP_SEQUENCE)
        return written.text if is_whole else ""
