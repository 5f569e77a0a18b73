"""The numbers of a draw. They hold from the next token on, of a running reply too."""

from __future__ import annotations

from chatapp.chat.sampling import MOST, MOST_SEED, PARAMETERS, find
from chatapp.chat.thinking import THINK
from chatapp.ui.actions import CommandError, action
from chatapp.ui.chat.base import ChatBase
from chatapp.ui.chat.conversations import Conversations
from chatapp.ui.chat.what_if import WhatIf

_OTHERS = ("seed", "max_tokens", "format", "stop")
"""What /set sets besides the sampler's numbers."""


class Sampling:
    """Sets numbers by name."""

    def __init__(self, chat: ChatBase, conversations: Conversations, what_if: WhatIf) -> None:
        self._chat = chat
        self._session = chat.session
        self._conversations = conversations
        self._what_if = what_if

    @action("temp", usage="[N]")
    def temperature(self, value: str = "") -> None:
        """Temperature (Ctrl+Up, Ctrl+Down): lower is stricter, 0 greedy."""
        self._set_number("temperature", value)

    @action("top-k", PARAMETERS["top_k"].text, usage="[N]")
    def top_k(self, value: str = "") -> None:
        """How many candidates stay."""
        self._set_number("top_k", value)

    @action("top-p", PARAMETERS["top_p"].text, usage="[N]")
    def top_p(self, value: str = "") -> None:
        """Which mass stays."""
        self._set_number("top_p", value)

    @action("min-p", PARAMETERS["min_p"].text, usage="[N]")
    def min_p(self, value: str = "") -> None:
        """From which share of the best one's probability on candidates stay."""
        self._set_number("min_p", value)

    @action("seed", usage="[N]")
    def seed(self, value: str = "") -> None:
        """Same seed, same reply; off takes a fresh one each time."""
        session = self._session
        if not value:
            words = "a fresh one for every reply" if session.seed is None else str(session.seed)
            self._chat.say(f"seed is {words}; /seed N fixes it, /seed off frees it")
        elif value == "off":
            session.seed = None
            self._chat.say("every reply takes a fresh seed")
        else:
            session.seed = _whole("seed", value)
            self._chat.say(f"seed is {session.seed} from the next reply on")

    @action(
        "set", usage="NAME VALUE", values=lambda _: [f"{name} " for name in (*PARAMETERS, *_OTHERS)]
    )
    async def set(self, argument: str) -> None:
        """Any number of the sampler, seed, max_tokens, format, stop."""
        name, _, value = argument.partition(" ")
        value = value.strip()
        match name.lower().replace("-", "_"):
            case "seed":
                self.seed(value)
            case "max_tokens":
                if value:
                    self._session.max_tokens = _whole("max_tokens", value)
                limit = self._session.max_tokens
                self._chat.say(f"max_tokens is {limit or '0: as many as the context has room for'}")
            case "format":
                if value:
                    await self._conversations.set_format(value)
                self._chat.say(f"format is {self._session.conversation.format}")
            case "stop":
                if value:
                    texts = () if value == "off" else (_unescape(value),)
                    await self._conversations.set_stop(texts)
                said = ", ".join(repr(text) for text in self._session.conversation.stop)
                self._chat.say(f"replies end before {said}" if said else "no stop sequence is set")
            case _:
                self._set_number(name, value)

    @action("think", usage="on|off|auto", values=lambda _: THINK)
    async def think(self, argument: str = "") -> None:
        """Have the model think before it answers, or not."""
        if argument and argument not in THINK:
            raise CommandError(f"/think takes {', '.join(THINK)}")
        if argument:
            await self._conversations.set_think(THINK[argument])
        chosen = self._session.conversation.think
        words = next(name for name, value in THINK.items() if value is chosen)
        facts = self._session.facts
        if facts is not None and not facts.thinking_switch and chosen is not None:
            self._chat.say(
                f"think is {words}, but the template of {facts.name} has no switch for it:"
                " this model does as it was trained",
                "warning",
            )
        else:
            self._chat.say(f"think is {words}, from the next reply on")

    def _set_number(self, name: str, text: str) -> None:
        """Set one of the sampler's numbers from text, or tell it where there is none.

        Raises:
            ParameterError: no such number, or no such value; the message says what is allowed.
        """
        parameter = find(name)
        if not text:
            value = getattr(self._chat.sampling, parameter.name)
            self._chat.say(f"{parameter.name} is {parameter.format(value)}: {parameter.text}")
            return
        sampling = self._chat.sampling.with_text(parameter.name, text)
        self._chat.set_sampling(sampling)
        value = getattr(sampling, parameter.name)
        when = ", tried on this reply" if self._what_if.on else " from the next token on"
        self._chat.say(f"{parameter.name} is {parameter.format(value)}{when}")


def _unescape(text: str) -> str:
    """A text in which \\n and \\t are written out, since a command is one line."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _whole(name: str, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    most = MOST_SEED if name == "seed" else MOST
    if not 0 <= number <= most:
        bounds = f"of at most {most}" if number > most else "of at least 0"
        raise CommandError(f"{name} must be a whole number {bounds}, not {text!r}")
    return number
