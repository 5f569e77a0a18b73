"""Commands that look into a reply: hold it, find tokens, trace, what if, compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatapp.chat.search import BeamOptions, ContrastiveOptions
from chatapp.ui.commands.registry import Command, CommandError
from chatapp.ui.token_colours import SCALES

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


async def _colour(screen: ChatScreen, argument: str) -> None:
    if not argument:
        screen.action_next_scale()
        return
    for scale in SCALES:
        if argument == scale:
            screen.colour_by(scale)
            return
    raise CommandError(f"/colour takes {', '.join(SCALES)}, not {argument!r}")


async def _score(screen: ChatScreen, argument: str) -> None:
    if argument == "system":
        screen.show_system()
    elif argument in ("", "on", "off"):
        wanted = not screen.scores_wanted if not argument else argument == "on"
        screen.want_scores(wanted)
    else:
        raise CommandError(f"/score takes on, off or system, not {argument!r}")


async def _compare(screen: ChatScreen, argument: str) -> None:
    await screen.compare(argument.replace(",", " ").split())


async def _beam(screen: ChatScreen, argument: str) -> None:
    if not argument:
        await screen.beam(BeamOptions(num_return=4))
        return
    if not argument.isdecimal():
        raise CommandError(f"/beam takes a number of beams, not {argument!r}")
    beams = int(argument)
    await screen.beam(BeamOptions(num_beams=beams, num_return=max(1, min(beams, 4))))


async def _contrastive(screen: ChatScreen, argument: str) -> None:
    if not argument:
        await screen.contrastive(ContrastiveOptions())
        return
    try:
        top_k, _, alpha = argument.partition(" ")
        k, penalty = int(top_k), float(alpha or 0.6)
    except ValueError:
        raise CommandError(
            f"/contrastive takes a number of candidates and α, such as 4 0.6, not {argument!r}"
        ) from None
    await screen.contrastive(ContrastiveOptions(top_k=k, penalty_alpha=penalty))


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
    Command(
        "colour",
        "[SCALE]",
        "Colour tokens by a scale; without one, by the next.",
        _colour,
        lambda _: SCALES,
    ),
    Command(
        "score",
        "[WHAT]",
        "Score your messages and the system text: on, off; system goes to that text.",
        _score,
        lambda _: ["on", "off", "system"],
    ),
    Command(
        "compare",
        "[NAMES]",
        "Answer again under 2 to 4 presets side by side; also now, beam, contrastive.",
        _compare,
        lambda screen: screen.compare_names(),
    ),
    Command("beam", "[N]", "Answer again by beam search, shown as a tree.", _beam),
    Command(
        "contrastive",
        "[K ALPHA]",
        "Answer again by contrastive search, penalties shown.",
        _contrastive,
    ),
    Command("find", "[TEXT]", "Find any token at the cursor, by text or id.", _find),
)
