"""Commands about tokens with a rule of their own, the end, the order of stages, and presets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from chatapp.chat.sampling import ORDERS
from chatapp.session.token_names import parse_bias
from chatapp.settings.presets import PresetError
from chatapp.ui.commands.registry import Command, CommandError

if TYPE_CHECKING:
    from chatapp.ui.screens.chat import ChatScreen


async def _bias(screen: ChatScreen, argument: str) -> None:
    if argument == "clear":
        screen.clear_rules()
    elif not argument:
        await screen.tell_rules()
    else:
        await screen.set_bias(parse_bias(argument))


async def _ban(screen: ChatScreen, argument: str) -> None:
    if argument:
        await screen.turn_ban(argument)
    else:
        await screen.tell_rules()


async def _end(screen: ChatScreen, argument: str) -> None:
    match argument:
        case "allow" | "forbid" | "force":
            screen.set_end(argument)
        case _:
            raise CommandError(f"/end takes allow, forbid or force, not {argument!r}")


async def _order(screen: ChatScreen, argument: str) -> None:
    if not argument:
        screen.open_order()
    elif argument in ORDERS:
        screen.set_order(argument)
    else:
        raise CommandError(f"/order takes {' or '.join(ORDERS)}, not {argument!r}")


async def _preset(screen: ChatScreen, argument: str) -> None:
    first, _, rest = argument.partition(" ")
    if not argument:
        screen.say(f"presets: {', '.join(screen.presets.names())}; /preset save NAME keeps another")
    elif first == "save" and rest:
        screen.save_preset(rest.strip())
    elif first == "remove" and rest:
        screen.presets.remove(rest.strip())
        screen.say(f"preset {rest.strip()} is removed")
    else:
        screen.use_preset(argument)


def _presets(screen: ChatScreen) -> Sequence[str]:
    try:
        return [*screen.presets.names(), "save ", "remove "]
    except PresetError:
        return ()


COMMANDS = (
    Command(
        "ban", "[TOKEN]", "Never take a token, by id or text; again allows it.", _ban,
    ),
    Command(
        "bias", "[TOKEN=N]", "Add to a token's logit; none tells what holds, clear frees all.",
        _bias, lambda _: ["clear"],
    ),
    Command(
        "end", "RULE", "The end of a reply: allow, forbid, or force it now.", _end,
        lambda _: ["allow", "forbid", "force"],
    ),
    Command(
        "order", "[NAME]", "The order of the sampler's stages: transformers, llama.cpp, your own.",
        _order, lambda _: list(ORDERS),
    ),
    Command(
        "preset", "[NAME]", "Take a preset; save NAME and remove NAME keep your own.",
        _preset, _presets,
    ),
)  # fmt: skip
