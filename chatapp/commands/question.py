"""What `chatapp ask` is asked: a prompt, what a pipe brings, and text files (--file)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from chatapp.chat.attachment import Attachment, check_room, compose, read_file
from chatapp.chat.errors import ChatappError, UsageError
from chatapp.chat.prompt import Prompt, Turn
from chatapp.chat.served import SERVERS
from chatapp.commands.output import tell

if TYPE_CHECKING:
    from chatapp.session.session import Session

MOST_PIPED_BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class Question:
    """What is said to the model."""

    text: str
    files: tuple[Attachment, ...] = ()

    @property
    def message(self) -> str:
        """The text with its files behind it."""
        return compose(self.text, self.files) if self.files else self.text


def read_pipe(stream: TextIO | None) -> str:
    """What a pipe brings, in UTF-8 whatever the locale is; nothing where there is none.

    Raises UsageError: it is longer than any model reads. Raises ChatappError: it is not text.
    """
    if stream is None or stream.isatty():
        return ""
    data = stream.buffer.read(MOST_PIPED_BYTES + 1)
    if len(data) > MOST_PIPED_BYTES:
        most = MOST_PIPED_BYTES // 1_000_000
        raise UsageError(f"standard input is longer than {most} MB; no model reads as much")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ChatappError("standard input is not UTF-8 text") from None


def read_question(given: str | None, stream: TextIO | None, files: Sequence[Path]) -> Question:
    """The prompt of the command line, with what a pipe brings behind it, and its files.

    Raises UsageError: there is neither prompt nor pipe. Raises AttachmentError: a file can't be
    read, is too large or no text. Raises ChatappError: standard input is not text.
    """
    piped = read_pipe(stream)
    if given and any("\ud800" <= character <= "\udfff" for character in given):
        raise UsageError("the prompt is not UTF-8 text")
    parts = [part for part in (given, piped.strip("\r\n")) if part and part.strip()]
    if not parts:
        raise UsageError('there is no prompt; give one: chatapp ask "Why is the sky blue?"')
    return Question("\n\n".join(parts), tuple(map(read_file, files)))


def prompt_with(session: Session, text: str) -> Prompt:
    """What the model reads when a conversation goes on with that message."""
    prompt = session.prompt_for(session.conversation.leaf)
    return replace(prompt, turns=(*prompt.turns, Turn("user", text)))


async def tell_files(session: Session, question: Question) -> None:
    """Say on standard error what each file costs.

    Raises AttachmentError: one has no room in the context.
    """
    if not question.files:
        return
    assert session.facts is not None  # its model is loaded
    if session.facts.runtime in SERVERS and not session.facts.vocab_size:
        tell(f"{session.facts.runtime} does not tell how many tokens the files have")
        return
    used = len((await session.engine.render(prompt_with(session, question.text))).tokens)
    for file in question.files:
        tokens = len(await session.engine.tokenize(file.framed()))
        check_room(tokens, file.name, session.facts.context_length, used)
        used += tokens
        tell(f"{' '.join(file.name.split())} has {tokens} tokens")
