"""Errors a user can do something about: what happened, to what, and what to do, in one line.

Whatever reaches the user is a `ChatappError`; anything else is a fault of the program.
"""


class ChatappError(Exception):
    """A failure with a message for the user: one line, no traceback."""


class UsageError(ChatappError):
    """The command was called wrongly (exit status 2)."""


class ModelError(ChatappError):
    """A model that is missing, damaged, refused or too large."""


class FetchError(ModelError):
    """A model that could not be fetched."""


class StoreError(ChatappError):
    """Conversations that could not be read or written; what is in memory stands."""


class ImportFailed(StoreError):
    """A file that holds no conversation we can read; the message says why."""


class EngineError(ChatappError):
    """The engine refused or failed a request; the conversation stands."""


class EngineDied(EngineError):
    """The engine process ended; it can be started again."""


def first_line(error: BaseException) -> str:
    """An exception's first line, shortened: libraries explain at length."""
    text = str(error).strip().split("\n", 1)[0] or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"
