"""Commands about conversations: which one, what is in it, where it goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from chatapp.chat.sampling import SamplingParams
from chatapp.chat.template import NO_TEMPLATE, Template
from chatapp.ui.commands.registry import Command, CommandError

if TYPE_CHECKING:
    from chatapp.ui.screens.chat import ChatScreen
    from chatapp.ui.screens.chat_inspect import TokenPlace


async def _new(screen: ChatScreen, argument: str) -> None:
    await screen.conversations.begin(_template(screen, argument) if argument else None)


async def _clear(screen: ChatScreen, _argument: str) -> None:
    await screen.conversations.begin_alike()


async def _chats(screen: ChatScreen, _argument: str) -> None:
    screen.action_chats()


async def _search(screen: ChatScreen, argument: str) -> None:
    screen.open_chats(argument)


async def _rename(screen: ChatScreen, argument: str) -> None:
    await screen.conversations.rename(argument)
    screen.say(f"this chat is called {argument}")


async def _template_command(screen: ChatScreen, argument: str) -> None:
    if not argument:
        screen.pick_template()
        return
    verb, _, name = argument.partition(" ")
    if verb == "save" and name.strip():
        file = await screen.conversations.save_template(name.strip())
        screen.say(f"kept as template {name.strip()}, in {file}{_id_words(screen.sampling)}")
        return
    template = _template(screen, argument)
    await screen.conversations.begin(template)
    screen.say(f"a new chat from the template {template.name}; the other one is kept")


def _id_words(sampling: SamplingParams) -> str:
    """What to know of rules for single tokens, since ids mean other tokens to another model."""
    has_ids = sampling.banned or sampling.logit_bias
    return "; its banned and biased tokens are those of this model" if has_ids else ""


async def _system(screen: ChatScreen, argument: str) -> None:
    if not argument:
        text = screen.session.conversation.system
        screen.say(
            f"system text: {text}" if text else "there is no system text; /system TEXT sets it"
        )
        return
    text = "" if argument == "none" else argument
    await screen.conversations.set_system(text)
    screen.say("the system text changed, from the next reply on" if text else "no system text")


async def _regenerate(screen: ChatScreen, _argument: str) -> None:
    screen.action_regenerate()


async def _continue(screen: ChatScreen, _argument: str) -> None:
    screen.action_continue_reply()


MOST_DIGITS = 9
"""A longer number is no rank: no vocabulary has as many tokens."""


async def _branch(screen: ChatScreen, argument: str) -> None:
    place = screen.place
    if place is None:
        raise CommandError("there is no token to branch at; point at one in a reply first")
    if not argument:
        screen.action_branch()
    elif argument.isdecimal() and len(argument) <= MOST_DIGITS:
        screen.take_tokens(place, (await _token_of_rank(screen, place, int(argument)),))
    else:
        screen.take_tokens(place, await _tokens_of_text(screen, place, argument))


async def _token_of_rank(screen: ChatScreen, place: TokenPlace, rank: int) -> int:
    step = screen.step_at(place)
    facts = screen.session.facts
    most = facts.vocab_size if facts is not None else 0
    if not 1 <= rank <= most:
        raise CommandError(f'/branch takes a rank from 1 to {most}, or a text; "{rank}" is a text')
    page = await screen.inspector.candidates(step, rank - 1, 1)
    return page.candidates[0].id


async def _tokens_of_text(screen: ChatScreen, place: TokenPlace, text: str) -> tuple[int, ...]:
    """A candidate that is listed, by its text; any other text in as many tokens as it has."""
    if len(text) > 2 and text[0] == text[-1] == '"':
        text = text[1:-1]  # the command line keeps no space at a text's start
    else:
        for candidate in screen.panel.candidates.listed:
            if text == candidate.token.strip():
                return (candidate.id,)
    spelt = await screen.inspector.spell(screen.step_at(place), text)
    return tuple(token.id for token in spelt.tokens)


async def _attach(screen: ChatScreen, argument: str) -> None:
    if argument == "none":
        screen.detach()
    else:
        await screen.attach(_path(argument))


async def _tree(screen: ChatScreen, _argument: str) -> None:
    screen.action_tree()


async def _edit(screen: ChatScreen, _argument: str) -> None:
    screen.action_edit()


async def _delete(screen: ChatScreen, _argument: str) -> None:
    await screen.action_delete()


async def _undo(screen: ChatScreen, _argument: str) -> None:
    await screen.action_undelete()


async def _export(screen: ChatScreen, argument: str) -> None:
    path = _path(argument)
    await screen.conversations.export(path)
    screen.say(f"written to {path}")


async def _import(screen: ChatScreen, argument: str) -> None:
    await screen.conversations.bring_in(_path(argument))


async def _copy(screen: ChatScreen, argument: str) -> None:
    if argument in ("", "message"):
        screen.copy_message()
    elif argument == "code":
        screen.copy_code()
    elif argument == "all":
        screen.copy_conversation()
    else:
        raise CommandError(f"/copy takes message, code or all, not {argument!r}")


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _template(screen: ChatScreen, name: str) -> Template:
    if name == "none":
        return NO_TEMPLATE
    if (template := screen.conversations.templates.get(name)) is not None:
        return template
    names = ", ".join(template_names(screen))
    raise CommandError(f"there is no template {name!r}; there are {names}")


def template_names(screen: ChatScreen) -> list[str]:
    """All templates, `none` included."""
    return sorted({*screen.conversations.templates, "none"})


COMMANDS = (
    Command("new", "[TEMPLATE]", "Begin a new chat; this one is kept.", _new, template_names),
    Command("chats", "", "Open another chat.", _chats),
    Command("search", "TEXT", "Search all chats.", _search),
    Command("rename", "TITLE", "Give this chat another title.", _rename),
    Command(
        "template",
        "[NAME]",
        "Begin a new chat from a template; save NAME keeps this chat's settings as one.",
        _template_command,
        lambda screen: [*template_names(screen), "save "],
    ),
    Command("system", "[TEXT]", "Show or set the system text; none takes it away.", _system),
    Command("regen", "", "Write another reply; the old one is kept beside it.", _regenerate),
    Command("continue", "", "Go on from the exact end of a reply that was cut.", _continue),
    Command(
        "branch",
        "[RANK or TEXT]",
        'Take another token at the cursor, or any text (" text" keeps a space), and go on.',
        _branch,
    ),
    Command("attach", "FILE", "Send a text file with the next message; none: don't.", _attach),
    Command("tree", "", "The whole chat with all of its branches.", _tree),
    Command("edit", "", "Write the message pointed at anew; the old one is kept.", _edit),
    Command("delete", "", "Delete the message pointed at, with what follows.", _delete),
    Command("undo", "", "Bring back the message that was deleted last.", _undo),
    Command("export", "FILE", "Write this chat to a file; its suffix says how.", _export),
    Command("import", "FILE", "Read a chat from a file and open it.", _import),
    Command(
        "copy",
        "[WHAT]",
        "Copy a message, its code, or all.",
        _copy,
        lambda _: ["message", "code", "all"],
    ),
    Command("clear", "", "Leave this chat for an empty one with the same settings.", _clear),
)
