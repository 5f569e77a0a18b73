"""Why generation ends before the model says so: no more tokens allowed, no room, a failure."""

from __future__ import annotations

from dataclasses import dataclass

from chatapp.chat.errors import EngineError, first_line
from chatapp.chat.record import FinishReason


@dataclass(frozen=True, slots=True)
class Limit:
    """How many tokens may follow a prompt, and what to say when they have."""

    prompt_length: int
    context_length: int
    max_tokens: int
    """0 is as many as the context has room for."""

    @property
    def room(self) -> int:
        """How many tokens the context has room for; 0 or less when the prompt fills it."""
        return self.context_length - self.prompt_length

    @property
    def longest(self) -> int:
        """How many tokens may follow."""
        return max(min(self.max_tokens or self.room, self.room), 0)

    @property
    def reason(self) -> FinishReason:
        """Why the last of them is the last: context where that is what ran out."""
        return FinishReason.CONTEXT if self.longest >= self.room else FinishReason.LENGTH

    def words(self, count: int) -> str:
        """What to say when the context is full. `count`: how many tokens follow the prompt."""
        return (
            f"the context is full: {self.prompt_length + count} of {self.context_length} tokens; "
            "start a new chat, branch from an earlier message, or shorten what is there"
        )


def untaken(reason: FinishReason, count: int) -> str:
    """What to say when a reply is over before all tokens that the user chose are taken.

    `count`: how many of them are left; 0 needs no words.
    """
    if count == 0:
        return ""
    ending = {
        FinishReason.STOP: "an end token",
        FinishReason.STOP_SEQUENCE: "a stop sequence",
        FinishReason.LENGTH: "the maximum length",
    }.get(reason, "the end of the context")
    tokens = "the last token" if count == 1 else f"the last {count} tokens"
    return f"the reply came to {ending}; {tokens} of your text could not be taken"


def failure(error: Exception) -> str:
    """What to say of a failure: our own words, or the first line of the model's code, shortened."""
    if isinstance(error, EngineError):
        return str(error)
    return f"the model failed in mid-reply: {first_line(error)}"
