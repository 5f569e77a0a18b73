"""A text file that is sent with a message: what can be one, and how it stands in the message.

The file's text goes into the message itself, in a fenced block that names it. So what the model
reads is what the user sees, and a conversation stays whole when the file changes.
"""

from __future__ import annotations

import codecs
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chatapp.chat.errors import ChatappError

MOST_BYTES = 4_000_000
"""No more is read of a file: no context here holds as much."""

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MENTION = re.compile(r"""(?:^|(?<=\s))@(?:"([^"\n]+)"|(\S+))""")
_BACKTICKS = re.compile(r"^[ ]{0,3}(`{3,})", re.MULTILINE)


class AttachmentError(ChatappError):
    """A file that cannot be sent with a message; the message says why, with the numbers."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file's text."""

    name: str
    """The last part of its path."""
    text: str
    size: int
    """Bytes in the file."""

    def framed(self) -> str:
        """As it stands in a message: a fenced block that no line of the text can close."""
        longest = max((len(match[1]) for match in _BACKTICKS.finditer(self.text)), default=2)
        fence = "`" * max(3, longest + 1)
        # A name on disk may be any bytes; what is no Unicode cannot be sent.
        known = self.name.encode("utf-8", "replace").decode()
        name = " ".join(known.replace("`", "'").split())
        end = "" if self.text.endswith("\n") else "\n"
        return f"{fence} {name}\n{self.text}{end}{fence}"


def read_attachment(name: str, data: bytes, size: int) -> Attachment:
    """A file's bytes as text.

    `data`: its bytes; no more than `MOST_BYTES` and one have to be read. Raises AttachmentError: it
    is empty, too large, or no text in UTF-8 (or in UTF-16 that says so).
    """
    if size > MOST_BYTES or len(data) > MOST_BYTES:
        raise AttachmentError(
            f"{name} has {size} bytes; at most {MOST_BYTES} can be sent with a message"
        )
    encoding = "utf-8"
    for mark, marked in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            data, encoding = data[len(mark) :], marked
            break
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise AttachmentError(
            f"{name} is no text: byte {error.start} of its {size} is not {encoding.upper()}"
        ) from None
    zeros = text.count("\0")
    if zeros:
        raise AttachmentError(f"{name} is no text: {zeros} of its {size} bytes are zero")
    if not text.strip():
        raise AttachmentError(f"{name} is empty ({size} bytes)")
    return Attachment(name, text.replace("\r\n", "\n"), size)


def read_file(path: Path) -> Attachment:
    """Read a text file. Raises AttachmentError."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "no ordinary file"
            raise AttachmentError(f"{path} is {what}; only a text file can be attached")
        if status.st_size > MOST_BYTES:
            return read_attachment(path.name, b"", status.st_size)
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise AttachmentError(f"cannot read {path}: {reason}") from None
    return read_attachment(path.name, data, max(status.st_size, len(data)))


def find_mentions(text: str) -> tuple[str, ...]:
    """What a message names with @path or @"path with spaces", in order, each once.

    A name counts only at the start of a word, so that addresses of mail are left alone. Whether
    there is such a file is for the caller to see.
    """
    return tuple(dict.fromkeys(match[1] or match[2] for match in _MENTION.finditer(text)))


def compose(text: str, attachments: Sequence[Attachment]) -> str:
    return "\n\n".join([text, *(attachment.framed() for attachment in attachments)])


def check_room(tokens: int, name: str, context_length: int, used: int) -> None:
    """Make sure that a file fits into what the context has left.

    `used`: how many of them the conversation has taken. Raises AttachmentError: it does not fit;
    the message has the numbers.
    """
    left = max(0, context_length - used)
    if tokens >= left:
        raise AttachmentError(
            f"{name} has {tokens} tokens; the context has room for {left} of {context_length}"
        )
