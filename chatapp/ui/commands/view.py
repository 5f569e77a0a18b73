"""Commands about what is seen, and the model behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatapp.ui.commands.registry import Command, CommandError
from chatapp.ui.token_colours import SCALES

if TYPE_CHECKING:
    from chatapp.ui.screens.chat import ChatScreen

_VIEWS = ("on", "off", *SCALES)


async def _help(screen: ChatScreen, _argument: str) -> None:
    screen.action_help()


async def _model(screen: ChatScreen, argument: str) -> None:
    if argument:
        screen.use_model(argument)
    else:
        screen.action_models()


async def _tokens(screen: ChatScreen, argument: str) -> None:
    if not argument:
        screen.action_toggle_tokens()
    elif argument == "off":
        screen.transcript.view = "markdown"
    elif argument == "on":
        screen.transcript.view = "tokens"
    else:
        for scale in SCALES:
            if argument == scale:
                screen.transcript.scale = scale
                screen.transcript.view = "tokens"
                return
        raise CommandError(f"/tokens takes {', '.join(_VIEWS)}, not {argument!r}")


async def _prompt(screen: ChatScreen, _argument: str) -> None:
    await screen.show_prompt()


async def _quit(screen: ChatScreen, _argument: str) -> None:
    await screen.app.run_action("quit")


COMMANDS = (
    Command("help", "", "Keys and commands.", _help),
    Command("model", "[REF]", "Choose a model: catalog id, repo id, folder or .gguf file.", _model),
    Command(
        "tokens",
        "[SCALE]",
        "Show replies as tokens, coloured by a scale.",
        _tokens,
        lambda _: _VIEWS,
    ),
    Command("prompt", "", "The exact text and tokens that the model reads.", _prompt),
    Command("quit", "", "Leave chatapp.", _quit),
)
