"""Commands that look into a reply: hold it, find tokens, trace, what if, compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatapp.ui.commands.registry import Command, CommandError

if TYPE_CHECKING:
    from chatapp.ui.screens.chat import ChatScreen


async def _pause(screen: ChatScreen, _argument: str) -> None:
    screen.action_pause()


async def _step(screen: ChatScreen, _argument: str) -> None:
    screen.action_step()


async def _find(screen: ChatScreen, argument: str) -> None:
    screen.find_token(argument)


async def _what_if(screen: ChatScreen, argument: str) -> None:
    if argument == "keep":
        screen.action_keep_what_if()
    elif argument in ("", "back") and (not argument or screen.what_if.on):
        screen.action_what_if()
    else:
        raise CommandError(f"/whatif takes keep or back while settings are tried, not {argument!r}")


async def _trace(screen: ChatScreen, _argument: str) -> None:
    screen.action_trace()


COMMANDS = (
    Command("pause", "", "Hold the reply before its next token, or let it go on.", _pause),
    Command("step", "", "Take one token of the reply, and hold again.", _step),
    Command(
        "whatif",
        "[keep]",
        "Try settings on the reply at the cursor; keep draws with them from then on.",
        _what_if,
        lambda _: ["keep", "back"],
    ),
    Command("trace", "", "What each stage of the sampler did at the cursor.", _trace),
    Command("find", "[TEXT]", "Find any token at the cursor, by text or id.", _find),
)
