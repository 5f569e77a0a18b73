"""Commands that turn the numbers of a draw. They act on the next token of a running reply."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from chatapp.chat.sampling import MOST, MOST_SEED, PARAMETERS, find
from chatapp.ui.commands.registry import Command, CommandError

if TYPE_CHECKING:
    from chatapp.ui.screens.chat import ChatScreen


def _set_by(name: str) -> Callable[[ChatScreen, str], Awaitable[None]]:
    async def run(screen: ChatScreen, argument: str) -> None:
        set_number(screen, name, argument)

    return run


def set_number(screen: ChatScreen, name: str, text: str) -> None:
    """Set one of the numbers from text.

    Raises:
        ParameterError: no such number, or no such value; the message says what is allowed.
    """
    parameter = find(name)
    if not text:
        value = getattr(screen.sampling, parameter.name)
        screen.say(f"{parameter.name} is {parameter.format(value)}: {parameter.text}")
        return
    sampling = screen.sampling.with_text(parameter.name, text)
    screen.set_sampling(sampling)
    value = getattr(sampling, parameter.name)
    when = ", tried on this reply" if screen.what_if.on else " from the next token on"
    screen.say(f"{parameter.name} is {parameter.format(value)}{when}")


async def _seed(screen: ChatScreen, argument: str) -> None:
    if not argument:
        seed = screen.session.seed
        words = "a fresh one for every reply" if seed is None else str(seed)
        screen.say(f"seed is {words}; /seed N fixes it, /seed off frees it")
    elif argument == "off":
        screen.session.seed = None
        screen.say("every reply takes a fresh seed")
    else:
        seed = _whole("seed", argument)
        screen.session.seed = seed
        screen.say(f"seed is {seed} from the next reply on")


async def _set(screen: ChatScreen, argument: str) -> None:
    name, _, value = argument.partition(" ")
    value = value.strip()
    key = name.lower().replace("-", "_")
    if key == "seed":
        await _seed(screen, value)
    elif key == "max_tokens":
        if value:
            screen.session.max_tokens = _whole("max_tokens", value)
        limit = screen.session.max_tokens
        screen.say(f"max_tokens is {limit or '0: as many as the context has room for'}")
    elif key == "format":
        if value:
            await screen.conversations.set_format(value)
        screen.say(f"format is {screen.session.conversation.format}")
    elif key == "stop":
        if value:
            await screen.conversations.set_stop(() if value == "off" else (_unescape(value),))
        texts = ", ".join(repr(text) for text in screen.session.conversation.stop)
        screen.say(f"replies end before {texts}" if texts else "no stop sequence is set")
    else:
        set_number(screen, name, value)


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


def _names(_screen: ChatScreen) -> list[str]:
    return [f"{name} " for name in (*PARAMETERS, "seed", "max_tokens", "format", "stop")]


COMMANDS = (
    Command("temp", "[N]", "Temperature: lower is stricter, 0 is greedy.", _set_by("temperature")),
    Command("top-k", "[N]", PARAMETERS["top_k"].text, _set_by("top_k")),
    Command("top-p", "[N]", PARAMETERS["top_p"].text, _set_by("top_p")),
    Command("min-p", "[N]", PARAMETERS["min_p"].text, _set_by("min_p")),
    Command("seed", "[N]", "Same seed, same reply; off takes a fresh one each time.", _seed),
    Command(
        "set",
        "NAME VALUE",
        "Any number of the sampler, seed, max_tokens, format, stop.",
        _set,
        _names,
    ),
)
